import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.zoo import networks
from vaezoo.zoo.networks import LSTMDecoder, lstm_encoder

X = np.array([[1, 4, 5, 2, 0], [1, 6, 4, 5, 2], [1, 2, 0, 0, 0]], "int32")
Z = np.float32([[0.3, -1.0], [2.0, 0.5], [0.0, 1.0]])


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def lstm_by_hand(inputs, h, c, kernel, recurrent, bias):
    """Hidden states of Keras' order of gates: input, forget, candidate, output."""
    states = []
    for step in inputs:
        i, f, g, o = np.split(step @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.array(states)


def decoder(**options):
    keras.utils.set_random_seed(1)
    sizes = {"vocabulary_size": 7, "embedding_dim": 3, "units": 4, "scale": 0.8, "max_length": 6}
    layer = LSTMDecoder(2, (None,), **{**sizes, **options})
    layer(Z, X)
    return layer


def weights(layer):
    return [ops.convert_to_numpy(variable) for variable in layer.weights]


@pytest.mark.large_on_jax
def test_encoder_gives_the_state_at_the_end_symbol():
    encoder = lstm_encoder((None,), 7, embedding_dim=3, units=4)
    embeddings, *cell = weights(encoder)
    features = ops.convert_to_numpy(encoder(X))
    for row, found in zip(X, features, strict=True):
        words = embeddings[row[row != 0]]
        expected = lstm_by_hand(words, np.zeros(4), np.zeros(4), *cell)[-1]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.large_on_jax
@pytest.mark.parametrize("initial_state", ["cell", "hidden", None])
@pytest.mark.parametrize("every_step", [True, False])
def test_code_enters_where_it_is_said_to(initial_state, every_step):
    if initial_state is None and not every_step:
        pytest.skip("refused, see below")
    layer = decoder(initial_state=initial_state, every_step=every_step)
    logits = ops.convert_to_numpy(layer(Z, X))
    assert logits.shape == (3, 4, 7)
    embeddings, cell = weights(layer.embedding)[0], weights(layer.lstm)
    (readout,) = weights(layer.readout)
    for number, (row, z) in enumerate(zip(X, Z, strict=True)):
        first = np.zeros(4) if initial_state is None else z @ weights(layer.state)[0]
        h, c = {"cell": (np.tanh(first), first), "hidden": (first, 0 * first)}.get(
            initial_state, (first, first)
        )
        words = embeddings[row[:-1]]
        if every_step:
            words = np.concatenate([words, np.repeat(z[None], 4, axis=0)], axis=1)
        expected = lstm_by_hand(words, h, c, *cell) @ readout
        np.testing.assert_allclose(logits[number], expected, atol=1e-5)


@pytest.mark.large_on_jax
@pytest.mark.parametrize("embedding_dim", [3, 4])
def test_tied_embeddings_write_as_they_read(embedding_dim):
    layer = decoder(tie_embeddings=True, embedding_dim=embedding_dim)
    tied = [variable.path for variable in layer.trainable_variables]
    assert any("readout" in path for path in tied) == (embedding_dim != 4)
    before = ops.convert_to_numpy(layer(Z, X))
    embeddings = ops.convert_to_numpy(layer.embedding.embeddings).copy()
    embeddings[6] *= 3.0
    layer.embedding.embeddings.assign(embeddings)
    after = ops.convert_to_numpy(layer(Z, X))
    # Row 0 does not read the word 6, whose logit triples all the same.
    np.testing.assert_allclose(after[0, :, 6], 3.0 * before[0, :, 6], rtol=1e-4)
    np.testing.assert_allclose(after[0, :, :6], before[0, :, :6], rtol=1e-5)


@pytest.mark.large_on_jax
def test_logits_depend_on_earlier_words_only():
    layer = decoder()
    before = ops.convert_to_numpy(layer(Z, X))
    changed = X.copy()
    changed[1, 3] = 6
    after = ops.convert_to_numpy(layer(Z, changed))
    # What is read at 3 moves what is predicted of 4, and no more.
    np.testing.assert_array_equal(after[1, :3], before[1, :3])
    assert np.all(after[1, 3] != before[1, 3])
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])


