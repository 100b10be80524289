import importlib.util
import math
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import ops

from helpers.sources import Batches
from vaezoo import zoo
from vaezoo.layers import Gaussian, GaussianHead, VarianceDropout
from vaezoo.losses import ELBO, LinearSchedule

JAX = keras.backend.backend() == "jax"
# JAX is slow without its compiler; TensorFlow without XLA compiles faster than with it.
QUICK = {"jit_compile": JAX}


@pytest.fixture
def make_vae(dense_networks):
    def make(optimizer="adam", run=QUICK, **kwargs):
        keras.utils.set_random_seed(0)
        model = zoo.VAE(*dense_networks(), **{"latent_dim": 3, "seed": 1, **kwargs})
        model.build((None, 6))
        model.compile(optimizer, **run)
        return model

    return make


@pytest.fixture
def make_point_ae(dense_networks):
    """Its loss is a function of the data alone."""

    def make(**compile_args):
        keras.utils.set_random_seed(0)
        model = zoo.AE(*dense_networks(), latent_dim=3, deterministic=True)
        model.build((None, 6))
        model.compile(keras.optimizers.SGD(0.1), **{**QUICK, **compile_args})
        return model

    return make


def weights(model):
    return [ops.convert_to_numpy(variable) for variable in model.trainable_variables]


def noise_state(model):
    return ops.convert_to_numpy(model.head.reparam.noise.state)


def assert_equal_weights(a, b, **tolerance):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_allclose(left, right, **{"rtol": 1e-5, "atol": 1e-6, **tolerance})


def as_source(kind, batches):
    if kind == "generator":
        return (batch for batch in batches)
    if kind == "PyDataset":
        return Batches(batches)
    tf = pytest.importorskip("tensorflow")
    spec = keras.tree.map_structure(
        lambda part: tf.TensorSpec((None, *part.shape[1:]), part.dtype), batches[0]
    )
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)


# -- data ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(binary_data, dense_networks):
    """A model, its state, and what an epoch over the array `x` makes of it."""
    keras.utils.set_random_seed(0)
    model = zoo.VAE(*dense_networks(), latent_dim=3, seed=1)
    model.build((None, 6))
    model.compile(keras.optimizers.SGD(0.1), **QUICK)
    model.optimizer.build(model.trainable_variables)
    state = {id(v): ops.convert_to_numpy(v) for v in [*model.variables, *model.optimizer.variables]}

    def rewind():
        for variable in [*model.variables, *model.optimizer.variables]:
            variable.assign(state[id(variable)])
        return model

    x = binary_data(12)
    rewind().fit(x, batch_size=5, shuffle=False, verbose=0)
    return rewind, x, weights(model), model.history.history["loss"]


@pytest.mark.large_on_jax
@pytest.mark.parametrize("kind", ["tf.data", "PyDataset", "generator"])
@pytest.mark.parametrize("content", ["x", "x and labels", "x and target"])
def test_every_source_of_data_trains_alike(reference, kind, content):
    rewind, x, expected, loss = reference
    y = {"x": None, "x and labels": np.arange(12), "x and target": x.copy()}[content]
    batches = [
        x[rows] if y is None else (x[rows], y[rows])
        for rows in (slice(0, 5), slice(5, 10), slice(10, 12))
    ]
    model = rewind()
    model.fit(as_source(kind, batches), steps_per_epoch=3, shuffle=False, verbose=0)
    np.testing.assert_allclose(model.history.history["loss"], loss, rtol=1e-5)
    assert_equal_weights(weights(model), expected)


@pytest.mark.parametrize("y", ["labels", "one-hot labels", "target"])
def test_arrays_with_y_train_alike(reference, y):
    rewind, x, expected, _ = reference
    labels = np.arange(12) % 4
    y = {"labels": labels, "one-hot labels": np.eye(4)[labels], "target": x.copy()}[y]
    model = rewind()
    model.fit(x, y, batch_size=5, shuffle=False, verbose=0)
    assert_equal_weights(weights(model), expected)


