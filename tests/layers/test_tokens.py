import itertools

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.layers import Tokens, get_likelihood


def log_softmax(logits):
    logits = np.asarray(logits, "float64")
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def by_hand(x, logits):
    """Sum of the log-probabilities of all symbols behind the first, `(batch, K)`."""
    found = np.zeros(logits.shape[:2])
    for b, k in itertools.product(*map(range, logits.shape[:2])):
        for t, symbol in enumerate(x[b, 1:]):
            if symbol != 0:
                found[b, k] += log_softmax(logits[b, k, t])[symbol]
    return found


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    x = np.array([[1, 4, 5, 2, 0, 0], [1, 3, 3, 5, 4, 2], [1, 2, 0, 0, 0, 0]], "int32")
    return x, rng.normal(0.0, 2.0, (3, 2, 5, 6)).astype("float32")


@pytest.mark.large_on_jax
def test_log_prob_is_the_sum_over_all_symbols_but_the_first_and_padding(batch):
    x, logits = batch
    found = ops.convert_to_numpy(Tokens(6).log_prob(x, logits))
    np.testing.assert_allclose(found, by_hand(x, logits), rtol=1e-5)


@pytest.mark.large_on_jax
def test_probabilities_of_all_sentences_sum_to_one():
    # All sentences of 2 symbols behind the start, each given its logits whatever they are.
    x = np.array([[1, a, b] for a in range(1, 4) for b in range(1, 4)], "int32")
    logits = np.random.default_rng(1).normal(size=(1, 1, 2, 4)).astype("float32")
    logits[..., 0] = -np.inf
    logits = np.repeat(logits, len(x), axis=0)
    total = np.exp(ops.convert_to_numpy(Tokens(4).log_prob(x, logits))).sum()
    assert total == pytest.approx(1.0, rel=1e-5)


@pytest.mark.large_on_jax
def test_padding_changes_neither_value_nor_count(batch):
    x, logits = batch
    wide = np.pad(x, ((0, 0), (0, 3)))
    more = np.random.default_rng(2).normal(0.0, 5.0, (3, 2, 3, 6)).astype("float32")
    likelihood = Tokens(6)
    # A longer sum may be rounded in another order.
    np.testing.assert_allclose(
        ops.convert_to_numpy(likelihood.log_prob(wide, np.concatenate([logits, more], axis=2))),
        ops.convert_to_numpy(likelihood.log_prob(x, logits)),
        rtol=1e-6,
    )
    for sentences in (x, wide):
        counts = ops.convert_to_numpy(likelihood.num_predicted(sentences))
        np.testing.assert_array_equal(counts, [3.0, 5.0, 1.0])


@pytest.mark.large_on_jax
def test_half_precision_logits_give_a_float32_sum(batch):
    x, logits = batch
    half = ops.cast(logits, "float16")
    found = Tokens(6).log_prob(x, half)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    exact = by_hand(x, ops.convert_to_numpy(half))
    np.testing.assert_allclose(ops.convert_to_numpy(found), exact, rtol=1e-5)


def test_draws_have_the_frequencies_of_the_logits():
    logits = np.float32([0.0, 1.0, -1.0, -np.inf])
    uniform = (np.arange(10_000, dtype="float32")[:, None] + 0.5) / 10_000
    drawn = Tokens(4).from_uniform(np.broadcast_to(logits, (10_000, 4)), uniform)
    share = np.bincount(ops.convert_to_numpy(drawn), minlength=4) / 10_000
    # Evenly spread noise leaves an error of one part in 10,000 at each border.
    np.testing.assert_allclose(share, np.exp(log_softmax(logits)), atol=3e-4)
    assert share[3] == 0


def test_the_largest_noise_draws_no_impossible_class():
    logits = np.full((1, 20_000), -np.inf, "float32")
    logits[0, :19_000] = np.random.default_rng(3).normal(size=19_000)
    drawn = Tokens(20_000).from_uniform(logits, np.float32([[1.0 - 1e-6]]))
    assert int(drawn[0]) < 19_000


def test_mode_is_the_most_probable_id():
    logits = np.float32([[0.0, 3.0, 1.0], [2.0, -1.0, 1.0]])
    mode = Tokens(3).mode(logits)
    np.testing.assert_array_equal(ops.convert_to_numpy(mode), [1, 0])
    assert keras.backend.standardize_dtype(mode.dtype) == "int32"


def test_decoder_gives_the_size_of_the_vocabulary():
    likelihood = get_likelihood("tokens")
    assert likelihood.vocabulary_size is None
    assert likelihood.params_shape((None,)) == (None, None)
    decoder = type("Decoder", (), {"vocabulary_size": 7})()
    likelihood.bind_decoder(decoder)
    assert likelihood.params_shape((5,)) == (4, 7)
    assert likelihood.params_per_value == 7
    given = Tokens(9, end_id=5)
    given.bind_decoder(type("Decoder", (), {"vocabulary_size": 7, "end_id": 2})())
    assert (given.vocabulary_size, given.end_id) == (9, 5)
    likelihood.bind_decoder(type("Decoder", (), {"end_id": 2})())
    assert likelihood.end_id == 2
    assert Tokens.from_config(likelihood.get_config()).end_id == 2


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 3, 1), "int32"), r"`x` must hold sentences of ids.*shape=\(2, 3, 1\)"),
        (np.ones((2, 1), "int32"), r"length of at least 2. Received: shape=\(2, 1\)"),
        (np.array([[1.0, 4.5]]), "whole numbers, ids of tokens. Received: fractions"),
        (np.array([[1, 6, 2]]), r"ids in \[0, 6\). Received: ids from 1 to 6"),
        (np.array([[1, -1, 2]]), r"Received: ids from -1 to 2"),
        (np.array([[1, 4, 2], [1, 0, 0]]), r"row 1 starts with \[1, 0\]"),
        (np.array([[1, 4, 2], [0, 4, 2]]), r"row 1 starts with \[0, 4\]"),
        (np.array([[1, 4, 0, 2]]), r"padding \(id 0\) only at the end.*row 0 goes on behind it"),
    ],
)
def test_what_is_no_sentence_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        Tokens(6).check(x)


@pytest.mark.one_backend
def test_the_last_symbol_before_padding_is_the_end():
    Tokens(6, end_id=2).check(np.array([[1, 4, 2, 0], [1, 4, 5, 2], [1, 2, 0, 0]]))
    for row in ([1, 4, 0, 0], [1, 4, 5, 3], [1, 2, 4, 0]):
        with pytest.raises(ValueError, match="row 1 ends in [345]"):
            Tokens(6, end_id=2).check(np.array([[1, 4, 2, 0], row]))


@pytest.mark.one_backend
def test_sentences_pass_whatever_their_dtype():
    for dtype in ("int32", "int64", "uint8", "float32"):
        Tokens(6).check(np.array([[1, 4, 2, 0], [1, 2, 0, 0]], dtype))


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocabulary_size": 1}, "`vocabulary_size` must be an integer of at least 2"),
        ({"vocabulary_size": 2.5}, "`vocabulary_size` must be an integer of at least 2"),
        ({"end_id": -1}, "`end_id` must be a non-negative integer or None. Received: end_id=-1"),
        ({"pad_id": -1}, "`pad_id` must be a non-negative integer. Received: pad_id=-1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tokens(**arguments)
