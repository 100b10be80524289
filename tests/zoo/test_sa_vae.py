"""Refined posteriors: the recursion on its own, the training step, and what uses them later."""

import functools
from contextlib import nullcontext

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.core.gradients import value_and_gradients_at
from vaezoo.core.random import StatelessSeed
from vaezoo.layers import CholeskyReparam, GaussianHead, LatentClip, PointHead
from vaezoo.losses import LinearSchedule
from vaezoo.metrics.subject import as_subject
from vaezoo.zoo.sa_vae import model as sa_vae
from vaezoo.zoo.sa_vae.refinement import (
    CHANGE,
    Descent,
    clip_each,
    clip_rows,
    clipping,
    descend,
    difference_product,
    exact_product,
    follow_back,
)

DESCENT = Descent(steps=20, learning_rate=0.1, momentum=0.5)
#: Binds some of the steps of `toy`, not all.
LIMIT = 1.3
# JAX has no float64 unless its settings are changed for good.
TENSORFLOW = keras.backend.backend() == "tensorflow"
DTYPE, TOLERANCE = ("float64", 1e-10) if TENSORFLOW else ("float32", 1e-4)
# JAX is slow without its compiler; TensorFlow without XLA compiles faster than with it.
# Of differences of the loss.
STEP = 5e-3
QUICK = {"jit_compile": not TENSORFLOW}


def toy(dtype):
    """A smooth ELBO of mean, log-variance and a decoder's weight, with noise by step."""
    rng = np.random.default_rng(0)

    def tensor(*shape):
        return ops.convert_to_tensor(rng.normal(size=shape).astype(dtype))

    x, eps = tensor(4, 5), tensor(DESCENT.steps + 1, 4, 3)
    start, weights = [tensor(4, 3), 0.3 * tensor(4, 3)], [tensor(3, 5), 0.1 * tensor(5)]

    def loss(here, weights, number):
        mean, log_var = here
        z = mean + ops.exp(0.5 * log_var) * ops.take(eps, number, axis=0)
        distortion = 0.5 * ops.sum(ops.square(x - ops.tanh(z @ weights[0] + weights[1])))
        return distortion + 0.5 * ops.sum(ops.square(mean) + ops.exp(log_var) - log_var - 1.0)

    return loss, start, weights


def gradient_of(loss, weights):
    return lambda here, number: value_and_gradients_at(
        lambda here: (loss(here, weights, number), ()), here
    )[1]


