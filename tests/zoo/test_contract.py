"""One suite for every constructor of the zoo.

A model is trained once for all checks of its constructor: under XLA in batches of 16, and a last
batch of 1 row, both ragged and the smallest possible.
"""

import functools
import inspect
import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.losses import AuxiliarySoftmax
from vaezoo.testing import ModelContract

BATCH, ROWS = 16, 33
PARTS = {"Output", "Preset", "auxiliary_softmax", "load", "networks", "presets"}
CONSTRUCTORS = sorted(set(zoo.__all__) - PARTS)
# What models of a training step of their own log besides.
STEP_LOGS = {"AggVAE": {"aggressive", "inner_steps"}, "SAVAE": {"refinement_gain"}}
# With a training step or networks of their own: in the quick tests of both backends. Of the others
# each is in the quick tests of one, and in the large ones of the other.
OF_THEIR_OWN = ["AggVAE", "SAVAE", "TextVAE", "VAEAS"]
OTHERS = [name for name in CONSTRUCTORS if name not in OF_THEIR_OWN]
QUICK = {*OF_THEIR_OWN, *OTHERS[keras.backend.backend() == "jax" :: 2]}
MARKED = [pytest.param(n, marks=() if n in QUICK else pytest.mark.large) for n in CONSTRUCTORS]

# Who has the head, prior and likelihood of another, so that `predict` compiles the same graph: what
# differs is the loss or the training.
ALIKE = dict.fromkeys(["AE", "AggVAE", "BetaVAE", "FreeBitsVAE", "InfoVAE", "VAEAS"], "VAE")
ALIKE |= {"ResNetVAE": "MAE", "VLAE": "MAE"}
PREDICTING = [name for name in CONSTRUCTORS if name not in ALIKE]


def traced(function, x):
    """What `function` makes of `x`; on JAX its shapes and dtypes alone, for which nothing runs."""
    if keras.backend.backend() != "jax":
        return function(x)
    import jax

    def stateless(x):
        with keras.StatelessScope():
            return function(x)

    return jax.eval_shape(stateless, x)


@pytest.fixture(scope="session")
def parts_of(small_parts, text_networks, dense_networks, sentences, binary_data):
    """Function of a constructor's name: how to make a small model, and its training set."""

    def parts(name):
        text = name == "TextVAE"
        networks = text_networks if text else dense_networks
        constructor = functools.partial(getattr(zoo, name), **small_parts(name))
        return SimpleNamespace(
            name=name,
            constructor=constructor,
            networks=networks,
            make=lambda **options: constructor(*networks(), **{"latent_dim": 3, **options}),
            params_shape=(5, 12) if text else (6,),
            x=(sentences if text else binary_data)(ROWS),
        )

    return parts


@pytest.fixture(scope="module", params=MARKED)
def contract(request, parts_of):
    keras.utils.set_random_seed(0)
    parts = parts_of(request.param)
    # First the symbolic build of the model, then one trace per batch size; one within the inner
    # loop and one after it of an aggressive step.
    return ModelContract(
        parts.make,
        parts.x,
        batch_size=BATCH,
        step_logs=STEP_LOGS.get(parts.name, ()),
        max_traces=5 if parts.name == "AggVAE" else 3,
    )


@pytest.fixture(params=CONSTRUCTORS)
def case(request, parts_of):
    """How to make a model that is not trained."""
    return parts_of(request.param)


def test_one_step_moves_every_trainable_weight_and_all_stay_finite(contract):
    contract.check_weights()


def shown(model, expand_nested):
    lines = []
    model.summary(expand_nested=expand_nested, print_fn=lambda text, **_: lines.append(text))
    text = "\n".join(lines)
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert f"Trainable params: {trainable:,} " in text
    return text


@pytest.mark.parametrize("expand_nested", [False, True])
def test_summary_counts_the_weights_of_a_new_model(case, expand_nested):
    shown(case.make(), expand_nested)


@pytest.mark.parametrize("expand_nested", [False, True])
def test_summary_names_the_parts_of_a_trained_model(contract, expand_nested):
    model = contract.model
    text = shown(model, expand_nested)
    # One density for each draw.
    prior = next(line for line in text.splitlines() if model.prior.name in line)
    assert f"(None, {model.head.num_samples})" in prior


def test_logs_hold_loss_distortion_rate_and_reports(contract):
    contract.check_logs()


def test_later_epochs_and_fits_retrace_nothing(contract):
    contract.check_traces()


def test_evaluate_reports_what_training_reports(contract):
    # Examples are classified in training alone.
    training_only = AuxiliarySoftmax.report_names if contract.model.num_examples else ()
    if "aggressive" in contract.step_logs:
        training_only = contract.step_logs
    contract.check_evaluate(training_only)


def test_reloaded_model_is_the_same_down_to_its_noise(contract):
    contract.check_reload()


def test_log_prob_is_finite_or_refused(contract):
    contract.check_log_prob()


def test_generate_follows_its_seed(contract):
    contract.check_generate()


@pytest.mark.one_backend
@pytest.mark.parametrize(("name", "other"), ALIKE.items())
def test_who_predicts_alike_has_the_same_parts(parts_of, name, other):
    def parts(name):
        model = parts_of(name).make()
        configs = [part.get_config() for part in (model.head, model.prior, model.likelihood)]
        # Keras counts instances in their names.
        return type(model).call, re.sub(r"'name': '\w+'", "", repr(configs))

    assert parts(name) == parts(other)


@pytest.mark.large
@pytest.mark.one_backend
@pytest.mark.parametrize("name", PREDICTING)
def test_predicts_under_xla(parts_of, name):
    """`predict` of other tests runs without a graph on TensorFlow, and compiled on JAX."""
    case = parts_of(name)
    model = case.make()
    model.compile(jit_compile=True)
    output = model.predict(case.x, batch_size=ROWS, verbose=0)
    draws = model.head.num_samples
    assert output.z.shape == (ROWS, draws, 3)
    assert output.params.shape == (ROWS, draws, *case.params_shape)
    for value in (output.z, output.params, output.posterior.mean):
        assert np.all(np.isfinite(value))


@pytest.mark.large
@pytest.mark.one_backend
def test_draws_lie_on_axis_1(case):
    if "num_samples" not in inspect.signature(case.constructor).parameters:
        # All draws of a point are alike; the model takes one.
        model = case.make()
        assert model.head.num_samples == 1
        assert model(case.x).z.shape == (ROWS, 1, 3)
        return
    model = case.make(num_samples=2)
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
    model = case.make()
    # Without any graph where that is faster; graphs and XLA have their turn in `test_vae.py`.
    tensorflow = keras.backend.backend() == "tensorflow"
    model.compile("adam", jit_compile=not tensorflow, run_eagerly=tensorflow)
    x = case.x[:BATCH]
    # Part of the training set, so that their places in it have to be given.
    y = {"index": np.arange(BATCH)} if model.num_examples else None
    history = model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    for path, value in ((v.path, ops.convert_to_numpy(v)) for v in model.variables):
        assert np.all(np.isfinite(value)), path

    def parts(x):
        output = model(x)
        loss = model.compute_loss(x, y_pred=output, training=False)
        return output.params, [loss, *model.terms(x, output)[:4]]

    params, losses = traced(parts, x)
    assert keras.backend.standardize_dtype(params.dtype) == policy.removeprefix("mixed_")
    for value in losses:
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
