"""One suite for every constructor of the zoo.

A model is trained once for all checks of its constructor: under XLA in batches of 16, and a last
batch of 1 row, both ragged and the smallest possible.
"""

import functools
import inspect
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.losses import AuxiliarySoftmax

BATCH, ROWS = 16, 33
PARTS = {"Output", "Preset", "auxiliary_softmax", "load", "networks", "presets"}
CONSTRUCTORS = sorted(set(zoo.__all__) - PARTS)
# What models of a training step of their own log besides.
STEP_LOGS = {"AggVAE": {"aggressive", "inner_steps"}, "SAVAE": {"refinement_gain"}}


@keras.saving.register_keras_serializable(package="vaezoo_tests")
class CountsTraces(keras.layers.Layer):
    """The identity; counts how often Python runs through it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.traces = 0

    def call(self, x):
        self.traces += 1
        return x


class FirstStep(keras.callbacks.Callback):
    """Keeps the trainable weights as the first step left them."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.weights = values(self.model.trainable_variables)


def values(variables):
    return {variable.path: ops.convert_to_numpy(variable) for variable in variables}


def traced(function, x):
    """What `function` makes of `x`; on JAX its shapes and dtypes alone, for which nothing runs."""
    if keras.backend.backend() != "jax":
        return function(x)
    import jax

    def stateless(x):
        with keras.StatelessScope():
            return function(x)

    return jax.eval_shape(stateless, x)


@pytest.fixture(scope="module", params=CONSTRUCTORS)
def case(request, small_parts, tmp_path_factory):
    keras.utils.set_random_seed(0)
    counter, first_step = CountsTraces(), FirstStep()
    constructor = functools.partial(getattr(zoo, request.param), **small_parts(request.param))
    text = request.param == "TextVAE"
    networks = request.getfixturevalue("text_networks" if text else "dense_networks")
    model = constructor(*networks(first=[counter]), latent_dim=3)
    x = request.getfixturevalue("sentences" if text else "binary_data")(ROWS)
    # Plain descent: Adam's first steps are equally long in all dimensions, which leaves a vector
    # of constrained length where it is.
    model.compile(keras.optimizers.SGD(0.01, clipnorm=1.0), jit_compile=True)
    model.build((None, 6))
    before = values(model.trainable_variables)

    def fit(rows, **options):
        y = {"index": np.arange(ROWS)[rows]} if model.num_examples else None
        return model.fit(x[rows], y, batch_size=BATCH, verbose=0, **options).history

    # XLA takes seconds for a further shape on TensorFlow, where two batches without any graph, one
    # of 16 and the last one, take none.
    apart = keras.backend.backend() == "tensorflow"
    whole = slice(ROWS // BATCH * BATCH if apart else ROWS)
    fit(whole, callbacks=[first_step])
    traces = counter.traces
    history = fit(whole, epochs=2)
    later_traces = counter.traces - traces
    if apart:
        for eager in (True, False):
            model.run_eagerly, model.jit_compile = eager, not eager
            model.make_train_function(force=True)
            if eager:
                fit(slice(whole.stop - BATCH, ROWS))
    path = tmp_path_factory.mktemp(request.param) / "model.keras"
    model.save(path)
    return SimpleNamespace(
        name=request.param,
        constructor=constructor,
        networks=networks,
        params_shape=(5, 12) if text else (6,),
        model=model,
        x=x,
        before=before,
        after=first_step.weights,
        traces=traces,
        later_traces=later_traces,
        history=history,
        path=path,
        outputs=model.predict(x, batch_size=ROWS, verbose=0),
        deterministic=not model.head.has_density,
    )


def test_one_step_moves_every_trainable_weight(case):
    assert set(case.before) == set(case.after)
    for path, value in case.before.items():
        assert np.any(case.after[path] != value), path


@pytest.mark.parametrize("expand_nested", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_summary_counts_the_weights_and_names_the_parts(case, trained, expand_nested):
    model = case.model if trained else case.constructor(*case.networks(), latent_dim=3)
    lines = []
    model.summary(expand_nested=expand_nested, print_fn=lambda text, **_: lines.append(text))
    text = "\n".join(lines)
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert f"Trainable params: {trainable:,} " in text
    if trained:
        # One density for each draw.
        prior = next(line for line in text.splitlines() if model.prior.name in line)
        assert f"(None, {model.head.num_samples})" in prior


def test_logs_hold_loss_distortion_rate_and_reports(case):
    reports = {*case.model.objective.report_names, *STEP_LOGS.get(case.name, ())}
    assert set(case.history) == {"loss", "distortion", "rate", *reports}
    for name, epochs in case.history.items():
        # A code without density has no finite rate, and says so.
        infinite = case.deterministic and name == "rate"
        assert np.all(np.isposinf(epochs) if infinite else np.isfinite(epochs)), name


def test_a_last_batch_of_one_row_leaves_every_weight_finite(case):
    for path, value in values(case.model.variables).items():
        assert np.all(np.isfinite(value)), path


def test_later_epochs_and_fits_retrace_nothing(case):
    # First the symbolic builds of network and model, then one trace per batch size; one within
    # the inner loop and one after it of an aggressive step.
    assert 2 <= case.traces <= (6 if case.name == "AggVAE" else 4)
    assert case.later_traces == 0


def test_evaluate_reports_what_training_reports(case, monkeypatch):
    if keras.backend.backend() == "tensorflow":
        # Without any graph where that is faster; `predict` has had one, under XLA.
        monkeypatch.setattr(case.model, "jit_compile", False)
        monkeypatch.setattr(case.model, "run_eagerly", True)
    logs = case.model.evaluate(case.x, batch_size=ROWS, verbose=0, return_dict=True)
    # Examples are classified in training alone.
    training_only = AuxiliarySoftmax.report_names if case.model.num_examples else ()
    if case.name == "AggVAE":
        training_only = STEP_LOGS[case.name]
    assert set(logs) == set(case.history) - set(training_only)
    assert np.isfinite(logs["loss"])
    assert np.isfinite(logs["distortion"])


@pytest.mark.large
def test_reloaded_model_is_the_same_down_to_its_noise(case):
    reloaded = keras.models.load_model(case.path)
    assert json.dumps(reloaded.get_config()) == json.dumps(case.model.get_config())
    assert [v.shape for v in reloaded.variables] == [v.shape for v in case.model.variables]
    again = reloaded.predict(case.x, batch_size=ROWS, verbose=0)
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), case.outputs, again
    )
    # It was a draw: the next one differs, unless the encoder is deterministic.
    later = ops.convert_to_numpy(reloaded(case.x).z)
    assert np.allclose(later, again.z, rtol=1e-5, atol=1e-6) == case.deterministic