def compiled(function):
    """Compiled by XLA, as a training step is."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)


def through_recursion(loss, start, weights, limit, make_product):
    def run(start, weights):
        factors = clipping(clip_each, limit)
        last, path = descend(gradient_of(loss, weights), start, DESCENT, factors)
        _, found = value_and_gradients_at(
            lambda tensors: (loss(tensors[:2], tensors[2:], DESCENT.steps), ()), [*last, *weights]
        )
        product = make_product(loss, weights, factors)
        by_start, through = follow_back(product, path, found[:2], weights, DESCENT)
        return [*by_start, *(a + b for a, b in zip(found[2:], through, strict=True))]

    return [ops.convert_to_numpy(value) for value in compiled(run)(start, weights)]


def straight_through(loss, start, weights, limit):
    """Automatic differentiation through all steps, and how many of them were clipped."""
    clipped = []

    def run(tensors):
        here, weights = tensors[:2], tensors[2:]
        speed = [ops.zeros_like(value) for value in here]
        for number in range(DESCENT.steps):
            found = gradient_of(loss, weights)(here, number)
            factors = clipping(clip_each, limit)(found)
            factors = [ops.stop_gradient(ops.cast(c, DTYPE)) for c in factors]
            clipped.extend(factors)
            speed = [
                DESCENT.momentum * v - c * g for v, c, g in zip(speed, factors, found, strict=True)
            ]
            here = [a + DESCENT.learning_rate * v for a, v in zip(here, speed, strict=True)]
        return loss(here, weights, DESCENT.steps), clipped

    (_, clipped), found = value_and_gradients_at(run, [*start, *weights])
    binding = sum(float(factor) < 1.0 for factor in clipped)
    return [ops.convert_to_numpy(value) for value in found], binding


def distance(found, expected):
    return max(
        np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.large
@pytest.mark.parametrize("limit", [None, LIMIT])
def test_recursion_is_autodiff_through_all_steps(limit):
    loss, start, weights = toy(DTYPE)
    expected, binding = straight_through(loss, start, weights, limit)
    assert (0 < binding < 2 * DESCENT.steps) == (limit is not None)
    found = through_recursion(loss, start, weights, limit, exact_product)
    assert found[0].dtype == DTYPE
    assert distance(found, expected) < TOLERANCE
    # The encoder does not simply get the gradient at the refined parameters, ...
    direct = ops.convert_to_numpy(gradient_of(loss, weights)(start, DESCENT.steps)[0])
    assert distance(found[:1], [direct]) > 0.1


@pytest.mark.large
@pytest.mark.skipif(not TENSORFLOW, reason="JAX has no float64 by default")
def test_finite_differences_need_double_precision():
    expected, _ = straight_through(*toy("float64"), None)

    def error(dtype, change):
        product = functools.partial(difference_product, change=change)
        return distance(through_recursion(*toy(dtype), None, product), expected)

    assert error("float64", 1e-6) < 1e-4
    assert error("float32", 1e-6) > 0.1
    assert error("float32", CHANGE) < 0.02


def test_the_way_back_is_bounded():
    loss, start, weights = toy("float32")
    path = descend(gradient_of(loss, weights), start, DESCENT, clipping(clip_each, None))[1]
    huge = [1e6 * ops.ones_like(value) for value in start]
    product = exact_product(loss, weights, clipping(clip_each, None))
    by_start, by_weights = follow_back(product, path, huge, weights, DESCENT, limit=2.0)
    norms = [
        np.sqrt(sum(float(ops.sum(ops.square(value))) for value in values))
        for values in (by_start, by_weights)
    ]
    np.testing.assert_allclose(norms[0], 2.0, rtol=1e-3)
    assert 0.1 < norms[1] <= 2.0 * DESCENT.steps


def test_descent_is_momentum_descent_with_separate_clips(to_numpy):
    rng = np.random.default_rng(1)
    start = [rng.normal(size=(4, 3)).astype("float32") for _ in range(2)]
    slopes, descent = (3.0, 0.5), Descent(4, 0.2, 0.5)

    def gradient(here, number):
        return [
            slope * value + ops.cast(number, "float32")
            for slope, value in zip(slopes, here, strict=True)
        ]

    tensors = [ops.convert_to_tensor(value) for value in start]
    last, path = to_numpy(descend(gradient, tensors, descent, clipping(clip_each, 5.0)))
    here, speed, clipped = list(start), [0.0, 0.0], []
    for number in range(4):
        for part in range(2):
            np.testing.assert_allclose(path[part][number], here[part], rtol=1e-5, atol=1e-6)
            found = slopes[part] * here[part] + number
            factor = min(1.0, 5.0 / (np.linalg.norm(found) + 1e-6))
            clipped.append(factor < 1.0)
            speed[part] = 0.5 * speed[part] - factor * found
            here[part] = here[part] + 0.2 * speed[part]
    assert any(clipped)
    assert not all(clipped)
    for got, expected in zip(last, here, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_rows_are_clipped_one_by_one(to_numpy):
    rows = ops.convert_to_tensor(np.array([[3.0, 4.0], [0.3, 0.4]], "float32"))
    (factors,) = to_numpy(clip_rows([rows], 1.0))
    np.testing.assert_allclose(factors, [[0.2], [1.0]], rtol=1e-5)


# -- the training step -------------------------------------------------------------------------


def networks(batch_norm=False, units=8):
    """Smooth networks, with dropout on both sides."""
    layers = keras.layers
    encoder = keras.Sequential(
        [keras.Input((6,)), layers.Dense(units, "tanh"), layers.Dropout(0.2, seed=3)]
    )
    decoder = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(units, "tanh"),
            layers.Dropout(0.2, seed=4),
            *([layers.BatchNormalization()] if batch_norm else []),
            layers.Dense(6),
        ]
    )
    return encoder, decoder


def patterns(num, seed=0):
    """Two patterns with a few wrong bits: something to encode."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((num, 1)) < 0.5, [[1, 1, 1, 0, 0, 0]], [[0, 1, 0, 1, 0, 1]])
    return np.abs(x - (rng.random((num, 6)) < 0.1)).astype("float32")