def test_y_of_the_shape_of_x_is_what_is_reconstructed(make_point_ae, binary_data, to_numpy):
    model, x, y = make_point_ae(), binary_data(8), binary_data(8, seed=1)
    log_px = to_numpy(model.likelihood.log_prob(y, model(x).params))
    logs = model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["loss"], -log_px.mean(), rtol=1e-5)
    other = model.evaluate(x, batch_size=8, verbose=0, return_dict=True)
    assert abs(other["loss"] - logs["loss"]) > 0.01


@pytest.mark.large_on_jax
@pytest.mark.parametrize("form", ["array", "tuple", "PyDataset", "split"])
def test_validation_data_are_evaluated(make_point_ae, binary_data, form):
    model, x, held_out = make_point_ae(), binary_data(8), binary_data(8, seed=1)
    validation = {
        "array": {"validation_data": held_out},
        "tuple": {"validation_data": (held_out, np.arange(8))},
        "PyDataset": {"validation_data": Batches([held_out])},
        "split": {"validation_split": 0.5},
    }[form]
    data = np.concatenate([x, held_out]) if form == "split" else x
    model.fit(data, batch_size=8, verbose=0, **validation)
    expected = model.evaluate(held_out, batch_size=8, verbose=0)
    assert set(model.history.history) >= {"val_loss", "val_distortion", "val_rate"}
    np.testing.assert_allclose(model.history.history["val_loss"], expected[:1], rtol=1e-5)


def test_sample_weights_of_one_change_nothing(reference):
    rewind, x, expected, _ = reference
    model = rewind()
    model.fit(x, sample_weight=np.ones(12), batch_size=5, shuffle=False, verbose=0)
    assert_equal_weights(weights(model), expected)


def test_examples_of_weight_zero_are_ignored(reference):
    rewind, x, _, _ = reference
    weight = np.tile([0.0, 2.0], 6).astype("float32")
    results = []
    for unseen in (x[0::2], 1 - x[0::2]):
        data = x.copy()
        data[0::2] = unseen
        model = rewind()
        model.fit(data, sample_weight=weight, batch_size=12, shuffle=False, verbose=0)
        results.append((weights(model), model.history.history))
    assert_equal_weights(results[0][0], results[1][0])
    for name in ("loss", "distortion", "rate"):
        np.testing.assert_allclose(results[0][1][name], results[1][1][name], rtol=1e-5)


def test_sample_weights_count_in_validation(make_point_ae, binary_data, to_numpy):
    model, x = make_point_ae(), binary_data(8)
    weight = np.arange(8).astype("float32")
    model.fit(x, batch_size=8, verbose=0, validation_data=(x, None, weight))
    log_px = to_numpy(model.likelihood.log_prob(x, model(x).params))[:, 0]
    history = model.history.history
    np.testing.assert_allclose(history["val_loss"], [-np.mean(weight * log_px)], rtol=1e-5)
    # The distortion is that of the weighted examples, whatever the weights add up to.
    expected = -np.sum(weight * log_px) / weight.sum()
    np.testing.assert_allclose(history["val_distortion"], [expected], rtol=1e-5)


# -- loss ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_loss_is_distortion_plus_weighted_rate(make_vae, binary_data, beta):
    logs = make_vae(objective=ELBO(beta)).evaluate(
        binary_data(12), batch_size=5, verbose=0, return_dict=True
    )
    assert logs["rate"] > 0.01
    np.testing.assert_allclose(logs["loss"], logs["distortion"] + beta * logs["rate"], rtol=1e-5)


@keras.saving.register_keras_serializable(package="vaezoo_tests")
class Penalized(keras.layers.Layer):
    def call(self, x):
        self.add_loss(ops.full((), 2.5))
        return x


def test_losses_of_layers_are_added(binary_data, to_numpy):
    regularized = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.1))
    encoder = keras.Sequential([keras.Input((6,)), Penalized(), regularized])
    decoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(6)])
    model = zoo.VAE(encoder, decoder, latent_dim=3)
    model.compile(**QUICK)
    logs = model.evaluate(binary_data(8), batch_size=8, verbose=0, return_dict=True)
    penalty = 2.5 + 0.1 * np.sum(to_numpy(regularized.kernel) ** 2)
    extra = logs["loss"] - logs["distortion"] - logs["rate"]
    np.testing.assert_allclose(extra, penalty, rtol=1e-5)


