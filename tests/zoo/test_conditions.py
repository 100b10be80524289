"""Models that are conditioned on labels, vectors or images."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import layers, zoo
from vaezoo.zoo import networks

ROWS, EVENT, LATENT = 21, 6, 3
LABELS = np.arange(ROWS) % 4


def rows(num=ROWS, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (num, EVENT)).astype("float32")


X = rows()
BATCH = {"x": X, "kind": LABELS}


def make(condition=None, constructor=zoo.VAE, **options):
    pair = networks.make(
        "mlp", (EVENT,), LATENT, hidden_units=[8], condition=condition or {"kind": 4}
    )
    return constructor(*pair, latent_dim=LATENT, **options)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = make(seed=1)
    model.compile("adam")
    model.build((None, EVENT))
    model.fit(BATCH, epochs=1, batch_size=8, verbose=0, validation_split=0.2)
    # Conditions matter after so short a training, too.
    kernel = model.encoder.kernel
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    return model


# -- what it computes ------------------------------------------------------------------------------


def test_evidence_of_a_conditional_linear_gaussian_model_is_exact():
    """x = W z + U c + b + noise; with the exact posterior one draw gives log p(x|c)."""
    rng = np.random.default_rng(1)
    weights, offsets = rng.normal(size=(EVENT, LATENT)), rng.normal(size=(EVENT, 4))
    bias, scale = rng.normal(size=EVENT), 0.7
    encoder = keras.Sequential([keras.Input((EVENT,)), keras.layers.Dense(EVENT)])
    decoder = keras.Sequential([keras.Input((LATENT + 4,)), keras.layers.Dense(EVENT)])
    model = zoo.VAE(
        layers.ConditionalEncoder(encoder, {"kind": 4}),
        decoder,
        head=layers.GaussianHead(LATENT, seed=0),
        likelihood=layers.Gaussian(scale=scale),
    )
    model.build((None, EVENT))
    # The features are x - U c - b.
    encoder.layers[0].set_weights([np.eye(EVENT), -bias])
    shift = np.hstack([np.zeros((4, EVENT)), -offsets.T])
    model.encoder.kernel.assign(shift)
    precision = np.eye(LATENT) + weights.T @ weights / scale**2
    # Of a diagonal posterior: coordinates in which the exact one is diagonal.
    values, basis = np.linalg.eigh(precision)
    weights = weights @ basis
    decoder.layers[0].set_weights([np.hstack([weights, offsets]).T, bias])
    means = (weights / scale**2 / values).astype("float32")
    kernel = np.hstack([means, np.zeros((EVENT, LATENT))])
    model.head.projection.set_weights([kernel, np.concatenate([np.zeros(LATENT), -np.log(values)])])
    x = rng.normal(size=(ROWS, EVENT)).astype("float32")
    found = model.log_prob({"x": x, "kind": LABELS}, num_samples=1)
    covariance = weights @ weights.T + scale**2 * np.eye(EVENT)
    centered = x - offsets.T[LABELS] - bias
    exact = -0.5 * (
        np.sum(centered @ np.linalg.inv(covariance) * centered, axis=1)
        + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    np.testing.assert_allclose(found, exact, rtol=1e-4)
    # And under another condition it is another.
    other = model.log_prob({"x": x, "kind": (LABELS + 1) % 4}, num_samples=1)
    assert np.all(np.abs(other - exact) > 1e-2)


def test_decoder_sees_the_condition_beside_the_code(model):
    z = np.random.default_rng(0).normal(size=(4, LATENT)).astype("float32")
    by_hand = model.decoder(np.hstack([z, np.eye(4)[[2, 0, 1, 3]]]).astype("float32"))
    expected = model.likelihood.mean(by_hand)
    np.testing.assert_allclose(model.decode(z, condition=[2, 0, 1, 3]), expected, rtol=1e-6)
    np.testing.assert_allclose(
        model.decode(z, condition=[2, 0, 1, 3], batch_size=3), expected, rtol=1e-6
    )
    # Several codes of an example have its condition.
    pairs = model.decode(np.stack([z, z], axis=1), condition=[2, 0, 1, 3])
    np.testing.assert_allclose(pairs[:, 1], expected, rtol=1e-6)


def test_encoder_sees_the_condition(model):
    features = model.encoder.encoder(X)
    scale, shift = np.split(ops.convert_to_numpy(model.encoder.kernel)[LABELS], 2, axis=1)
    expected = model.head.posterior(features * (1 + scale) + shift).mean
    np.testing.assert_allclose(model.encode(BATCH).mean, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        model.encode(BATCH, batch_size=8).mean, expected, rtol=1e-5, atol=1e-6
    )


def test_reconstructs_and_interpolates_under_other_conditions(model):
    code = model.encode(BATCH).mean
    np.testing.assert_allclose(
        model.reconstruct(BATCH), model.decode(code, condition=LABELS), rtol=1e-5
    )
    other = model.decode(code, condition=3)
    np.testing.assert_allclose(model.reconstruct(BATCH, condition=3), other, rtol=1e-5)
    reverse = {name: value[::-1] for name, value in BATCH.items()}
    path = model.interpolate(BATCH, reverse, 3)
    np.testing.assert_allclose(path[:, 0], model.reconstruct(BATCH), rtol=1e-5)
    np.testing.assert_allclose(path[:, -1], model.reconstruct(reverse), rtol=1e-5)
    path = model.interpolate(BATCH, reverse, 3, condition=3, path="spherical")
    np.testing.assert_allclose(path[:, 0], other, rtol=1e-5)


def test_generates_under_one_condition_or_one_each(model):
    same = model.generate(4, seed=5, condition=1)
    np.testing.assert_array_equal(same, model.generate(4, seed=5, condition=[1, 1, 1, 1]))
    mixed = model.generate(4, seed=5, condition=[0, 1, 2, 1])
    np.testing.assert_allclose(mixed[[1, 3]], same[[1, 3]], rtol=1e-6)
    assert np.all(np.any(mixed[[0, 2]] != same[[0, 2]], axis=1))
    drawn = model.generate(4, seed=5, condition={"kind": 1}, mean=False)
    assert set(np.unique(drawn)) <= {0.0, 1.0}


def test_file_holds_conditions(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.log_prob(BATCH, 2), model.log_prob(BATCH, 2))
    np.testing.assert_array_equal(
        loaded.generate(2, 0, condition=1), model.generate(2, 0, condition=1)
    )
    assert loaded.evaluate(BATCH, verbose=0)[1] > 0


def test_without_conditions_nothing_is_added():
    pair = networks.make("mlp", (EVENT,), LATENT, hidden_units=[8])
    model = zoo.VAE(*pair, latent_dim=LATENT)
    z = np.zeros((2, LATENT), "float32")
    assert model.codes(z, None) is z
    assert model.canonical(X) is X
    features = model.encoder(X)
    np.testing.assert_array_equal(model.features(X), features)
    with pytest.raises(ValueError, match="`condition` must be None: the model is not conditional"):
        model.decode(z, condition=1)
    with pytest.raises(TypeError, match="dict with the keys 'x', 'kind'; give one of its values"):
        model.encode(BATCH)


# -- kinds of conditions ---------------------------------------------------------------------------

FORMS = {
    "numbers": LABELS,
    "column": LABELS[:, None],
    "floats": LABELS.astype("float32"),
    "one-hot": np.eye(4)[LABELS],
    "booleans": np.eye(4, dtype=bool)[LABELS],
    "list": LABELS.tolist(),
    "objects": LABELS.astype(object),
}


@pytest.mark.one_backend
@pytest.mark.parametrize("form", FORMS)
def test_labels_come_in_any_form(form):
    encoder = layers.ConditionalEncoder(keras.layers.Dense(2), {"kind": 4})
    given = encoder.read_given({"kind": FORMS[form]}, ROWS)
    np.testing.assert_array_equal(given["kind"], LABELS)
    assert given["kind"].dtype == "int32"


@pytest.mark.one_backend
def test_labels_are_strings_or_any_integers():
    words = np.array(["no", "yes", "maybe", "no"])
    for column in (words, words.astype("S5"), words.astype(object), words[:, None], words.tolist()):
        kind = layers.LabelCondition(["maybe", "no", "yes"])
        values = kind.reader("answer", np.asarray(column))
        np.testing.assert_array_equal(values, [1, 2, 0, 1])
        # What was read once may be read again.
        np.testing.assert_array_equal(kind.reader("answer", values), [1, 2, 0, 1])
    np.testing.assert_array_equal(kind(values), np.eye(3)[[1, 2, 0, 1]])
    kind = layers.LabelCondition(np.array([7, 3, -1]))
    values = kind.reader("answer", np.array([[3.0], [7.0]]))
    np.testing.assert_array_equal(kind(values), np.eye(3)[[1, 0]])


@pytest.mark.large
def test_several_conditions_of_all_kinds_train_and_come_back(tmp_path):
    image = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "relu")]
    )
    model = make({"word": ["b", "a"], "place": layers.VectorCondition(2), "image": image})
    model.compile("adam")
    rng = np.random.default_rng(0)
    batch = {
        "data": X,
        "word": np.array(["a", "b", "a"] * 7),
        "place": rng.normal(size=(ROWS, 2)),
        "image": rng.normal(size=(ROWS, 4, 4, 1)),
    }
    before = ops.convert_to_numpy(image.layers[1].kernel)
    model.fit(batch, epochs=1, batch_size=7, verbose=0)
    assert np.any(ops.convert_to_numpy(image.layers[1].kernel) != before)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.log_prob(batch, 2), model.log_prob(batch, 2))
    one = {"word": "a", "place": [0.0, 1.0], "image": batch["image"][0]}
    assert model.generate(3, condition=one).shape == (3, EVENT)
    with pytest.raises(ValueError, match="`word` must hold the classes 'b', 'a'. Received: 'c'"):
        model.generate(3, condition={**one, "word": "c"})
    with pytest.raises(ValueError, match="`condition` must be a dict of 'word', 'place', 'image'"):
        model.generate(3, condition="a")


def test_encoder_of_several_inputs_gets_each_by_name():
    data, kind = keras.Input((EVENT,), name="data"), keras.Input((4,), name="kind")
    hidden = keras.layers.Dense(5)(keras.layers.Concatenate()([data, kind]))
    encoder = keras.Model([kind, data], hidden)
    model = zoo.VAE(
        layers.ConditionalEncoder(encoder, {"kind": 4}),
        keras.Sequential([keras.Input((LATENT + 4,)), keras.layers.Dense(EVENT)]),
        latent_dim=LATENT,
    )
    expected = encoder([np.eye(4, dtype="float32")[LABELS], X])
    np.testing.assert_allclose(
        model.encode(BATCH).mean, model.head.posterior(expected).mean, rtol=1e-5
    )
    with pytest.raises(ValueError, match="`encoder` must have one input for the data and one for"):
        layers.ConditionalEncoder(encoder, {"sort": 4})


def test_encoder_of_several_outputs_is_joined():
    data = keras.Input((EVENT,))
    first = keras.layers.Dense(2)(data)
    second = keras.layers.Reshape((3, 1))(keras.layers.Dense(3)(data))
    for outputs in ([first, second], {"a": first, "b": second}):
        encoder = keras.Model(data, outputs)
        model = zoo.VAE(
            encoder,
            keras.Sequential([keras.Input((LATENT,)), keras.layers.Dense(EVENT)]),
            latent_dim=LATENT,
        )
        features = np.hstack([np.reshape(v, (ROWS, -1)) for v in keras.tree.flatten(encoder(X))])
        assert features.shape == (ROWS, 5)
        expected = model.head.posterior(model.features(X)).mean
        np.testing.assert_allclose(model.features(X), features, rtol=1e-6)
        np.testing.assert_allclose(model.encode(X, batch_size=8).mean, expected, rtol=1e-5)


# -- sources of data -------------------------------------------------------------------------------


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, number):
        return self.batches[number]


def parts(labels=LABELS):
    return [
        ({"image": X[i : i + 7], "kind": labels[i : i + 7]}, labels[i : i + 7])
        for i in range(0, ROWS, 7)
    ]


@pytest.mark.large
def test_batches_of_dicts_come_from_any_source(model):
    tf = pytest.importorskip("tensorflow")
    expected = model.evaluate(BATCH, verbose=0, batch_size=7)
    columns = {"image": X, "kind": LABELS}
    sources = [
        Batches(parts()),
        (batch for batch in parts()),
        tf.data.Dataset.from_tensor_slices((columns, LABELS)).batch(7),
        tf.data.Dataset.from_tensor_slices(columns).batch(7),
    ]
    for source in sources:
        found = model.evaluate(source, verbose=0)
        # Draws differ from evaluation to evaluation.
        np.testing.assert_allclose(found, expected, rtol=0.3)
    assert model.predict(sources[0], verbose=0).z.shape == (ROWS, 1, LATENT)
    bad = tf.data.Dataset.from_tensor_slices({"image": X, "kind": LABELS + 1}).batch(7)
    with pytest.raises(ValueError, match="`kind` must hold classes from 0 to 3. Received: 4"):
        model.fit(bad, verbose=0)
    with pytest.raises(ValueError, match="the keys 'image', without 'kind'"):
        model.evaluate(tf.data.Dataset.from_tensor_slices({"image": X}).batch(7), verbose=0)


BAD = {
    "an array": (X, TypeError, "`x` must be a dict of the data, 'x', and what conditions them"),
    "no condition": ({"x": X}, ValueError, "Received: the keys 'x', without 'kind'"),
    "no data": ({"kind": LABELS}, ValueError, "Received: the keys 'kind', without the data"),
    "a key too many": ({**BATCH, "id": LABELS}, ValueError, "of which 'id' is unknown"),
    "a class unknown": ({"x": X, "kind": LABELS + 1}, ValueError, "to 3. Received: 4"),
    "a class negative": ({"x": X, "kind": -LABELS}, ValueError, "to 3. Received: -1"),
    "no whole number": ({"x": X, "kind": LABELS + 0.5}, ValueError, "to 3. Received: 0.5"),
    "a word": ({"x": X, "kind": ["a"] * ROWS}, ValueError, "to 3. Received: 'a'"),
    "None": ({"x": X, "kind": None}, TypeError, "`kind` must be an array. Received: NoneType"),
    "other rows": ({"x": X, "kind": LABELS[1:]}, ValueError, "one row for each of the 21 examples"),
    "two columns": ({"x": X, "kind": np.zeros((ROWS, 2))}, ValueError, "`kind` must hold labels"),
    "a missing label": ({"x": X, "kind": np.full(ROWS, np.nan)}, ValueError, "Received: nan"),
}


@pytest.mark.one_backend
@pytest.mark.parametrize("case", BAD)
def test_bad_batches_are_refused(model, case):
    batch, kind, message = BAD[case]
    calls = [model.fit, model.evaluate, model.predict, model.log_prob, model.encode]
    for call in [*calls, model.reconstruct, model.train_on_batch]:
        with pytest.raises(kind, match=re.escape(message)):
            call(batch)


@pytest.mark.one_backend
def test_bad_conditions_are_refused(model):
    with pytest.raises(ValueError, match="`condition` must be given: the model is conditioned on"):
        model.generate(3)
    with pytest.raises(ValueError, match="`condition` must be given"):
        model.decode(np.zeros((2, LATENT)))
    with pytest.raises(ValueError, match="one 'kind', or one for each of the 3 examples. Received"):
        model.generate(3, condition=[1, 2])
    with pytest.raises(ValueError, match="must have the keys 'kind'. Received: the keys 'sort'"):
        model.generate(3, condition={"sort": 1})
    with pytest.raises(
        ValueError, match=r"codes of shape \(batch, 7\).*=3 and 4 of the conditions"
    ):
        zoo.VAE(
            layers.ConditionalEncoder(keras.layers.Dense(2), 4),
            keras.Sequential([keras.Input((LATENT,)), keras.layers.Dense(EVENT)]),
            latent_dim=LATENT,
        )


# -- the prior p(z|c) ------------------------------------------------------------------------------


def test_conditional_prior_moves_and_scales_codes():
    keras.utils.set_random_seed(0)
    model = make(prior=layers.ConditionalNormal(), seed=1)
    model.build((None, EVENT))
    plain = make(seed=1)
    plain.build((None, EVENT))
    plain.encoder.set_weights(model.encoder.get_weights())
    plain.head.projection.set_weights(model.head.projection.get_weights())
    plain.decoder.set_weights(model.decoder.get_weights())
    # It starts as N(0, I).
    np.testing.assert_allclose(
        model.log_prob(BATCH, 2, seed=0), plain.log_prob(BATCH, 2, seed=0), rtol=1e-5
    )
    means, scales = np.random.default_rng(0).normal(size=(2, 4, LATENT)).astype("float32")
    model.prior.kernel.assign(np.hstack([means, scales]))
    codes = np.random.default_rng(1).normal(size=(4, LATENT)).astype("float32")
    moved = means + np.exp(scales) * codes
    expected = plain.decode(moved, condition=np.arange(4))
    np.testing.assert_allclose(
        model.decode(codes, condition=np.arange(4)), expected, rtol=1e-4, atol=1e-6
    )
    # Equal seeds draw equal u, and p(z|c) places them.
    drawn = ops.convert_to_numpy(model.prior.sample(4, keras.random.SeedGenerator(0)))
    assert drawn.shape == (4, LATENT)
    assert np.any(model.generate(4, 3, condition=1) != plain.generate(4, 3, condition=1))
    # KL(q(z|x, c) || p(z|c)) in z equals that in u.
    posterior = model.encode(BATCH)
    mean, var = np.asarray(posterior.mean), np.exp(np.asarray(posterior.log_var))
    own, spread = means[LABELS], np.exp(2 * scales[LABELS])
    by_hand = (spread * var + (own + np.exp(scales[LABELS]) * mean - own) ** 2) / spread
    by_hand = 0.5 * np.sum(by_hand - 1 - np.log(var), axis=1)
    np.testing.assert_allclose(model.prior.kl_divergence(posterior), by_hand, rtol=1e-4)


@pytest.mark.large
def test_conditional_prior_learns_and_comes_back(tmp_path):
    model = make(prior=layers.ConditionalNormal())
    model.compile("adam")
    model.fit(BATCH, epochs=1, batch_size=8, verbose=0)
    assert np.any(ops.convert_to_numpy(model.prior.kernel))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.log_prob(BATCH, 2), model.log_prob(BATCH, 2))


@pytest.mark.one_backend
def test_conditional_prior_needs_conditions():
    pair = networks.make("mlp", (EVENT,), LATENT, hidden_units=[8])
    with pytest.raises(ValueError, match="`prior` must not be a ConditionalNormal of a model with"):
        zoo.VAE(*pair, latent_dim=LATENT, prior=layers.ConditionalNormal())