@pytest.fixture(scope="module")
def model():
    """A model with a schedule, trained for some epochs of two batches."""
    keras.utils.set_random_seed(0)
    model = zoo.SAVAE(
        *networks(), latent_dim=3, refine_steps=4, beta=LinearSchedule(40, start=0.5), seed=1
    )
    model.compile(keras.optimizers.Adam(0.01), **QUICK)
    model.history_ = model.fit(patterns(64), batch_size=32, epochs=15, verbose=0).history
    return model


def step_by_direction(svi_backward):
    """A step's own gradients against differences of the loss that it logs, from one state."""
    keras.utils.set_random_seed(0)
    settings = {"refine_clipnorm": None, "refine_learning_rate": 4.0, "refine_steps": 3}
    # Whose second derivatives are not exact on TensorFlow.
    parts = networks(batch_norm=svi_backward == "finite_differences")
    model = zoo.SAVAE(*parts, latent_dim=3, seed=1, svi_backward=svi_backward, **settings)
    model.build((None, 6))
    model.compile(keras.optimizers.SGD(1.0))
    model.optimizer.build(model.trainable_variables)
    x = patterns(16)
    variables = [*model.variables, *model.optimizer.variables]
    state = [ops.convert_to_numpy(variable) for variable in variables]
    trained = {id(variable) for variable in model.trainable_variables}

    def loss(moves):
        for variable, value in zip(variables, state, strict=True):
            variable.assign(value + moves.get(id(variable), 0.0))
        return model.fit(x, batch_size=16, shuffle=False, verbose=0).history["loss"][0]

    loss({})
    gradients = {
        id(variable): value - ops.convert_to_numpy(variable)
        for variable, value in zip(variables, state, strict=True)
        if id(variable) in trained
    }
    for part in (model.encoder, model.head, model.decoder):
        chosen = {id(v): gradients[id(v)] for v in part.trainable_variables}
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in chosen.values()))
        forth, back = (
            loss({key: sign * STEP * g / norm for key, g in chosen.items()}) for sign in (1, -1)
        )
        yield norm, (forth - back) / (2 * STEP)


@pytest.mark.large
@pytest.mark.parametrize(
    ("svi_backward", "tolerance"), [("exact", 0.01), ("finite_differences", 0.03)]
)
def test_gradient_is_that_of_the_loss_after_all_steps(svi_backward, tolerance):
    # With dropout, so each step has to be followed back with the masks and noise that it had.
    for norm, slope in step_by_direction(svi_backward):
        assert norm > 1e-3
        np.testing.assert_allclose(norm, slope, rtol=tolerance)


def test_a_step_counts_once(model):
    steps = 15 * 2
    assert int(model.objective._weight.step) == steps == int(model.optimizer.iterations)
    np.testing.assert_allclose(model.history_["beta"][-1], 0.5 + 0.5 * 28.5 / 40, rtol=1e-5)
    # One draw of noise and of each mask a step, whatever the refinement draws.
    counts = [
        int(ops.convert_to_numpy(generator.state)[1])
        for layer in model._flatten_layers()
        for generator in layer._seed_generators
    ]
    assert counts == [steps] * 3


