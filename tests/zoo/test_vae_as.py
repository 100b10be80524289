"""VAE-AS, and its classifier as a measuring head of other models."""

import json
import math

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import data, metrics, zoo
from vaezoo.layers import StandardNormal
from vaezoo.losses import AuxiliarySoftmax, InformationWeightedELBO

ROWS = 32
JAX = keras.backend.backend() == "jax"
QUICK = {"jit_compile": JAX}
# For a step or two: JAX is slow without its compiler, TensorFlow is slow to start with a graph.
BRIEF = {"jit_compile": JAX, "run_eagerly": not JAX}


@pytest.fixture
def make(dense_networks):
    """Equal weights and noise for every model."""

    def build(constructor=zoo.VAEAS, **options):
        keras.utils.set_random_seed(0)
        if constructor is zoo.VAEAS:
            options = {"num_examples": ROWS, "hidden_units": (16,), **options}
        model = constructor(*dense_networks(), latent_dim=3, seed=1, **options)
        model.build((None, 6))
        return model

    return build


def weights_of(model, to_numpy):
    return to_numpy([variable.value for variable in model.trainable_variables])


@pytest.fixture
def one_step(make, binary_data, to_numpy):
    """Trainable weights and logs after one step of plain descent on the whole of the data."""

    def run(constructor=zoo.VAEAS, **options):
        model = make(constructor, **options)
        # Parts are not made in the same order, so neither are their initial weights.
        generator = np.random.default_rng(0)
        for variable in model.trainable_variables:
            variable.assign(0.3 * generator.normal(size=variable.shape))
        model.compile(keras.optimizers.SGD(0.1), **BRIEF)
        logs = model.fit(binary_data(ROWS), batch_size=ROWS, verbose=0, shuffle=False).history
        return weights_of(model, to_numpy), {name: values[0] for name, values in logs.items()}

    return run


# -- gradients -----------------------------------------------------------------------------------


