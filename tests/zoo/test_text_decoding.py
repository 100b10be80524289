"""Drawing, decoding and searching for sentences, on 4 words and 6 symbols."""

import itertools
import math

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import layers, zoo
from vaezoo.core.random import StatelessSeed
from vaezoo.layers import Categorical, Tokens, filter_logits
from vaezoo.zoo import networks

PAD, START, END, FIRST = 0, 1, 2, 3
SIZE, LENGTH, CODE = 6, 6, 3


@pytest.fixture(scope="module")
def model():
    """A model whose sentences are of all lengths, some cut off at `LENGTH` symbols."""
    keras.utils.set_random_seed(0)
    encoder, decoder = networks.make(
        "lstm",
        (None,),
        CODE,
        vocabulary_size=SIZE,
        embedding_dim=4,
        units=6,
        decoder={"max_length": LENGTH},
    )
    model = zoo.TextVAE(encoder, decoder, latent_dim=CODE)
    model.build((None, None))
    rng = np.random.default_rng(4)
    for variable in model.decoder.trainable_variables:
        variable.assign(1.5 * rng.standard_normal(variable.shape))
    return model


@pytest.fixture(scope="module")
def codes():
    return np.random.default_rng(0).normal(size=(12, CODE)).astype("float32")


@pytest.fixture(scope="module")
def images():
    """A model of class numbers, and one of binary values, neither of them autoregressive."""

    def make(likelihood, channels):
        encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "tanh")])
        decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4 * channels)])
        if channels > 1:
            decoder.add(keras.layers.Reshape((4, channels)))
        model = zoo.VAE(encoder, decoder, latent_dim=2, likelihood=likelihood)
        model.build((None, 4))
        return model

    keras.utils.set_random_seed(0)
    return make(Categorical(5), 5), make("bernoulli", 1)


def log_likelihood(model, z, x):
    """log p(x|z) by the decoder's pass over whole sentences."""
    z = ops.convert_to_tensor(z)[:, None]
    return ops.convert_to_numpy(model.likelihood.log_prob(x, model.params(z, x))[:, 0])


def every_sentence():
    """All sentences that a decoder can write, `(n, LENGTH)`."""
    rows = []
    for count in range(LENGTH - 1):
        for words in itertools.product([*range(FIRST, SIZE)], repeat=count):
            rows.append([START, *words, END] + [PAD] * (LENGTH - 2 - count))
    return np.array(rows, "int32")


def assert_are_sentences(x):
    assert x.dtype == np.int32
    assert np.all(x[:, 0] == START)
    inner = x[:, 1:]
    assert np.all(inner != START)
    ended = np.cumsum(inner == END, axis=1) - (inner == END) > 0
    np.testing.assert_array_equal(inner == PAD, ended)


# -- restricted logits -------------------------------------------------------------------------


def reference(logits, temperature, top_k, top_p):
    """Class by class, from the most probable one on."""
    logits = logits.astype("float64") / temperature
    result = np.full_like(logits, -np.inf)
    for place in np.ndindex(logits.shape[:-1]):
        order = np.argsort(-logits[place])[: top_k or None]
        share = np.exp(logits[place][order] - logits[place].max())
        share, total = share / share.sum(), 0.0
        for number, part in zip(order, share, strict=True):
            if total >= top_p:
                break
            result[place][number] = logits[place][number]
            total += part
    return result


@pytest.mark.large_on_jax
@pytest.mark.parametrize(
    "options",
    [
        (1.0, 0, 1.0),
        (0.5, 0, 1.0),
        (1.0, 1, 1.0),
        (1.0, 4, 1.0),
        (1.0, 9, 1.0),
        (1.0, 50, 1.0),
        (1.0, 0, 1e-6),
        (1.0, 0, 0.6),
        (1.0, 0, 0.999),
        (2.0, 5, 0.7),
        (0.01, 3, 0.5),
    ],
)
def test_filtered_logits_are_those_of_the_most_probable_classes(options):
    logits = 3.0 * np.random.default_rng(0).normal(size=(7, 2, 9)).astype("float32")
    found = ops.convert_to_numpy(filter_logits(logits, *options))
    np.testing.assert_allclose(found, reference(logits, *options), rtol=1e-5)