@pytest.mark.large
@pytest.mark.one_backend
def test_batch_statistics_are_those_of_the_last_pass(to_numpy):
    def statistics(refine_steps, rate):
        keras.utils.set_random_seed(0)
        options = {"refine_steps": refine_steps, "refine_learning_rate": rate}
        model = zoo.SAVAE(*networks(batch_norm=True), latent_dim=3, seed=1, **options)
        with pytest.warns(UserWarning, match="no exact") if TENSORFLOW else nullcontext():
            model.compile(keras.optimizers.SGD(0.0), **QUICK)
        model.fit(patterns(16), batch_size=16, verbose=0)
        norm = next(layer for layer in model.decoder.layers if hasattr(layer, "moving_mean"))
        return to_numpy((norm.moving_mean.value, norm.moving_variance.value))

    plain, still = statistics(0, 1.0), statistics(2, 1e-9)
    # Only one update was made, and refinement that moves nothing changes nothing.
    for a, b in zip(plain, still, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.large
def test_losses_of_layers_and_measuring_regularizers_are_kept():
    def step(**options):
        keras.utils.set_random_seed(0)
        encoder, decoder = networks()
        encoder = keras.Sequential([keras.Input((6,)), *encoder.layers[:1]])
        for name, value in options.items():
            setattr(encoder.layers[0], name, value)
        model = zoo.SAVAE(encoder, decoder, latent_dim=3, refine_steps=1, seed=1)
        model.add_regularizer(zoo.auxiliary_softmax(16, hidden_units=(4,)))
        model.compile(keras.optimizers.SGD(0.1), **QUICK)
        logs = model.fit(patterns(16), batch_size=16, verbose=0).history
        classifier = model.objective.regularizers[0]
        assert int(classifier.optimizer.iterations) == 1
        return logs, ops.convert_to_numpy(encoder.layers[0].kernel)

    logs, kernel = step()
    assert np.isfinite(logs["mutual_information"][0])
    more, pushed = step(activity_regularizer=keras.regularizers.L2(0.5))
    assert more["loss"][0] > logs["loss"][0] + 0.01
    assert np.linalg.norm(pushed) < np.linalg.norm(kernel) - 1e-4


@pytest.mark.large
def test_lstm_decoders_are_differentiated_twice(text_networks, sentences):
    keras.utils.set_random_seed(0)
    x = sentences(8)
    model = zoo.SAVAE(*text_networks(), latent_dim=3, likelihood="tokens", refine_steps=2, seed=1)
    model.build((None, 6))
    model.compile(keras.optimizers.SGD(0.1), jit_compile=True)
    before = {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}
    logs = model.fit(x, batch_size=8, verbose=0).history
    assert logs["refinement_gain"][0] > 0
    for variable in model.trainable_variables:
        value = ops.convert_to_numpy(variable)
        assert np.all(np.isfinite(value)), variable.path
        assert np.any(value != before[variable.path]), variable.path


# -- use ---------------------------------------------------------------------------------------


@pytest.mark.large
@pytest.mark.one_backend
def test_refinement_raises_the_elbo(model, to_numpy):
    x = patterns(64, seed=1)
    assert model.history_["refinement_gain"][-1] > 0
    first, last = (
        model._sampled(x, model.encode(x, refine_steps=steps), 50, StatelessSeed(0, 1))
        for steps in (0, None)
    )
    first, last = (to_numpy(model.terms(x, output)) for output in (first, last))
    gain = to_numpy((first.distortion + first.kl) - (last.distortion + last.kl))
    error = gain.std() / np.sqrt(len(gain))
    assert gain.mean() > 3 * error
    # `evaluate` sees the same, and charges the refined posterior.
    logs = model.evaluate(x, batch_size=64, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["rate"], last.kl.mean(), rtol=1e-4)
    np.testing.assert_allclose(logs["refinement_gain"], gain.mean(), atol=0.2 * gain.mean() + 0.02)


@pytest.mark.large
def test_encode_takes_as_many_steps_as_it_is_told(model, to_numpy):
    x = patterns(8, seed=2)
    plain = model.head.posterior(model.encoder(x, training=False))
    np.testing.assert_array_equal(*to_numpy((model.encode(x, refine_steps=0).mean, plain.mean)))
    default, four, three = (
        to_numpy(model.encode(x, refine_steps=n, batch_size=8)) for n in (None, 4, 3)
    )
    np.testing.assert_array_equal(default.log_var, four.log_var)
    assert np.max(np.abs(default.mean - three.mean)) > 1e-4
    assert np.max(np.abs(default.log_var - to_numpy(plain).log_var)) > 1e-4


@pytest.mark.large
def test_codes_depend_on_their_example_alone(model, to_numpy):
    x = patterns(8, seed=2)
    whole = to_numpy(model.encode(x))
    for batch_size in (8, 3, 1):
        parts = model.encode(x, batch_size=batch_size)
        np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(parts.log_var, whole.log_var, rtol=1e-4, atol=1e-5)


@pytest.mark.large
@pytest.mark.one_backend
def test_everything_uses_the_refined_posterior(model, to_numpy):
    x = patterns(8, seed=2)
    refined = model.encode(x)
    z, log_qz = model.head.sample_and_log_prob(refined, 8, StatelessSeed(3, 0))
    terms = to_numpy(model.terms(x, zoo.Output(refined, z, model.params(z, x), log_qz)))
    weights = (terms.log_px + terms.log_pz - terms.log_qz).astype("float64")
    expected = np.log(np.mean(np.exp(weights), axis=1))
    np.testing.assert_allclose(model.log_prob(x, 8, seed=3), expected, rtol=1e-4, atol=1e-4)
    refined, decoded = to_numpy((refined, model.decode(refined.mean)))
    np.testing.assert_allclose(model.reconstruct(x), decoded, rtol=1e-4, atol=1e-5)
    for posterior in (
        as_subject(model).encode(x),
        model.log_terms(x, batch_size=8).posterior,
        model.predict(x, verbose=0).posterior,
    ):
        np.testing.assert_allclose(posterior.mean, refined.mean, rtol=1e-4, atol=1e-5)


def test_reloaded_model_refines_as_before(model, tmp_path, to_numpy):
    x = patterns(8, seed=2)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(reloaded) is sa_vae.SemiAmortizedVAE
    assert reloaded.refine_steps == 4
    assert reloaded.svi_backward == "exact"
    # Also the size of its training batches.
    np.testing.assert_allclose(
        *to_numpy((reloaded.encode(x).mean, model.encode(x).mean)), rtol=1e-5, atol=1e-6
    )


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"refine_steps": -1}, "`refine_steps` must be a non-negative integer.*refine_steps=-1"),
        ({"refine_steps": 2.0}, "`refine_steps` must be a non-negative integer.*=2.0"),
        ({"refine_learning_rate": 0.0}, "`refine_learning_rate` must be a finite, positive.*=0.0"),
        ({"momentum": 1.0}, r"`momentum` must be a number in \[0, 1\).*momentum=1.0"),
        ({"refine_clipnorm": -5.0}, "`refine_clipnorm` must be a finite, positive.*=-5.0"),
        ({"svi_backward": "none"}, "`svi_backward` must be one of 'exact', 'finite_diff.*'none'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        zoo.SAVAE(*networks(), latent_dim=3, **settings)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("head", "received"),
    [
        (lambda: PointHead(3), "PointHead"),
        (lambda: GaussianHead(3, clip=LatentClip()), "GaussianHead with further layers"),
        (lambda: GaussianHead(3, 1, reparam=CholeskyReparam(1)), "with further layers"),
        (lambda: GaussianHead(3, scale="scalar"), "with further layers"),
    ],
)
def test_heads_that_cannot_be_refined(head, received):
    from vaezoo.losses import ELBO

    options = {"objective": ELBO(0.0)} if received == "PointHead" else {}
    with pytest.raises(ValueError, match=f"`head` must be a GaussianHead.*Received.*{received}"):
        sa_vae.SemiAmortizedVAE(*networks(), head=head(), **options)


@pytest.mark.one_backend
def test_encode_refuses_fewer_than_no_steps(model):
    with pytest.raises(ValueError, match="`refine_steps` must be .*refine_steps=-1"):
        model.encode(patterns(2), refine_steps=-1)


@pytest.mark.one_backend
def test_several_replicas_are_refused(monkeypatch):
    monkeypatch.setattr(sa_vae, "num_tf_replicas", lambda model: 2)
    with pytest.raises(ValueError, match="must train on one `tf.distribute` replica.*replicas=2"):
        zoo.SAVAE(*networks(), latent_dim=3).compile()
