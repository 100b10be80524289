import itertools

import numpy as np
import pytest

from vaezoo.data import buckets
from vaezoo.data.buckets import cheapest_buckets

pytestmark = pytest.mark.one_backend


def cost(lengths, chosen, batch_size):
    widths = np.array(chosen)[np.searchsorted(chosen, lengths)]
    moving = (batch_size - 1) / 2 * (chosen[-1] - chosen[0])
    return widths.sum() + buckets.COMPILATION * len(chosen) + moving


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [20, 400])
@pytest.mark.parametrize("most", [2, 8])
def test_no_other_lengths_cost_less(seed, scale, most, monkeypatch):
    monkeypatch.setattr(buckets, "MOST_BUCKETS", most)
    rng = np.random.default_rng(seed)
    lengths = np.repeat(rng.choice(40, 9, replace=False) + 3, rng.integers(1, scale, 9))
    chosen = cheapest_buckets(lengths, 32)
    assert chosen == sorted(set(chosen))
    assert chosen[-1] == lengths.max()
    *shorter, longest = np.unique(lengths)
    least = min(
        cost(lengths, [*some, longest], 32)
        for size in range(most)
        for some in itertools.combinations(shorter, size)
    )
    assert cost(lengths, chosen, 32) == least


def test_many_sentences_have_little_padding():
    # Lengths as those of short Yelp: multiples of 8 would pass 1.3 positions a token.
    lengths = np.clip(np.random.default_rng(0).poisson(9, 100_000), 3, 17)
    chosen = cheapest_buckets(lengths, 32)
    assert 4 <= len(chosen) <= buckets.MOST_BUCKETS
    widths = np.array(chosen)[np.searchsorted(chosen, lengths)]
    assert widths.sum() < 1.08 * lengths.sum()


def test_few_sentences_have_one_length_and_a_single_one_its_own():
    assert cheapest_buckets(np.array([4, 9, 9, 6]), 2) == [9]
    assert cheapest_buckets(np.array([7]), 32) == [7]
    # As many different lengths as a corpus of documents has, within a second.
    assert cheapest_buckets(np.arange(3, 3000), 32)[-1] == 2999