# -- training --------------------------------------------------------------------------------------


@pytest.mark.large
def test_run_eagerly_equals_compiled(make_vae, binary_data):
    results = []
    for run in (QUICK, {"run_eagerly": True}):
        model = make_vae(run=run)
        model.fit(binary_data(12), batch_size=6, shuffle=False, verbose=0)
        results.append(weights(model))
    assert_equal_weights(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.large
def test_xla_equals_the_plain_graph(make_point_ae, binary_data):
    results = []
    for jit_compile in (True, False):
        model = make_point_ae(jit_compile=jit_compile)
        model.fit(binary_data(12), batch_size=12, verbose=0)
        results.append(weights(model))
    assert_equal_weights(*results)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX makes them before")
@pytest.mark.parametrize("train", ["fit", "train_on_batch"])
def test_a_step_is_traced_once(make_vae, binary_data, monkeypatch, train):
    model, x, traced = make_vae("adam", {"jit_compile": False}), binary_data(8), []
    compute_loss = model.compute_loss

    def counted(*args, **kwargs):
        traced.append(train)
        return compute_loss(*args, **kwargs)

    monkeypatch.setattr(model, "compute_loss", counted)
    model.fit(x, batch_size=8, verbose=0) if train == "fit" else model.train_on_batch(x)
    assert len(traced) == 1


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="TensorFlow updates in place")
@pytest.mark.filterwarnings("error:Some donated buffers")
def test_a_step_uses_up_the_values_that_it_replaces(make_vae, binary_data):
    model, x = make_vae("adam"), binary_data(8)
    model.fit(x, batch_size=8, verbose=0)
    given = [v.value for v in (*model.trainable_variables, *model.optimizer.variables)]
    model.fit(x, batch_size=8, verbose=0)
    # XLA takes an array away only where its memory holds a result.
    assert all(value.is_deleted() for value in given)


def places(model):
    """Addresses of the memory of the weights and of what the optimizer keeps, by variable."""
    variables = (*model.trainable_variables, *model.optimizer.variables)
    # A view: `numpy()` would copy.
    tensors = [np.asarray(memoryview(variable.value.read_value())) for variable in variables]
    return [tensor.__array_interface__["data"][0] for tensor in tensors]


@pytest.mark.large
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's variables")
@pytest.mark.parametrize("steps", [1, 2])
def test_a_step_writes_over_the_values_that_it_replaces(make_vae, binary_data, steps):
    model, x = make_vae("adam", {"jit_compile": True, "steps_per_execution": steps}), binary_data(8)
    model.fit(x, batch_size=4, verbose=0)
    before = places(model)
    assert len(set(before)) == len(before)
    model.fit(x, batch_size=4, verbose=0)
    assert places(model) == before
    # What someone else holds cannot be written over, and is copied.
    held = [variable.value.read_value() for variable in model.trainable_variables]
    model.fit(x, batch_size=4, verbose=0)
    assert places(model)[: len(held)] != before[: len(held)]


def test_steps_per_execution_change_nothing(reference, make_vae):
    _, x, expected, loss = reference
    model = make_vae(keras.optimizers.SGD(0.1), {**QUICK, "steps_per_execution": 2})
    model.fit(x, batch_size=5, shuffle=False, verbose=0)
    assert_equal_weights(weights(model), expected)
    np.testing.assert_allclose(model.history.history["loss"], loss, rtol=1e-5)


def test_jit_compile_holds_the_resolved_mode(make_vae):
    assert make_vae(run={}).jit_compile is True
    assert make_vae(run={"jit_compile": False}).jit_compile is False
    assert make_vae(run={"run_eagerly": True}).jit_compile is False