def test_steps_give_the_logits_of_a_pass():
    layer = decoder()
    logits = ops.convert_to_numpy(layer(Z, X))
    state = layer.start(Z)
    for place in range(4):
        step, state = layer.step(X[:, place], Z, state)
        step = ops.convert_to_numpy(step)
        # No sentence goes on with padding or another start.
        assert np.all(np.isneginf(step[:, :2]))
        np.testing.assert_allclose(step[:, 2:], logits[:, place, 2:], atol=1e-5)


def test_generated_sentences_are_well_formed_and_end():
    layer = decoder()

    def draw(logits, noise):
        # Ends at the step that the noise says.
        return ops.where(noise[:, 0] > 0, 2, ops.cast(ops.argmax(logits[:, 3:], -1) + 3, "int32"))

    noise = np.zeros((3, 5, 1), "float32")
    noise[0, 0] = noise[1, 2] = 1.0
    found = ops.convert_to_numpy(layer.generate(Z, draw, noise))
    assert found.dtype == np.int32
    assert found.shape == (3, 6)
    np.testing.assert_array_equal(found[0], [1, 2, 0, 0, 0, 0])
    assert found[1, 3] == 2
    assert np.all(found[1, 1:3] >= 3)
    np.testing.assert_array_equal(found[1, 4:], 0)
    # Cut off: no end symbol.
    assert np.all(found[2, 1:] >= 3)


def test_greedy_words_are_the_most_probable_of_a_pass():
    layer = decoder(scale=2.0)
    nothing = np.zeros((3, 5, 1), "float32")
    found = ops.convert_to_numpy(
        layer.generate(Z, lambda logits, _: ops.argmax(logits, -1), nothing)
    )
    logits = ops.convert_to_numpy(layer(Z, found))
    logits[..., :2] = -np.inf
    for row, best in zip(found, logits.argmax(-1), strict=True):
        length = np.flatnonzero(row == 2)[0] if 2 in row else 5
        np.testing.assert_array_equal(row[1 : 1 + length], best[:length])


def test_word_dropout_makes_words_unknown_but_never_the_start():
    layer = decoder(word_dropout=0.999, embedding_dropout=0.0, output_dropout=0.0, seed=0)
    unknown = X.copy()
    unknown[:, 1:] = 3
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(Z, X, training=True)),
        ops.convert_to_numpy(layer(Z, unknown)),
        atol=1e-5,
    )


def test_dropout_is_for_training_and_differs_from_step_to_step():
    layer = decoder(embedding_dropout=0.5, output_dropout=0.0)
    still = [ops.convert_to_numpy(layer(Z, X)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    first, second = (ops.convert_to_numpy(layer(Z, X, training=True)) for _ in range(2))
    assert np.any(first != second)
    assert np.any(first != still[0])


@pytest.mark.large
def test_dropped_outputs_leave_the_mean_of_the_logits():
    layer = decoder(embedding_dropout=0.0, output_dropout=0.5)
    z, x = np.repeat(Z[:1], 4000, axis=0), np.repeat(X[:1], 4000, axis=0)
    draws = ops.convert_to_numpy(layer(z, x, training=True))
    error = draws.std(0) / np.sqrt(len(draws))
    expected = ops.convert_to_numpy(layer(Z[:1], X[:1]))[0]
    assert np.all(np.abs(draws.mean(0) - expected) < 5.0 * error + 1e-6)


@pytest.mark.large
def test_parameter_counts_are_the_papers_with_one_bias_an_lstm():
    # 16,605,696 and 37,185,024 for 20,001 words, less the second bias, 4 x 1024, of each network.
    encoder = lstm_encoder((None,), 20_001)
    head = 1024 * 64
    assert encoder.count_params() + head == 16_605_696 - 4 * 1024
    layer = LSTMDecoder(32, (None,), 20_001)
    layer.build((None, 32), (None, None))
    assert layer.count_params() == 37_185_024 - 4 * 1024


@pytest.mark.large
@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((8_411, 128, 512, 32), (2_424_192, 6_779_776)), ((1_004, 50, 50, 2), (70_800, 121_300))],
)
def test_parameter_counts_of_the_small_configurations(sizes, expected):
    words, embedding, units, latent_dim = sizes
    encoder, layer = networks.make(
        "lstm",
        (None,),
        latent_dim,
        vocabulary_size=words,
        embedding_dim=embedding,
        units=units,
    )
    layer.build((None, latent_dim), (None, None))
    head = units * 2 * latent_dim
    assert encoder.count_params() + head == expected[0] - 4 * units
    assert layer.count_params() == expected[1] - 4 * units


