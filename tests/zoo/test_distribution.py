"""Two devices train as one: batch statistics, losses, logs and gradients are the global batch's.

Devices must be set up before the backend starts, so the runs are child processes.
"""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from vaezoo import zoo

pytestmark = pytest.mark.large

JAX = keras.backend.backend() == "jax"

MODELS = (
    "DUVAE",
    "HEBAE",
    "WAE",
    "batch normalization",
    "mutual posterior divergence",
    "VAEAS",
    # A gradient is clipped over the batch within a loop, where replicas cannot talk.
    *(("SAVAE",) if JAX else ()),
)
#: The rest of the zoo; AggVAE, and SAVAE on TensorFlow, refuse several devices.
OTHERS = sorted(
    set(zoo.__all__)
    - {"Output", "Preset", "auxiliary_softmax", "load", "networks", "presets", "AggVAE", "SAVAE"}
    - set(MODELS)
)

SETUP = """
    import keras
    import numpy as np
    from keras import ops

    from vaezoo import zoo
    from vaezoo.callbacks import PlateauDecay
    from vaezoo.losses import ELBO, LinearSchedule, MutualPosteriorDivergence
    from vaezoo.zoo.networks.common import BatchNormalization

    x = np.random.default_rng(0).integers(0, 2, (29, 6)).astype("float32")

    sentences = np.random.default_rng(1).integers(4, 12, (29, 6))
    sentences[:, 0], sentences[:, 4:] = 1, (2, 0)

    def make(name):
        keras.utils.set_random_seed(0)
        # Masks of dropout are noise, too, and are drawn by each replica for its own rows.
        text = {"embedding_dropout": 0.0, "output_dropout": 0.0}
        options = {"vocabulary_size": 12, "embedding_dim": 4, "units": 5, "decoder": text}
        if name == "TextVAE":
            encoder, decoder = zoo.networks.make("lstm", (6,), 3, **options)
        else:
            norm = [BatchNormalization()] if name == "batch normalization" else []
            layers = [keras.Input((6,)), keras.layers.Dense(8, "tanh"), *norm]
            encoder = keras.Sequential(layers)
            decoder = keras.Sequential(
                [keras.Input((3,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(6)]
            )
        parts = {"encoder": encoder, "decoder": decoder, "latent_dim": 3}
        flow = {"num_blocks": 2, "flow_width": 2}
        prior = {"prior": {"num_blocks": 1, "hidden_units": (4,)}}
        options = {"IAFVAE": flow, "DUIAF": flow, "MAE": prior, "ResNetVAE": prior, "VLAE": prior}
        if name == "batch normalization":
            model = zoo.VAE(**parts, seed=1)
        elif name == "mutual posterior divergence":
            objective = ELBO(regularizers=[MutualPosteriorDivergence()])
            model = zoo.VAE(**parts, objective=objective, seed=1)
        elif name == "DUVAE":
            model = zoo.DUVAE(**parts, beta=LinearSchedule(10), keep_prob=0.5, seed=1)
        elif name == "VAEAS":
            sgd = keras.optimizers.SGD(0.1)
            classifier = {"softmax": "tree", "hidden_units": (8,), "classifier_optimizer": sgd}
            model = zoo.VAEAS(**parts, num_examples=29, **classifier, seed=1)
        else:
            model = getattr(zoo, name)(**parts, **options.get(name, {}), seed=1)
        model.build((None, 6))
        # Flows, and the weight of InfoVAE's discrepancy, diverge at the rate of the others, which
        # makes much of rounding.
        rate = 0.01 if name in options or name == "InfoVAE" else 0.1
        model.compile(keras.optimizers.SGD(rate), **COMPILE)
        return model

    results = {}

    def train(name, who, rows):
        model = make(name)
        data = sentences.astype("int32") if name == "TextVAE" else x
        for epoch, number in enumerate(rows):
            y = {"index": np.arange(number)} if model.num_examples else None
            logs = model.fit(data[:number], y, batch_size=12, shuffle=False, verbose=0).history
            for key, value in logs.items():
                results[f"{name}/{who}/log/{epoch}/{key}"] = value[0]
        for number, variable in enumerate(model.variables):
            results[f"{name}/{who}/weight/{number}"] = ops.convert_to_numpy(variable)
        return model
"""