@pytest.mark.large
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_under_xla(make_vae, binary_data, float32_policy, tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    model, x = make_vae(run={"jit_compile": True}), binary_data(8)
    model.fit(x, batch_size=8, epochs=3, verbose=0)
    assert np.all(np.isfinite(model.history.history["loss"]))
    model.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("float32")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(reloaded.optimizer) is type(model.optimizer)
    np.testing.assert_array_equal(reloaded.encode(x).mean, model.encode(x).mean)


def test_early_stopping_sees_the_logs(make_vae, binary_data):
    model = make_vae(keras.optimizers.SGD(0.0))
    stop = keras.callbacks.EarlyStopping("distortion", min_delta=1e9, patience=2, mode="min")
    model.fit(binary_data(8), epochs=10, batch_size=8, verbose=0, callbacks=[stop])
    assert len(model.history.epoch) == 3


@pytest.mark.large
def test_model_checkpoint_keeps_a_whole_model(make_vae, binary_data, tmp_path):
    model, x = make_vae(), binary_data(8)
    path = tmp_path / "best.keras"
    keep = keras.callbacks.ModelCheckpoint(path, "loss", save_best_only=True)
    model.fit(x, epochs=2, batch_size=8, verbose=0, callbacks=[keep])
    reloaded = keras.models.load_model(path)
    assert reloaded.reconstruct(x).shape == x.shape
    if model.history.history["loss"][1] < model.history.history["loss"][0]:
        assert_equal_weights(weights(reloaded), weights(model))


class Interrupts(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.large
def test_backup_and_restore_continues_as_if_nothing_happened(make_vae, binary_data, tmp_path):
    settings = {"epochs": 4, "batch_size": 4, "shuffle": False, "verbose": 0}
    x = binary_data(8)
    whole = make_vae()
    whole.fit(x, **settings)
    with pytest.raises(KeyboardInterrupt):
        make_vae().fit(
            x,
            callbacks=[keras.callbacks.BackupAndRestore(tmp_path), Interrupts()],
            **settings,
        )
    resumed = make_vae()
    resumed.fit(x, callbacks=[keras.callbacks.BackupAndRestore(tmp_path)], **settings)
    assert resumed.history.epoch == [2, 3]
    np.testing.assert_allclose(
        resumed.history.history["loss"], whole.history.history["loss"][2:], rtol=1e-5
    )
    assert_equal_weights(weights(resumed), weights(whole))


@pytest.mark.large
def test_saved_model_continues_as_if_nothing_happened(make_vae, binary_data, tmp_path):
    """Optimizer, learning rate and weight schedules, masks and noise all go on."""
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)
    head = GaussianHead(3, variance_dropout=VarianceDropout(0.5, seed=2), seed=1)
    model = make_vae(
        keras.optimizers.Adam(rate), head=head, objective=ELBO(LinearSchedule(12, stop=2.0))
    )
    settings = {"epochs": 2, "batch_size": 4, "shuffle": False, "verbose": 0}
    x = binary_data(8)
    model.fit(x, **settings)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(reloaded.optimizer.iterations) == 4
    for each in (model, reloaded):
        each.fit(x, **settings)
    expected, got = model.history.history, reloaded.history.history
    # Steps 5 to 8 of 12: the mean weights of two epochs of two steps each.
    np.testing.assert_allclose(got["beta"], [2 * 4.5 / 12, 2 * 6.5 / 12], rtol=1e-5)
    for name in ("loss", "distortion", "rate", "beta"):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5)
    assert_equal_weights(weights(reloaded), weights(model))


@pytest.mark.parametrize(("name", "value"), [("loss", "mse"), ("metrics", ["mae"])])
def test_compile_refuses_losses_and_metrics(make_vae, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must not be given: a VAE.*{name}=.*{value[0]}"):
        make_vae(run={name: value})


def test_a_lambda_layer_is_not_loaded(tmp_path):
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Lambda(lambda x: x + 1)])
    decoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(6)])
    model = zoo.VAE(encoder, decoder, latent_dim=3)
    model.build((None, 6))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="lambda"):
        keras.models.load_model(tmp_path / "model.keras")