@pytest.mark.one_backend
def test_former_names_are_kept_for_a_release():
    assert layers.restricted_logits is filter_logits
    tokens = Tokens()
    tokens.adopt(networks.LSTMDecoder(2, (4,), 9, units=3))
    assert tokens.vocabulary_size == 9


def test_filtered_logits_leave_impossible_classes_out():
    logits = np.array([[-np.inf, 1.0, 3.0, -np.inf, 2.0]], "float32")
    for options in [(1.0, 4, 1.0), (1.0, 0, 0.99), (1.0, 3, 1.0)]:
        np.testing.assert_array_equal(filter_logits(logits, *options), logits)
    kept = ops.convert_to_numpy(filter_logits(logits, None, 2))
    np.testing.assert_array_equal(kept > -np.inf, [[False, False, True, False, True]])
    only = np.array([[-np.inf, 1.0]], "float32")
    np.testing.assert_array_equal(filter_logits(only, None, 1, 0.5), only)


def test_categorical_draws_as_tokens_do():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 4, 6)).astype("float32")
    uniform = rng.uniform(size=(5, 4, 1)).astype("float32")
    options = 0.7, 3, 0.9
    drawn = Categorical(6).from_uniform(logits, uniform[..., 0], *options)
    np.testing.assert_array_equal(drawn, Tokens(6).from_uniform(logits, uniform, *options))


# -- generate ----------------------------------------------------------------------------------


@pytest.mark.large
def test_generated_sentences_are_well_formed_and_repeat_by_seed(model):
    x = model.generate(40, seed=0)
    assert_are_sentences(x)
    assert set(np.unique((x != PAD).sum(axis=1))) == set(range(2, LENGTH + 1))
    np.testing.assert_array_equal(model.generate(40, seed=0, batch_size=16), x)
    # What changes nothing.
    same = model.generate(40, seed=0, mean=False, temperature=1.0, top_k=0, top_p=1.0)
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(model.generate(40, seed=0, top_k=SIZE), x)
    assert np.any(model.generate(40, seed=1) != x)


@pytest.mark.large_on_jax
@pytest.mark.parametrize("options", [{"temperature": 1e-5}, {"top_k": 1}, {"top_p": 1e-3}])
def test_the_sharpest_draw_is_greedy(model, options):
    z = model.prior.sample(40, StatelessSeed(3))
    greedy = model.decode(z, batch_size=40)
    np.testing.assert_array_equal(model.generate(40, seed=3, **options), greedy)


@pytest.mark.one_backend
def test_first_words_have_the_frequencies_of_the_filtered_logits(model):
    count = 3000
    z = np.full((1, CODE), 0.3, "float32")
    logits, _ = model.decoder.step(np.array([START]), z, model.decoder.start(z))
    expected = ops.convert_to_numpy(ops.softmax(filter_logits(logits, 1.7, 3, 0.95)))[0]
    assert np.count_nonzero(expected) > 1
    options = np.float32(1.7), np.int32(3), np.float32(0.95)
    x = model._drawn(np.repeat(z, count, axis=0), 0, 1000, options)
    found = np.bincount(x[:, 1], minlength=SIZE) / count
    error = np.sqrt(expected * (1.0 - expected) / count)
    np.testing.assert_array_less(np.abs(found - expected), 4.5 * error + 1e-6)