@pytest.fixture(scope="module")
def untrained():
    """Of a wider scope than a test: with the true initial values."""
    keras.utils.set_random_seed(0)
    encoder, layer = networks.make(
        "lstm", (None,), 4, vocabulary_size=500, embedding_dim=16, units=64
    )
    layer.build((None, 4), (None, None))
    return encoder, layer


def test_weights_start_as_the_papers_do(untrained):
    encoder, layer = untrained
    embeddings, *cell = weights(encoder)
    # Standard errors of mean and deviation of 8,000 draws of N(0, 1).
    assert abs(embeddings.mean()) < 4 / np.sqrt(8000)
    assert abs(embeddings.std() - 1.0) < 4 / np.sqrt(16000)
    for values in cell:
        assert np.abs(values).max() <= 1 / 8
        assert np.abs(values).max() > 0.9 / 8
    for variable in layer.trainable_variables:
        bound = 0.1 if "embedding" in variable.path else 0.01
        largest = np.abs(ops.convert_to_numpy(variable)).max()
        assert 0.9 * bound < largest <= bound, variable.path


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary_size": 1}, "`vocabulary_size` must be an integer of at least 2"),
        ({"units": 0}, "`units` must be a positive integer"),
        ({"scale": 0.0}, "`scale` must be a finite, positive number or None. Received: scale=0.0"),
        ({"embedding_scale": -1.0}, "`embedding_scale` must be a finite, positive number"),
        (
            {"word_dropout": 1.0},
            r"`word_dropout` must be a number in \[0, 1\). Received: word_dropout=1.0",
        ),
        ({"initial_state": "both"}, "`initial_state` must be one of 'cell', 'hidden'"),
        ({"initial_state": None, "every_step": False}, "the code enters nowhere else"),
        ({"end_id": 7}, r"`end_id` must be an integer from 0 to 6. Received: end_id=7"),
        (
            {"max_length": 1},
            "`max_length` must be an integer of at least 2 or None. Received: max_length=1",
        ),
    ],
)
def test_arguments_of_the_decoder_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        decoder(**options)


@pytest.mark.one_backend
def test_other_data_than_sentences_are_refused():
    with pytest.raises(ValueError, match=r"`input_shape` must be \(None,\), or \(T,\)"):
        lstm_encoder((28, 28, 1), 7)
    with pytest.raises(ValueError, match=r"`output_shape` must be \(None,\), or \(T,\)"):
        LSTMDecoder(2, (1,), 7)
    with pytest.raises(ValueError, match="`pad_id` must be 0. Received: pad_id=1"):
        lstm_encoder((None,), 7, pad_id=1)
    with pytest.raises(ValueError, match=r"a decoder of sentences of shape \(5,\)"):
        LSTMDecoder(2, (5,), 7).check_event((6,))


@pytest.mark.one_backend
def test_cudnn_turns_xla_off_and_is_refused_with_it():
    sizes = {"vocabulary_size": 7, "embedding_dim": 3, "units": 4}
    encoder, layer = networks.make("lstm", (None,), 2, use_cudnn=True, **sizes)
    model = zoo.TextVAE(encoder, layer, latent_dim=2)
    assert model.uses_cudnn
    model.compile()
    assert not model.jit_compile
    with pytest.raises(ValueError, match="cannot compile cuDNN's LSTM on TensorFlow"):
        model.compile(jit_compile=True)
    # One of both is enough.
    encoder, layer = networks.make("lstm", (None,), 2, decoder={"use_cudnn": True}, **sizes)
    assert zoo.TextVAE(encoder, layer, latent_dim=2).uses_cudnn
    encoder, layer = networks.make("lstm", (None,), 2, **sizes)
    model = zoo.TextVAE(encoder, layer, latent_dim=2)
    assert not model.uses_cudnn
    model.compile(jit_compile=True)
    assert model.jit_compile
