import importlib.util
import io
import warnings

import keras
import numpy as np
import pytest

from vaezoo import layers, losses, metrics, zoo
from vaezoo.callbacks import GammaRenormalization, LatentMonitor, _pictures

pytest.importorskip("tensorflow", reason="event files are written through TensorFlow")

EPOCHS = 4


def read(folder):
    """All records of a folder: `{tag: {epoch: array}}`."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        tag: {e.step: tensor_util.make_ndarray(e.tensor_proto) for e in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


def picture(record):
    """The image of a record, float in [0, 1]."""
    from PIL import Image

    image = np.asarray(Image.open(io.BytesIO(record[2])), "float32") / 255.0
    return image if image.ndim == 3 else image[:, :, None]


class Traced(keras.layers.Layer):
    """Identity that counts how often Python runs it."""

    calls = 0

    def call(self, x):
        Traced.calls += 1
        return x


class CallsByEpoch(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.counts = []

    def on_epoch_end(self, epoch, logs=None):
        self.counts.append(Traced.calls)


def train(make_vae, x, *callbacks):
    model = make_vae(zoo.DUVAE, gamma=0.6, keep_prob=0.8, seed=5, learning_rate=0.05)
    model.encoder.add(Traced())
    model.encoder.add(keras.layers.Dropout(0.1))
    model.fit(x, batch_size=10, epochs=EPOCHS, verbose=0, callbacks=list(callbacks))
    return model


INFORMATION = (
    "mutual_information",
    "marginal_divergence",
    "mutual_posterior_divergence",
    "conditional_entropy",
    "aggregate_divergence",
)


@pytest.fixture(scope="module")
def watched(make_vae, images, tmp_path_factory):
    """A model trained under the monitor, what was written, and calls of Python by epoch."""
    folder, calls = tmp_path_factory.mktemp("logs"), CallsByEpoch()
    x, labels = images
    # Steps that Keras does not record must not silence ours.
    keras_board = keras.callbacks.TensorBoard(str(folder), write_graph=False, update_freq=3)
    monitor = LatentMonitor(
        x, labels, log_dir=folder, image_frequency=2, num_images=5, batch_size=16
    )
    model = train(make_vae, x, keras_board, monitor, calls, GammaRenormalization())
    return model, read(folder), calls.counts


def test_everything_is_written(watched):
    _, records, _ = watched
    numbers = {"latent/active_units", "latent/rate", "latent/distortion"}
    numbers |= {f"kl_per_dimension/{d}" for d in range(3)} | {"gamma/rms", "gamma/min", "gamma/max"}
    numbers |= {"posterior/mean", "posterior/variance"}
    numbers |= {f"information/{name}" for name in INFORMATION}
    pictures = {"latent/means", "reconstructions", "samples", "traversals"}
    assert set(records) == numbers | pictures
    assert all(list(records[tag]) == [0, 1, 2, 3] for tag in numbers)
    # Every second epoch, and the last.
    assert all(list(records[tag]) == [0, 2, 3] for tag in pictures)


def test_numbers_are_those_of_the_model(watched, images):
    model, records, _ = watched
    x, _ = images
    last = {tag: steps[EPOCHS - 1] for tag, steps in records.items()}
    posterior = model.encode(x)
    per_dimension = keras.ops.convert_to_numpy(losses.kl_per_dimension(posterior)).mean(axis=0)
    assert last["latent/active_units"] == float(metrics.active_units(model, x))
    for dimension, rate in enumerate(per_dimension):
        np.testing.assert_allclose(last[f"kl_per_dimension/{dimension}"], rate, rtol=1e-4)
    np.testing.assert_allclose(last["latent/rate"], per_dimension.sum(), rtol=1e-4)
    np.testing.assert_allclose(last["gamma/rms"], 0.6, rtol=1e-6)
    information = metrics.mutual_information(posterior)
    expected = {
        "mutual_information": information.value,
        "marginal_divergence": information.extra["marginal_divergence"],
        "mutual_posterior_divergence": metrics.mutual_posterior_divergence(posterior).value,
        "conditional_entropy": metrics.conditional_entropy(posterior).value,
        "aggregate_divergence": metrics.aggregate_moments(posterior).divergence,
    }
    assert set(expected) == set(INFORMATION)
    for name, value in expected.items():
        np.testing.assert_allclose(last[f"information/{name}"], value, rtol=1e-3, atol=1e-4)
    gamma = model.head.mean_norm.gamma.numpy()
    np.testing.assert_array_equal(
        [last["gamma/min"], last["gamma/max"]], [gamma.min(), gamma.max()]
    )
    # Buckets are (left, right, count).
    for tag, values in {
        "posterior/mean": posterior.mean,
        "posterior/variance": losses.variance(posterior),
    }.items():
        values = keras.ops.convert_to_numpy(values)
        buckets = last[tag]
        assert buckets[:, 2].sum() == values.size
        np.testing.assert_allclose(
            [buckets[0, 0], buckets[-1, 1]], [values.min(), values.max()], rtol=1e-4
        )


def test_distortion_is_that_of_the_same_data(watched, images):
    model, records, _ = watched
    written = [float(value) for value in records["latent/distortion"].values()]
    values = keras.ops.convert_to_numpy(model.log_terms(images[0], 50, seed=3).distortion)
    # One draw against fifty others.
    assert written[-1] == pytest.approx(values.mean(), rel=0.05)
    assert written[-1] < written[0]


def test_reconstructions_lie_below_their_inputs(watched, images):
    model, records, _ = watched
    x = images[0][:5]
    shown = picture(records["reconstructions"][EPOCHS - 1])
    expected = _pictures.tile(np.concatenate([x, model.reconstruct(x)]), 5, (0.0, 1.0))
    # Eight bits.
    np.testing.assert_allclose(shown, expected, atol=1.01 / 255)


def test_samples_have_the_same_noise_each_time(watched):
    model, records, _ = watched
    expected = _pictures.tile(model.generate(5, seed=0), 3, (0.0, 1.0))
    np.testing.assert_allclose(picture(records["samples"][EPOCHS - 1]), expected, atol=1.01 / 255)


@pytest.mark.large
def test_training_is_the_same_without_it(watched, make_vae, images):
    model, _, _ = watched
    alone = train(make_vae, images[0])
    for with_monitor, without in zip(model.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(
            with_monitor.numpy(), without.numpy(), err_msg=with_monitor.path
        )


def test_nothing_is_traced_again(watched):
    _, _, counts = watched
    # Epoch 0 compiles all but what the drawing of the later ones needs.
    assert counts[0] == counts[1] == counts[2] == counts[3]


@pytest.mark.large
@pytest.mark.one_backend
def test_deterministic_codes_have_neither_rate_nor_variance(make_vae, images, tmp_path):
    model = make_vae(zoo.AE, deterministic=True)
    model.fit(images[0], verbose=0, callbacks=[LatentMonitor(images[0], log_dir=tmp_path)])
    tags = {"latent/active_units", "latent/distortion", "posterior/mean"}
    tags |= {"latent/means", "reconstructions", "samples", "traversals"}
    assert set(read(tmp_path)) == tags


@keras.saving.register_keras_serializable(package="tests")
class Chain(layers.AutoregressiveImageDecoder):
    """Logits that are a linear map of the pixels before, and of z."""

    def build(self, z_shape, x_shape):
        size = int(np.prod(self.output_shape_))
        self.mask = np.triu(np.ones((size, size), "float32"), 1)
        self.matrix = self.add_weight(shape=(size, size))
        self.reader = self.add_weight(shape=(self.latent_dim, size))

    def call(self, z, x, training=False):
        flat = keras.ops.reshape(x, (-1, self.mask.shape[0]))
        logits = keras.ops.matmul(flat, self.matrix * self.mask) + keras.ops.matmul(z, self.reader)
        return keras.ops.reshape(logits, (-1, *self.output_shape_))


@pytest.mark.large
@pytest.mark.one_backend
def test_flows_and_autoregressive_decoders_are_watched(images, tmp_path):
    x, _ = images
    keras.utils.set_random_seed(1)
    model = zoo.VAE(
        keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Flatten()]),
        Chain(4, x.shape[1:]),
        head=layers.FlowHead(4, layers.InverseAutoregressiveFlow(1, (8,))),
    )
    model.compile(keras.optimizers.SGD(1e-3))
    monitor = LatentMonitor(x, log_dir=tmp_path, num_images=3, image_frequency=2)
    model.fit(x, epochs=2, verbose=0, callbacks=[monitor])
    records = read(tmp_path)
    assert {tag for tag in records if tag.startswith("information")} == {
        "information/mutual_posterior_divergence",
        "information/conditional_entropy",
        "information/aggregate_divergence",
    }
    last = {tag: steps[1] for tag, steps in records.items()}
    terms = model.log_terms(x, seed=0)
    per_dimension = [last[f"kl_per_dimension/{dimension}"] for dimension in range(4)]
    assert sum(per_dimension) == pytest.approx(float(last["latent/rate"]), rel=1e-4)
    assert float(last["latent/rate"]) == pytest.approx(float(np.mean(terms.kl)), rel=1e-4)
    base = model.encode(x).base
    assert last["latent/active_units"] == float(metrics.active_units(base.mean))
    shown = picture(last["reconstructions"])
    decoded = model.decode(model.encode(x).mean[:3])
    expected = _pictures.tile(np.concatenate([x[:3], decoded]), 3, (0.0, 1.0))
    np.testing.assert_allclose(shown, expected, atol=1.01 / 255)
    assert last["latent/active_units"] == 4
    # Four dimensions are active, three traversed.
    mean = keras.ops.convert_to_numpy(model.encode(x).mean)
    assert len(monitor._traversed(mean, np.ones(4, bool))) == 3
    assert "traversals" in records


@pytest.mark.large
@pytest.mark.one_backend
def test_auxiliary_softmax_is_reported(make_vae, images, tmp_path):
    x, _ = images
    model = make_vae(zoo.VAEAS, num_examples=len(x), hidden_units=(8,))
    monitor = LatentMonitor(x, log_dir=tmp_path, image_frequency=None, frequency=2)
    history = model.fit(x, batch_size=40, epochs=3, verbose=0, callbacks=[monitor]).history
    records = read(tmp_path)
    found = {tag for tag in records if tag.startswith("auxiliary/")}
    assert found == {f"auxiliary/{name}" for name in losses.AuxiliarySoftmax.report_names}
    for tag in found:
        values = history[tag.removeprefix("auxiliary/")]
        assert {epoch: float(value) for epoch, value in records[tag].items()} == pytest.approx(
            {epoch: values[epoch] for epoch in (0, 2)}, rel=1e-5
        )


@pytest.mark.large
@pytest.mark.one_backend
def test_vectors_have_no_images(make_vae, tmp_path):
    x = np.random.default_rng(0).random((20, 6), "float32")
    model = make_vae(event=(6,))
    monitor = LatentMonitor(x, log_dir=tmp_path, frequency=2, max_dimensions=2)
    model.fit(x, epochs=2, verbose=0, callbacks=[monitor])
    records = read(tmp_path)
    assert {"reconstructions", "samples", "traversals"}.isdisjoint(records)
    assert list(records["latent/rate"]) == [0]
    assert list(records["latent/means"]) == [0, 1]
    assert {tag for tag in records if tag.startswith("kl")} == {
        "kl_per_dimension/0",
        "kl_per_dimension/1",
    }


@pytest.mark.large
@pytest.mark.one_backend
def test_images_can_be_left_out_and_collapsed_codes_have_no_traversals(make_vae, images, tmp_path):
    x, _ = images
    model = make_vae(event=x.shape[1:])
    monitor = LatentMonitor(x, log_dir=tmp_path / "none", image_frequency=None)
    high = LatentMonitor(x, log_dir=tmp_path / "high", threshold=1e6)
    model.fit(x, verbose=0, callbacks=[monitor, high])
    assert "latent/means" not in read(tmp_path / "none")
    records = read(tmp_path / "high")
    assert "samples" in records
    assert "traversals" not in records
    assert records["latent/active_units"][0] == 0


@pytest.mark.one_backend
def test_diverged_codes_are_passed_over(make_vae, images, tmp_path):
    model = make_vae()
    monitor = LatentMonitor(images[0], log_dir=tmp_path)
    monitor.set_model(model)
    monitor.on_train_begin()
    kernel = model.head.projection.kernel
    kernel.assign(np.full(kernel.shape, np.nan, "float32"))
    with pytest.warns(UserWarning, match="Posterior means are not finite after epoch 3"):
        monitor.on_epoch_end(3)
    monitor.on_train_end()
    assert read(tmp_path) == {}


@pytest.mark.one_backend
def test_data_that_do_not_fit_are_refused_before_the_first_step(make_vae, images, tmp_path):
    x, _ = images
    for data, message in ((x[:, :3], r"shape=\(40, 3, 4, 1\)"), (255 * x, "divide 8-bit images")):
        model = make_vae()
        before = [weight.numpy() for weight in model.weights]
        with pytest.raises(ValueError, match=message):
            model.fit(x, verbose=0, callbacks=[LatentMonitor(data, log_dir=tmp_path)])
        for old, weight in zip(before, model.weights, strict=True):
            np.testing.assert_array_equal(old, weight.numpy())
    assert list(tmp_path.iterdir()) == []


DATA = np.zeros((5, 4, 4, 1), "float32")


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data": [[1.0, 2.0]]}, TypeError, "`data` must be an array.*Received: list"),
        ({"data": np.array(["a", "b"])}, TypeError, "`data` must hold real numbers.*dtype=<U1"),
        ({"data": DATA[:1]}, ValueError, r"at least 2 examples. Received: shape=\(1, 4, 4, 1\)"),
        ({"data": np.zeros(5)}, ValueError, r"Received: shape=\(5,\)"),
        ({"data": np.array([[1.0], [np.inf]])}, ValueError, "`data` must hold finite numbers"),
        ({"labels": np.zeros(4)}, ValueError, r"`labels` must have shape \(5,\).*shape=\(4,\)"),
        ({"frequency": 0}, ValueError, "`frequency` must be a positive integer.*frequency=0"),
        ({"image_frequency": 0}, ValueError, "image_frequency=0"),
        ({"num_images": 2.5}, ValueError, "num_images=2.5"),
        ({"num_traversals": 0}, ValueError, "num_traversals=0"),
        ({"max_dimensions": True}, ValueError, "max_dimensions=True"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"seed": -1}, ValueError, "`seed` must be an integer in .0, 2.31.. Received: seed=-1"),
        ({"traversal_range": (1.0, 1.0)}, ValueError, r"traversal_range=\(1.0, 1.0\)"),
        (
            {"threshold": -1.0},
            ValueError,
            "`threshold` must be a .*non-negative.*threshold=-1.0",
        ),
    ],
)
def test_errors_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        LatentMonitor(**{"data": DATA, **arguments})


@pytest.mark.parametrize("package", ["tensorflow", "tensorboard"])
def test_error_without_tensorflow(monkeypatch, package):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find_spec(name)
    )
    with pytest.raises(ImportError, match=f"needs TensorFlow and TensorBoard.*Missing: {package}"):
        LatentMonitor(DATA)


def test_construction_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LatentMonitor(DATA, np.array(list("abcab")), frequency=2, image_frequency=None)