def test_options_are_no_reason_to_compile_again(model):
    traces = []
    decoder, step = model.decoder, model.decoder.step

    def counted(*args):
        traces.append(None)
        return step(*args)

    decoder.step = counted
    try:
        model.compiled_functions.pop("ancestral", None)
        model.generate(5, seed=0)
        first = len(traces)
        for options in ({"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.5, "temperature": 3.0}):
            model.generate(5, seed=0, **options)
    finally:
        decoder.step = step
    assert len(traces) == first > 0


def test_classes_of_images_are_drawn_with_the_same_options(images):
    categorical, _ = images
    modes = categorical.generate(30, seed=0)
    np.testing.assert_array_equal(categorical.generate(30, seed=0, mean=False, top_k=1), modes)
    drawn = categorical.generate(30, seed=0, mean=False)
    assert np.any(drawn != modes)
    again = categorical.generate(30, seed=0, mean=False, temperature=1.0, top_p=1.0)
    np.testing.assert_array_equal(drawn, again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "`temperature` must be a .*positive number or None. .*=0.0"),
        ({"temperature": float("inf")}, "`temperature` must be a finite, positive"),
        ({"temperature": True}, "`temperature` must be a finite, positive"),
        ({"top_k": -1}, "`top_k` must be an integer from 0 to .*top_k=-1"),
        ({"top_k": 1.5}, "`top_k` must be an integer from 0 to .*top_k=1.5"),
        ({"top_p": 0}, r"`top_p` must be a number in \(0, 1\] or None. Received: top_p=0"),
        ({"top_p": 1.1}, r"`top_p` must be a number in \(0, 1\] or None. Received: top_p=1.1"),
        ({"top_p": math.nan}, "`top_p` must be a number in"),
    ],
)
def test_options_out_of_range_are_errors(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate(2, **options)


def test_options_without_classes_to_draw_are_errors(images):
    categorical, bernoulli = images
    with pytest.raises(
        ValueError, match=r"`top_k` needs a likelihood of classes.*top_k=3 with Ber"
    ):
        bernoulli.generate(2, mean=False, top_k=3)
    with pytest.raises(ValueError, match=r"`top_p` needs mean=False.*top_p=0.5, mean=True"):
        categorical.generate(2, top_p=0.5)


# -- decode ------------------------------------------------------------------------------------


@pytest.mark.large
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.one_backend
def test_a_beam_of_one_is_greedy(model, codes, length_penalty):
    greedy = model.decode(codes, batch_size=8)
    assert_are_sentences(greedy)
    assert len(np.unique((greedy != PAD).sum(axis=1))) > 1
    found, log_prob = model.decode(
        codes, batch_size=8, beam_size=1, length_penalty=length_penalty, return_log_prob=True
    )
    np.testing.assert_array_equal(found, greedy)
    np.testing.assert_allclose(log_prob, log_likelihood(model, codes, greedy), rtol=1e-4)


@pytest.mark.large
@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 3.0])
def test_a_wide_beam_finds_the_best_of_all_sentences(model, codes, length_penalty):
    everything = every_sentence()
    score = np.stack(
        [log_likelihood(model, np.repeat(z[None], len(everything), 0), everything) for z in codes]
    )
    length = (everything != PAD).sum(axis=1) - 1
    best = (score / ((5.0 + length) / 6.0) ** length_penalty).argmax(axis=1)
    found, log_prob = model.decode(
        codes, batch_size=12, beam_size=400, length_penalty=length_penalty, return_log_prob=True
    )
    np.testing.assert_array_equal(found, everything[best])
    np.testing.assert_allclose(log_prob, score[np.arange(12), best], rtol=1e-4)


@pytest.mark.one_backend
def test_a_narrow_beam_finds_sentences_that_greedy_decoding_does_not(model, codes):
    found, log_prob = model.decode(codes, batch_size=12, beam_size=3, return_log_prob=True)
    assert_are_sentences(found)
    np.testing.assert_allclose(log_prob, log_likelihood(model, codes, found), rtol=1e-4)
    greedy = model.decode(codes, batch_size=12)
    ended = np.any(greedy == END, axis=1)
    better = log_prob - log_likelihood(model, codes, greedy)
    assert better[ended].max() > 0.01
    several = model.decode(codes.reshape(4, 3, CODE), batch_size=12, beam_size=3)
    np.testing.assert_array_equal(several.reshape(found.shape), found)
    eager = ops.convert_to_numpy(model.decode(codes[:2], beam_size=3))
    np.testing.assert_array_equal(eager, found[:2])