MIRRORED = """
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    COMPILE = {"jit_compile": False}
    SETUP
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    # Replicas draw noise of their own, which one device cannot repeat; what is left is exact.
    true_normal, true_uniform = keras.random.normal, keras.random.uniform
    keras.random.normal = lambda shape, **kwargs: ops.zeros(shape, "float32")
    keras.random.uniform = lambda shape, **kwargs: ops.zeros(shape, "float32")
    # Batches of 12 rows and a last one of 5, split into 3 and 2; then a last one of 1 and none.
    rows = (29, 25)
    for name in MODELS:
        # A graph is what two devices need: operation by operation one starts at once.
        COMPILE["run_eagerly"] = True
        train(name, "one", rows)
        del COMPILE["run_eagerly"]
        with strategy.scope():
            train(name, "two", rows)

    if MODELS != QUICK:
        np.savez("results.npz", **results)
        raise SystemExit

    def stalls():
        # At a learning rate of 0 nothing improves, so that the callback has something to do.
        model = make("mutual posterior divergence")
        model.optimizer.learning_rate.assign(0.0)
        decay = PlateauDecay(patience=1, max_decays=2)
        model.fit(x[:24], validation_data=x[:24], batch_size=12, epochs=6, shuffle=False,
                  callbacks=[decay], verbose=0)
        rates = [entry["learning_rate"] for entry in decay.decays]
        return [decay.best, *rates, *np.ravel(model.encoder.get_weights()[0])]

    results["plateau one"] = stalls()
    with strategy.scope():
        results["plateau two"] = stalls()

    keras.random.normal, keras.random.uniform = true_normal, true_uniform
    COMPILE["jit_compile"] = "auto"
    results["jit_compile one"] = make("DUVAE").jit_compile
    with strategy.scope():
        model = make("DUVAE")
    results["jit_compile two"] = model.jit_compile
    step = tf.function(lambda: model(tf.ones((4, 6)), training=True))
    for number in range(2):
        output = strategy.run(step)
        for replica, (z, log_var) in enumerate(
            zip(output.z.values, output.posterior.log_var.values)
        ):
            results[f"z {number} {replica}"] = z
            results[f"log_var {number} {replica}"] = log_var
    model.save("two.keras")
    results["encoded"] = model.encode(x).mean
    results["noise"] = ops.copy(model.head.reparam.noise.state)
    results["predicted"] = model.predict(x[:12], batch_size=12, verbose=0).z
    alone = keras.models.load_model("two.keras")
    results["jit_compile alone"] = alone.jit_compile
    results["encoded alone"] = alone.encode(x).mean
    results["noise alone"] = alone.head.reparam.noise.state
    alone.compile(jit_compile=True)
    alone.save("one.keras")
    with strategy.scope():
        again = keras.models.load_model("one.keras")
        results["jit_compile again"] = again.jit_compile
        results["errors"] = []
        for call in (
            lambda: again.compile(jit_compile=True),
            lambda: again.evaluate(x, batch_size=64, verbose=0),
            lambda: make("AggVAE"),
        ):
            try:
                call()
            except ValueError as error:
                results["errors"].append(str(error))
    np.savez("results.npz", **results)
"""

SHARDED = """
    COMPILE = {"jit_compile": True}
    SETUP
    # JAX leaves no device without its share of a batch.
    rows = (24, 24)
    for name in MODELS:
        train(name, "one", rows)
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    results["devices"] = len(keras.distribution.list_devices())
    for name in MODELS:
        model = train(name, "two", rows)
    if MODELS != QUICK:
        np.savez("results.npz", **results)
        raise SystemExit
    results["errors"] = []
    for call in (
        lambda: model.fit(x, batch_size=12),
        lambda: model.evaluate(x[:5], batch_size=12),
        lambda: model.fit(x[:24], batch_size=5),
        lambda: make("AggVAE"),
    ):
        try:
            call()
        except ValueError as error:
            results["errors"].append(str(error))
    results["scored"] = model.log_prob(x[:5], 2)
    np.savez("results.npz", **results)
"""