@pytest.mark.one_backend
@pytest.mark.slow
def test_saved_model_opens_in_a_new_process_on_the_other_backend(
    make_vae, binary_data, to_numpy, tmp_path
):
    other = "tensorflow" if JAX else "jax"
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    head = GaussianHead(3, variance_dropout=VarianceDropout(0.5, seed=2), seed=1)
    model, x = make_vae(head=head), binary_data(8)
    model.fit(x, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    script = """
        import keras
        import numpy as np
        import vaezoo

        model, x = keras.models.load_model("model.keras"), np.load("x.npy")
        terms = model.log_terms(x, seed=0)
        q = model.encode(x)
        np.savez(
            "values.npz",
            mean=q.mean,
            log_var=q.log_var,
            kl=terms.kl,
            reconstruction=model.reconstruct(x),
            noise=model.head.reparam.noise.state,
            iterations=model.optimizer.iterations,
        )
        model.fit(x, batch_size=8, verbose=0)
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "KERAS_BACKEND": other},
        cwd=tmp_path,
        check=True,
        timeout=300,
    )
    got, q = np.load(tmp_path / "values.npz"), model.encode(x)
    expected = {
        "mean": q.mean,
        "log_var": q.log_var,
        "kl": model.log_terms(x, seed=0).kl,
        "reconstruction": model.reconstruct(x),
        "noise": model.head.reparam.noise.state,
        "iterations": model.optimizer.iterations,
    }
    for name, value in to_numpy(expected).items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


# -- use -------------------------------------------------------------------------------------------


@pytest.mark.large_on_jax
def test_only_training_takes_from_its_noise(make_vae, binary_data):
    model, x = make_vae(), binary_data(8)
    before = noise_state(model)
    model.encode(x)
    model.encode(x, batch_size=4)
    model.reconstruct(x)
    model.decode(np.zeros((2, 3), "float32"))
    model.generate(3, mean=False)
    model.log_terms(x, num_samples=2)
    model.log_prob(x, num_samples=2)
    np.testing.assert_array_equal(noise_state(model), before)
    model(x)
    assert np.any(noise_state(model) != before)


def test_encode_in_batches_is_encode(make_vae, binary_data, to_numpy):
    model, x = make_vae(), binary_data(11)
    batched = model.encode(x, batch_size=4)
    assert all(isinstance(part, np.ndarray) for part in batched)
    assert batched.mean.shape == batched.log_var.shape == (11, 3)
    for got, expected in zip(batched, to_numpy(model.encode(x)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_decode_takes_codes_with_and_without_a_sample_axis(make_vae, to_numpy):
    model = make_vae()
    z = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("float32")
    both = to_numpy(model.decode(z))
    assert both.shape == (5, 2, 6)
    assert np.all((both > 0) & (both < 1))
    for k in range(2):
        np.testing.assert_allclose(model.decode(z[:, k]), both[:, k], rtol=1e-5)
    np.testing.assert_allclose(model.decode(z, batch_size=2), both, rtol=1e-5)


@pytest.mark.large_on_jax
def test_reconstruct_decodes_the_posterior_mean(make_vae, binary_data, to_numpy):
    model, x = make_vae(), binary_data(7)
    expected = to_numpy(model.decode(model.encode(x).mean))
    np.testing.assert_allclose(model.reconstruct(x, batch_size=3), expected, rtol=1e-5)


def test_generated_data_do_not_depend_on_the_batch_size_in_the_mean(make_vae):
    model = make_vae()
    whole = model.generate(7, seed=3)
    np.testing.assert_allclose(model.generate(7, seed=3, batch_size=2), whole, rtol=1e-5)
    assert np.any(model.generate(7) != model.generate(7))


def test_generated_draws_are_values_of_x(make_vae):
    draws = make_vae().generate(2000, seed=0, mean=False)
    assert set(np.unique(draws)) == {0.0, 1.0}
    means = make_vae().generate(2000, seed=0)
    # Under equal codes draws differ from means by Bernoulli noise alone.
    error = np.abs(np.mean(draws - means, axis=0))
    assert np.all(error < 4 * np.sqrt(np.mean(means * (1 - means), axis=0) / 2000))


# -- likelihood ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linear_gaussian():
    """A model with p(x|z) = N(Wz + b, s^2 I), its data and their log p(x).

    W has orthogonal columns, so the posterior is diagonal and the head can hold it exactly.
    """
    rng, scale = np.random.default_rng(0), 0.7
    orthogonal, _ = np.linalg.qr(rng.normal(size=(4, 2)))
    w, b = orthogonal * [1.5, 0.5], rng.normal(size=4)
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Identity()])
    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    model = zoo.VAE(encoder, decoder, latent_dim=2, likelihood=Gaussian(scale))
    model.build((None, 4))
    decoder.set_weights([w.T, b])
    variance = 1.0 / (1.0 + np.sum(w**2, axis=0) / scale**2)
    to_mean = w * variance / scale**2
    exact = [
        np.concatenate([to_mean, np.zeros((4, 2))], axis=1),
        np.concatenate([-b @ to_mean, np.log(variance)]),
    ]
    x = (b + rng.normal(size=(6, 2)) @ w.T + scale * rng.normal(size=(6, 4))).astype("float32")
    covariance = w @ w.T + scale**2 * np.eye(4)
    residual = x - b
    squares = np.sum(residual @ np.linalg.inv(covariance) * residual, axis=1)
    log_px = -0.5 * (squares + np.linalg.slogdet(covariance)[1] + 4 * math.log(2 * math.pi))
    return model, exact, x, log_px


@pytest.mark.parametrize("num_samples", [1, 10, 500])
def test_log_prob_is_exact_under_the_exact_posterior(linear_gaussian, num_samples):
    model, exact, x, log_px = linear_gaussian
    model.head.projection.set_weights(exact)
    for seed in (0, 1):
        estimate = model.log_prob(x, num_samples=num_samples, seed=seed)
        np.testing.assert_allclose(estimate, log_px, atol=1e-4)


def test_log_prob_rises_to_the_evidence_under_another_posterior(linear_gaussian):
    model, (kernel, bias), x, log_px = linear_gaussian
    model.head.projection.set_weights([kernel, bias + [0.3, -0.3, 0.5, -0.5]])
    # Each row has noise of its own.
    rows = np.repeat(x[:1], 400, axis=0)
    estimates = [model.log_prob(rows, num_samples=k, batch_size=400) for k in (1, 8, 64, 512)]
    means = np.array([np.mean(e, dtype="float64") for e in estimates])
    errors = np.array([np.std(e) / 20 for e in estimates])
    assert np.all(errors > 0)
    assert np.all(np.diff(means) > -2 * np.hypot(errors[1:], errors[:-1]))
    assert np.all(means < log_px[0] + 2 * errors)
    # One draw falls short by the KL of the two posteriors.
    assert means[0] < log_px[0] - 0.05
    assert abs(means[-1] - log_px[0]) < 0.02


def test_log_prob_follows_its_seed(make_vae, binary_data):
    model, x = make_vae(), binary_data(9)
    first, again, other = (model.log_prob(x, 3, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.all(first != other)
    # Equal rows in different batches get different noise.
    rows = np.repeat(x[:1], 9, axis=0)
    assert len(np.unique(model.log_prob(rows, 3, batch_size=3))) == 9


@pytest.mark.large_on_jax
def test_log_terms_are_those_of_the_prior_posterior_and_likelihood(make_vae, binary_data, to_numpy):
    model, x = make_vae(), binary_data(5)
    terms = to_numpy(model.log_terms(x, num_samples=4, seed=0))
    mean, log_var = to_numpy(model.encode(x))
    z = terms.z
    assert z.shape == (5, 4, 3)
    log_qz = -0.5 * ((z - mean[:, None]) ** 2 / np.exp(log_var[:, None]) + log_var[:, None])
    constant = 1.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(terms.log_qz, log_qz.sum(-1) - constant, rtol=1e-4)
    np.testing.assert_allclose(terms.log_pz, -0.5 * (z**2).sum(-1) - constant, rtol=1e-4)
    p = to_numpy(model.decode(z)).astype("float64")
    log_px = np.log(np.where(x[:, None] == 1, p, 1 - p)).sum(-1)
    np.testing.assert_allclose(terms.log_px, log_px, rtol=1e-4)
    kl = 0.5 * (mean**2 + np.exp(log_var) - log_var - 1)
    np.testing.assert_allclose(terms.kl_per_dimension, kl, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(terms.kl, kl.sum(-1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(terms.distortion, -log_px.mean(1), rtol=1e-4)