def test_a_larger_penalty_gives_longer_sentences(model, codes):
    lengths = [
        (model.decode(codes, batch_size=12, beam_size=400, length_penalty=penalty) != PAD).sum()
        for penalty in (0.0, 0.7, 3.0)
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_errors_of_a_search_name_what_is_wrong(model, images, codes):
    with pytest.raises(ValueError, match="`beam_size` must be a positive integer.*beam_size=0"):
        model.decode(codes, beam_size=0)
    with pytest.raises(ValueError, match="`length_penalty` must be a .*non-negative number.*=-0.5"):
        model.decode(codes, beam_size=2, length_penalty=-0.5)
    with pytest.raises(ValueError, match="`return_log_prob` needs a `beam_size`"):
        model.decode(codes, return_log_prob=True)
    with pytest.raises(ValueError, match="`beam_search`.*beam_size=2 with Sequential"):
        images[1].decode(codes[:, :2], beam_size=2)


# -- interpolate -------------------------------------------------------------------------------


@pytest.mark.large
@pytest.mark.one_backend
def test_sentences_on_the_way_are_those_of_the_codes_on_it(model):
    x = every_sentence()
    # Those that were cut off cannot be encoded.
    x = x[(x == END).any(axis=1)]
    a, b = x[[1, 4, 7]], x[[20, 3, 12]]
    between = model.interpolate(a[:, :5], b, steps=5)
    assert between.shape == (3, 5, LENGTH)
    np.testing.assert_array_equal(between[:, 0], model.reconstruct(a))
    np.testing.assert_array_equal(between[:, -1], model.reconstruct(b))
    middle = 0.5 * (model.encode(a, 8).mean + model.encode(b, 8).mean)
    np.testing.assert_array_equal(between[:, 2], model.decode(middle, batch_size=8))


@pytest.mark.one_backend
def test_images_on_the_way_are_those_of_the_codes_on_it(images):
    _, model = images
    a, b = np.random.default_rng(0).uniform(0.1, 1.0, (2, 5, 4)).astype("float32")
    ends = [model.encode(x, 8).mean for x in (a, b)]
    angle = np.arccos(np.sum(ends[0] * ends[1], -1) / np.prod(np.linalg.norm(ends, axis=-1), 0))
    middle = 0.5 * (ends[0] + ends[1])
    for path, code in {"linear": middle, "spherical": middle / np.cos(angle / 2)[:, None]}.items():
        between = model.interpolate(a, b, steps=3, batch_size=2, path=path)
        expected = [model.reconstruct(a), model.decode(code, 8), model.reconstruct(b)]
        np.testing.assert_allclose(between, np.stack(expected, 1), rtol=1e-4)
    # There is no arc between a code and itself.
    np.testing.assert_allclose(
        model.interpolate(a, a, steps=2, path="spherical")[:, 1], model.reconstruct(a), rtol=1e-4
    )


def test_errors_of_interpolation_name_what_is_wrong(images):
    _, model = images
    x = np.zeros((3, 4), "float32")
    with pytest.raises(ValueError, match="`steps` must be at least 2. Received: steps=1"):
        model.interpolate(x, x, steps=1)
    with pytest.raises(ValueError, match="`path` must be one of 'linear', 'spherical'.*'straight'"):
        model.interpolate(x, x, path="straight")
    with pytest.raises(ValueError, match="as many examples as each other. Received: 3 and 2"):
        model.interpolate(x, x[:2])
    with pytest.raises(ValueError, match=r"shape that the encoder takes.*\(3, 5\)"):
        model.interpolate(x, np.zeros((3, 5), "float32"))