def run(script, folder, models=MODELS):
    script = textwrap.dedent(script).replace("SETUP", textwrap.dedent(SETUP))
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    subprocess.run(
        [sys.executable, "-c", f"MODELS, QUICK = {tuple(models)}, {tuple(MODELS)}\n{script}"],
        env={**os.environ, "XLA_FLAGS": flags},
        cwd=folder,
        check=True,
        timeout=600,
    )
    return dict(np.load(folder / "results.npz"))


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    if JAX:
        pytest.skip("tf.distribute needs the TensorFlow backend")
    return run(MIRRORED, tmp_path_factory.mktemp("mirrored"))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    if not JAX:
        pytest.skip("keras.distribution needs the JAX backend")
    return run(SHARDED, tmp_path_factory.mktemp("sharded"))


@pytest.fixture
def trained(request):
    return request.getfixturevalue("sharded" if JAX else "mirrored")


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return run(SHARDED if JAX else MIRRORED, tmp_path_factory.mktemp("others"), OTHERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_the_rest_of_the_zoo_does_so_too(others, name):
    test_two_devices_train_as_one(others, name)


def test_plateaus_are_seen_on_several_replicas(mirrored):
    # The best value, two learning rates, and the kernel of 6 x 8.
    assert len(mirrored["plateau one"]) == 1 + 2 + 48
    np.testing.assert_allclose(
        mirrored["plateau two"], mirrored["plateau one"], rtol=1e-4, atol=1e-5
    )


def test_a_strategy_of_several_machines_is_refused(monkeypatch):
    if JAX:
        pytest.skip("tf.distribute needs the TensorFlow backend")
    import tensorflow as tf

    networks = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]) for _ in range(2))
    model = zoo.VAE(*networks, latent_dim=2)
    kind = tf.distribute.MultiWorkerMirroredStrategy
    monkeypatch.setattr(model, "_distribute_strategy", object.__new__(kind))
    with pytest.raises(ValueError, match="must stay on one machine.*JAX.*DataParallel"):
        model.compile("sgd")


@pytest.mark.parametrize("name", MODELS)
def test_two_devices_train_as_one(trained, name):
    keys = [key for key in trained if key.startswith(f"{name}/one/")]
    assert any("/log/1/loss" in key for key in keys)
    assert any("/weight/" in key for key in keys)
    for key in keys:
        one, two = trained[key], trained[key.replace("/one/", "/two/")]
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-4, err_msg=key)


def test_replicas_draw_noise_of_their_own(mirrored):
    draws = [mirrored[f"z {step} {replica}"] for step in range(2) for replica in range(2)]
    draws = np.concatenate(draws).reshape(-1, 3)
    # The rows of x are equal, so all differences are noise.
    assert len(np.unique(draws, axis=0)) == 16
    # So are all differences in the variances, which are dropped at random.
    assert np.any(mirrored["log_var 0 0"] != mirrored["log_var 0 1"])
    assert len(np.unique(mirrored["predicted"].reshape(-1, 3), axis=0)) == 12


def test_xla_is_left_out_where_it_cannot_work(mirrored):
    assert mirrored["jit_compile one"]
    assert not mirrored["jit_compile two"]
    # A saved model decides anew where it is loaded.
    assert mirrored["jit_compile alone"]
    assert not mirrored["jit_compile again"]
    assert mirrored["errors"][0] == (
        "`jit_compile` must be False or 'auto' under several `tf.distribute` replicas, which XLA "
        "cannot compile. Received: jit_compile=True, replicas=2"
    )


def test_mirrored_model_is_saved_with_its_noise(mirrored):
    np.testing.assert_allclose(mirrored["encoded alone"], mirrored["encoded"], rtol=1e-6)
    np.testing.assert_array_equal(mirrored["noise alone"], mirrored["noise"])


def test_first_batch_must_divide_by_the_replicas(mirrored):
    assert mirrored["errors"][1] == (
        "`batch_size` must split the data into batches that divide by the 2 devices. Received: a "
        "batch of 29"
    )


def test_aggressive_training_has_one_device(trained):
    assert trained["errors"][-1] == (
        "`AggVAE` trains on one device only: its inner steps end by the loss there. Received: "
        "2 devices"
    )


def test_every_batch_must_divide_by_the_devices(sharded):
    assert sharded["devices"] == 2
    *errors, _ = sharded["errors"]
    assert [error.rsplit(" ", 1)[1] for error in errors] == ["5", "5", "5"]
    for error in errors:
        assert "`batch_size` must split the data into batches that divide by the 2" in error
    assert np.all(np.isfinite(sharded["scored"]))