@pytest.mark.large
@pytest.mark.parametrize("density", ["sampled", "analytic"])
def test_equal_weights_under_ce_give_the_gradient_of_a_plain_vae(
    make, binary_data, to_numpy, one_step, density
):
    got, logs = one_step(estimator="ce", density=density)
    if density == "analytic":
        expected, plain = one_step(zoo.VAE)
    else:
        # One importance sample: the ELBO with the sampled rate.
        expected, plain = one_step(zoo.IWAE, num_samples=1)
    assert logs["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    for found, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.large
def test_other_weights_do_not(one_step):
    plain, _ = one_step(zoo.VAE)
    for options in ({"alpha": 3.0}, {"beta": 3.0}, {"classifier_grad": "joint"}):
        got, _ = one_step(estimator="ce", density="analytic", **options)
        assert np.max(np.abs(got[0] - plain[0])) > 1e-5


@pytest.mark.large_on_jax
def test_logs_obey_the_identity(one_step):
    _, logs = one_step(density="analytic")
    expected = logs["rate"] - math.log(ROWS) + logs["classifier_loss"]
    assert logs["marginal_divergence"] == pytest.approx(expected, abs=1e-4)
    bound = math.log(ROWS) - logs["classifier_loss"]
    assert logs["mutual_information_bound"] == pytest.approx(bound, abs=1e-4)
    total = logs["distortion"] + logs["mutual_information"] + logs["marginal_divergence"]
    assert logs["loss"] == pytest.approx(total, abs=1e-3)


# -- training ------------------------------------------------------------------------------------


@pytest.mark.large
@pytest.mark.parametrize("softmax", ["flat", "tree"])
@pytest.mark.one_backend
def test_classifier_learns_who_is_who(make, binary_data, softmax):
    # Codes that hold everything, as rates cost nothing: each example can be told from others.
    model = make(
        alpha=0.0,
        beta=0.0,
        softmax=softmax,
        hidden_units=(64,),
        row_learning_rate=0.05,
        classifier_optimizer=keras.optimizers.Adam(0.01),
    )
    model.compile(keras.optimizers.Adam(0.01), jit_compile=True)
    x = np.unique(binary_data(200), axis=0)[:ROWS]
    # Ten steps an epoch: most of the time of one goes into its beginning and end.
    x, index = np.tile(x, (10, 1)), np.tile(np.arange(ROWS), 10)
    options = {"batch_size": ROWS, "shuffle": False, "verbose": 0}
    logs = model.fit(x, {"index": index}, epochs=40, **options).history
    assert logs["classifier_loss"][0] > 0.8 * math.log(ROWS)
    assert logs["classifier_loss"][-1] < 0.5
    assert logs["mutual_information"][-1] > math.log(ROWS) - 1.0


@pytest.mark.large
@pytest.mark.one_backend
def test_larger_beta_lowers_the_marginal_divergence(make, binary_data):
    found = []
    for beta in (0.1, 5.0):
        model = make(beta=beta)
        model.compile(keras.optimizers.Adam(0.02), **QUICK)
        logs = model.fit(binary_data(ROWS), batch_size=ROWS, epochs=40, verbose=0).history
        found.append({name: values[-1] for name, values in logs.items()})
    loose, strict = found
    assert strict["marginal_divergence"] < loose["marginal_divergence"] - 0.5
    assert strict["rate"] < loose["rate"] - 0.5


def test_evaluation_charges_the_elbo(make, binary_data):
    model = make(alpha=7.0, beta=3.0)
    model.compile("adam", **BRIEF)
    logs = model.evaluate(binary_data(20), batch_size=20, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "distortion", "rate"}
    assert logs["loss"] == pytest.approx(logs["distortion"] + logs["rate"], rel=1e-5)


@pytest.mark.large
def test_validation_needs_no_index_and_training_goes_on_logging(make, binary_data):
    model = make()
    model.compile("adam", **QUICK)
    history = model.fit(
        binary_data(40), batch_size=8, epochs=2, validation_split=0.2, verbose=0
    ).history
    training = {"loss", "distortion", "rate", *AuxiliarySoftmax.report_names}
    assert set(history) == training | {"val_loss", "val_distortion", "val_rate"}
    for name in training:
        assert len(history[name]) == 2
        assert np.all(np.isfinite(history[name]))


@pytest.mark.large
@pytest.mark.one_backend
def test_trains_from_batches_of_the_library(make):
    keras.utils.set_random_seed(0)
    run = zoo.load(
        "vae_as_digits_mlp",
        model={"num_examples": 100, "hidden_units": (8,)},
        networks={"hidden_units": (8,), "decoder": {"hidden_units": (8,)}},
    )
    run.model.compile(**run.compile_args)
    batches = data.load(**{**run.data_args, "limit": 100, "batch_size": 50})
    history = run.model.fit(batches, verbose=0).history
    assert np.isfinite(history["mutual_information"][0])


def test_batches_without_index_are_refused_before_the_first_step(make, binary_data):
    tf = pytest.importorskip("tensorflow")
    model = make()
    model.compile("adam", **QUICK)
    batches = tf.data.Dataset.from_tensor_slices(binary_data(ROWS)).batch(8)
    with pytest.raises(ValueError, match="with_index"):
        model.fit(batches, verbose=0)
    with pytest.raises(ValueError, match=f"num_examples={ROWS}"):
        model.fit(binary_data(ROWS - 1), verbose=0)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.slow
def test_small_run_shows_what_both_weights_do(mnist_dir):
    num = 1000
    options = {"limit": num, "binarize": "fixed", "labels": False, "data_dir": mnist_dir}
    x, _ = data.load_arrays("mnist", "train", **options)
    found = {}
    for alpha, beta in ((1.0, 0.1), (1.0, 1.0), (1.0, 5.0), (10.0, 1.0)):
        keras.utils.set_random_seed(0)
        model = {"num_examples": num, "alpha": alpha, "beta": beta, "seed": 0}
        run = zoo.load("vae_as_mnist", model=model)
        run.model.compile(**run.compile_args)
        # About 3,000 steps.
        logs = run.model.fit(x, batch_size=50, epochs=150, verbose=0).history
        found[alpha, beta] = {name: values[-1] for name, values in logs.items()}
        found[alpha, beta]["active_units"] = int(metrics.active_units(run.model, x))
    loose, plain, strict, penalized = found.values()
    for name in ("marginal_divergence", "rate", "active_units"):
        assert loose[name] > plain[name] > strict[name], name
    assert penalized["mutual_information"] < plain["mutual_information"] - 0.3
    assert penalized["classifier_loss"] > plain["classifier_loss"] + 0.3
    assert loose["mutual_information"] > math.log(num) - 0.3
    assert plain["mutual_information"] > math.log(num) - 1.5


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.large
@pytest.mark.parametrize("softmax", ["flat", "tree"])
@pytest.mark.one_backend
def test_reloaded_model_goes_on_as_if_nothing_had_happened(
    make, binary_data, to_numpy, tmp_path, softmax
):
    x = binary_data(ROWS)
    model = make(softmax=softmax)
    model.compile("adam", **QUICK)
    model.fit(x, batch_size=16, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(reloaded.objective, InformationWeightedELBO)
    assert json.dumps(reloaded.get_config()) == json.dumps(model.get_config())
    logs = [m.fit(x, batch_size=16, verbose=0, shuffle=False).history for m in (model, reloaded)]
    for name, values in logs[0].items():
        np.testing.assert_allclose(values, logs[1][name], rtol=1e-4, err_msg=name)


@pytest.mark.large
def test_classifier_is_not_exported(make, binary_data, tmp_path):
    pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the SavedModel is written by a child process on TensorFlow")
    import tensorflow as tf

    model = make(hidden_units=(17,))
    model.export(tmp_path / "served", verbose=False)
    stored = tf.train.list_variables(str(tmp_path / "served" / "variables" / "variables"))
    shapes = [tuple(shape) for _, shape in stored]
    assert (6, 8) in shapes
    assert not any(17 in shape or ROWS in shape for shape in shapes)


# -- measuring other models ----------------------------------------------------------------------


@pytest.mark.large
@pytest.mark.parametrize("constructor", [zoo.DUVAE, zoo.MAE], ids=["DUVAE", "MAE"])
def test_measuring_leaves_the_training_as_it_is(make, binary_data, to_numpy, constructor):
    found = []
    for measured in (False, True):
        model = make(constructor, **({"prior": StandardNormal()} if constructor is zoo.MAE else {}))
        if measured:
            model.add_regularizer(zoo.auxiliary_softmax(ROWS, hidden_units=(8,)))
        # A clipped norm would couple the two, were they trained by one optimizer.
        model.compile(keras.optimizers.SGD(0.1, global_clipnorm=0.1), **BRIEF)
        logs = model.fit(binary_data(ROWS), batch_size=16, epochs=2, verbose=0, shuffle=False)
        found.append((weights_of(model, to_numpy), logs.history))
    (plain, plain_logs), (with_head, logs) = found
    for one, other in zip(plain, with_head, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(plain_logs["loss"], logs["loss"], rtol=1e-5)
    assert set(logs) == set(plain_logs) | set(AuxiliarySoftmax.report_names)


def test_measuring_head_is_saved_with_its_model(make, tmp_path):
    model = make(zoo.DUVAE)
    model.add_regularizer(zoo.auxiliary_softmax(ROWS, hidden_units=(8,), softmax="tree"))
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    assert reloaded.num_examples == ROWS
    for part in ("network", "softmax"):
        one, other = (getattr(m.objective.regularizers[0], part).weights for m in (model, reloaded))
        assert len(one) == len(other) > 0
        for first, second in zip(one, other, strict=True):
            np.testing.assert_array_equal(*map(ops.convert_to_numpy, (first, second)))


def test_measuring_head_is_refused_where_it_cannot_work(make):
    model = make()
    model.compile("adam")
    with pytest.raises(RuntimeError, match="before `compile`"):
        model.add_regularizer(zoo.auxiliary_softmax(ROWS))
    model = make(zoo.WAE)
    regularizers, trackers = list(model.objective.regularizers), list(model.objective.trackers)
    with pytest.raises(ValueError, match="AuxiliarySoftmax"):
        model.add_regularizer(zoo.auxiliary_softmax(ROWS))
    # It can be trained on, without the term.
    assert model.objective.regularizers == regularizers
    assert model.objective.trackers == trackers
    assert model.num_examples is None
    with pytest.raises(TypeError, match="regularizer=3"):
        make(zoo.VAE).add_regularizer(3)


@pytest.mark.parametrize(
    ("estimator", "labels", "softmax"),
    [
        ("ce", 1000, "Flat"),
        ("ce", 1001, "Hierarchical"),
        ("fano_low", 1001, "Hierarchical"),
        ("entropy", 10_000, "Flat"),
        ("entropy", 10_001, "Hierarchical"),
        ("entropy_sampled", 10, "Hierarchical"),
    ],
)
def test_the_faster_softmax_is_the_default(estimator, labels, softmax):
    made = zoo.auxiliary_softmax(labels, estimator=estimator, hidden_units=(8,))
    assert type(made.softmax).__name__ == softmax + "Softmax"


def test_defaults_by_size():
    assert zoo.auxiliary_softmax(20_000, num_labels=500).softmax.num_classes == 500
    with pytest.raises(ValueError, match="`softmax` must be one of 'auto', 'flat', 'tree'"):
        zoo.auxiliary_softmax(10, softmax="heap")