def test_log_prob_is_finite_or_refused(case):
    if case.deterministic:
        with pytest.raises(ValueError, match="`log_prob` needs a posterior with a density"):
            case.model.log_prob(case.x)
        return
    log_prob = case.model.log_prob(case.x, num_samples=10)
    assert log_prob.shape == (ROWS,)
    assert log_prob.dtype == np.float32
    assert np.all(np.isfinite(log_prob))


def test_generate_follows_its_seed(case):
    first, again, other = (case.model.generate(5, seed=seed) for seed in (1, 1, 2))
    assert first.shape == (5, 6)
    np.testing.assert_array_equal(first, again)
    assert np.all(np.any(first != other, axis=1))
    assert len(np.unique(first, axis=0)) == 5


@pytest.mark.large
def test_draws_lie_on_axis_1(case):
    if "num_samples" not in inspect.signature(case.constructor).parameters:
        # All draws of a point are alike; the model takes one.
        assert case.model.head.num_samples == 1
        assert case.model(case.x).z.shape == (ROWS, 1, 3)
        return
    model = case.constructor(*case.networks(), latent_dim=3, num_samples=2)
    output = model(case.x)
    terms = model.terms(case.x, output)
    assert output.posterior.mean.shape == (ROWS, 3)
    assert output.z.shape == (ROWS, 2, 3)
    assert output.params.shape == (ROWS, 2, *case.params_shape)
    assert terms.log_px.shape == terms.log_pz.shape == terms.log_qz.shape == (ROWS, 2)
    assert terms.kl.shape == terms.distortion.shape == (ROWS,)
    # Each draw has been decoded by itself.
    seen = [case.x] if model.autoregressive else []
    single = model.decoder(output.z[:, 1], *seen)
    np.testing.assert_allclose(output.params[:, 1], single, rtol=1e-5, atol=1e-6)
    assert np.all(ops.convert_to_numpy(output.z[:, 0] != output.z[:, 1]))


# `test_vae.py` has both policies on both backends, under XLA.
@pytest.mark.large
@pytest.mark.one_backend
@pytest.mark.parametrize("policy", ["mixed_float16"])
def test_trains_in_mixed_precision_with_a_float32_loss(case, policy, float32_policy):
    keras.config.set_dtype_policy(policy)
    model = case.constructor(*case.networks(), latent_dim=3)
    # Without any graph where that is faster; graphs and XLA have their turn in `test_vae.py`.
    tensorflow = keras.backend.backend() == "tensorflow"
    model.compile("adam", jit_compile=not tensorflow, run_eagerly=tensorflow)
    x = case.x[:BATCH]
    # Part of the training set, so that their places in it have to be given.
    y = {"index": np.arange(BATCH)} if model.num_examples else None
    history = model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    for path, value in values(model.variables).items():
        assert np.all(np.isfinite(value)), path

    def parts(x):
        output = model(x)
        loss = model.compute_loss(x, y_pred=output, training=False)
        return output.params, [loss, *model.terms(x, output)[:4]]

    params, losses = traced(parts, x)
    assert keras.backend.standardize_dtype(params.dtype) == policy.removeprefix("mixed_")
    for value in losses:
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
