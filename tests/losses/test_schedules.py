import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.losses import (
    ELBO,
    CosineSchedule,
    CyclicalSchedule,
    InEpochs,
    LinearSchedule,
    Schedule,
    SigmoidSchedule,
    final_value,
)
from vaezoo.testing import check_serialization

STEPS = 20
TIMES = np.array([0, 1, 5, 10, 13, 19, 20, 21, 1000, 2**31 - 1])


def _fraction(times):
    return np.minimum(1.0, times / STEPS)


def _sigmoid(u, steepness):
    return 1.0 / (1.0 + np.exp(-steepness * (u - 0.5)))


def _sigmoid_shape(u, steepness=10.0):
    low, high = _sigmoid(0.0, steepness), _sigmoid(1.0, steepness)
    return (_sigmoid(u, steepness) - low) / (high - low)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (LinearSchedule, lambda u: u),
        (CosineSchedule, lambda u: 0.5 * (1.0 - np.cos(np.pi * u))),
        (SigmoidSchedule, _sigmoid_shape),
        (lambda *ramp: SigmoidSchedule(*ramp, steepness=2.0), lambda u: _sigmoid_shape(u, 2.0)),
    ],
)
@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (0.1, 4.0), (2.0, 0.5)])
def test_ramps_against_their_formulas(make, shape, start, stop):
    schedule = make(STEPS, start, stop)
    expected = start + (stop - start) * shape(_fraction(TIMES))
    np.testing.assert_allclose(schedule(TIMES), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(schedule(0), start, atol=1e-6)
    np.testing.assert_allclose(schedule(STEPS), stop, rtol=1e-6)
    assert schedule.final == stop


def _cycles(times, steps, cycles, rise):
    length = steps // cycles
    return np.where(times >= steps, 1.0, np.minimum(1.0, (times % length) / length / rise))


@pytest.mark.parametrize("rise", [0.5, 0.8, 1.0])
def test_cyclical_schedule_against_its_formula(rise):
    schedule = CyclicalSchedule(STEPS, cycles=4, rise=rise, start=0.2, stop=1.5)
    times = np.concatenate([np.arange(STEPS + 3), TIMES])
    expected = 0.2 + 1.3 * _cycles(times, STEPS, 4, rise)
    np.testing.assert_allclose(schedule(times), expected, rtol=1e-6)
    assert schedule.final == 1.5


def test_cyclical_schedule_with_cycles_of_broken_length():
    times = np.arange(10)
    phase = times * 3 / 10 % 1.0
    expected = np.minimum(1.0, phase / 0.5)
    np.testing.assert_allclose(CyclicalSchedule(10, cycles=3)(times), expected, atol=1e-6)


def _compiled(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


def test_cycles_start_on_time_under_xla():
    # XLA turns a division by 49 into a product with its rounded reciprocal.
    times = np.arange(49, dtype="int32")
    weights = _compiled(CyclicalSchedule(49, cycles=7))(ops.convert_to_tensor(times))
    np.testing.assert_allclose(weights, _cycles(times, 49, 7, 0.5), atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "weight", "step"),
    [
        (LinearSchedule(10), 0.0, 0),
        (LinearSchedule(10), 0.3, 3),
        (LinearSchedule(10), 0.31, 4),
        (LinearSchedule(10), 1.0, 10),
        (LinearSchedule(10, start=0.5), 0.4, 0),
        (CosineSchedule(10), 0.5, 5),
        (SigmoidSchedule(10), 1.0, 10),
        (CyclicalSchedule(20, cycles=2), 1.0, 5),
    ],
)
def test_first_step_at(schedule, weight, step):
    assert schedule.first_step_at(weight) == step


def test_first_step_at_a_weight_out_of_reach():
    with pytest.raises(ValueError, match="`weight` must be .* weight=1.5, largest=1$"):
        LinearSchedule(10).first_step_at(1.5)


@pytest.mark.parametrize("make", [LinearSchedule, SigmoidSchedule, CosineSchedule])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "`steps` must be a positive integer. Received: steps=0"),
        ({"steps": 2.5}, "`steps` must be a positive integer. Received: steps=2.5"),
        (
            {"steps": 5, "start": -0.1},
            "`start` must be a finite, non-negative number. Received: start=-0.1",
        ),
        (
            {"steps": 5, "stop": float("nan")},
            "`stop` must be a finite, non-negative number. Received: stop=nan",
        ),
        (
            {"steps": 5, "stop": float("inf")},
            "`stop` must be a finite, non-negative number. Received: stop=inf",
        ),
    ],
)
def test_ramp_argument_errors(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SigmoidSchedule(5, steepness=0.0),
            "`steepness` must be a finite, positive number.*=0.0",
        ),
        (lambda: CyclicalSchedule(0), "`steps` must be a positive integer. Received: steps=0"),
        (lambda: CyclicalSchedule(5, cycles=0), "`cycles` must be a positive integer.*cycles=0"),
        (
            lambda: CyclicalSchedule(5, rise=0.0),
            r"`rise` must be a number in \(0, 1\]. .* rise=0.0",
        ),
        (
            lambda: CyclicalSchedule(5, rise=1.5),
            r"`rise` must be a number in \(0, 1\]. .* rise=1.5",
        ),
        (
            lambda: CyclicalSchedule(5, start=-1.0),
            "`start` must be a finite, non-negative number.*start=-1.0",
        ),
    ],
)
def test_further_argument_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_schedules_are_keras_schedules():
    for make in (LinearSchedule, SigmoidSchedule, CosineSchedule, CyclicalSchedule):
        assert issubclass(make, Schedule)
        assert issubclass(make, keras.optimizers.schedules.LearningRateSchedule)
    optimizer = keras.optimizers.SGD(LinearSchedule(10, start=0.5, stop=0.1))
    np.testing.assert_allclose(ops.convert_to_numpy(optimizer.learning_rate), 0.5, rtol=1e-6)


@pytest.mark.large
def test_schedule_is_read_inside_the_compiled_step():
    """Eight steps in two executions: a batch callback would have come twice, not eight times."""
    x = np.random.default_rng(0).random((16, 6)).astype("float32")
    layers = keras.layers
    objective = ELBO(LinearSchedule(10))
    model = zoo.VAE(
        keras.Sequential([layers.Dense(4)]),
        keras.Sequential([layers.Dense(6)]),
        latent_dim=2,
        objective=objective,
    )
    model.compile("sgd", jit_compile=True, steps_per_execution=4)
    history = model.fit(x, batch_size=2, verbose=0).history
    # The eighth step was number 7.
    np.testing.assert_allclose(objective.beta.numpy(), 0.7, rtol=1e-6)
    np.testing.assert_allclose(history["beta"], [np.mean(np.arange(8) / 10)], rtol=1e-6)
    model.fit(x, batch_size=2, verbose=0)
    np.testing.assert_allclose(objective.beta.numpy(), 1.0, rtol=1e-6)


@pytest.mark.large_on_jax
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (LinearSchedule, {"start": 0.1}),
        (SigmoidSchedule, {"steepness": 4.0}),
        (CosineSchedule, {"stop": 3.0}),
        (CyclicalSchedule, {"cycles": 3, "rise": 0.7}),
    ],
)
def test_epochs_are_whole_steps(kind, options):
    in_epochs, in_steps = kind(10, unit="epochs", **options), kind(4470, **options)
    with pytest.raises(ValueError, match="`steps_per_epoch` must be set for unit='epochs'"):
        in_epochs(0)
    assert float(in_epochs.initial) == pytest.approx(float(in_steps(0)), abs=1e-7)
    assert in_epochs.set_steps_per_epoch(447)
    times = np.arange(4500)
    np.testing.assert_array_equal(in_epochs(times), in_steps(times))
    assert in_epochs.final == in_steps.final
    np.testing.assert_allclose(in_epochs.at_epoch(3.0), in_steps(1341), rtol=1e-6)
    halfway = float(in_steps(2235))
    assert in_epochs.first_step_at(halfway) == pytest.approx(
        in_steps.first_step_at(halfway) / 447, abs=3e-3
    )


def test_a_position_in_epochs_is_kept():
    schedule = LinearSchedule(4, unit="epochs")
    schedule.set_steps_per_epoch(10)
    assert float(schedule(20)) == 0.5
    assert not schedule.set_steps_per_epoch(10, 20)
    assert schedule.set_steps_per_epoch(5, 20)
    assert [float(schedule(step)) for step in (20, 25, 30)] == [0.5, 0.75, 1.0]
    assert schedule.set_steps_per_epoch(20, 25)
    assert [float(schedule(step)) for step in (25, 45)] == [0.75, 1.0]
    revived = check_serialization(schedule)
    assert float(revived(25)) == 0.75
    assert "clock" not in LinearSchedule(4).get_config()


def test_half_an_epoch_and_bad_units():
    schedule = LinearSchedule(0.5, unit="epochs")
    schedule.set_steps_per_epoch(10)
    assert [float(schedule(step)) for step in (1, 5)] == pytest.approx([0.2, 1.0])
    for steps, unit, message in (
        (10, "epoch", "`unit` must be one of 'steps', 'epochs'"),
        (0, "epochs", "`steps` must be a finite, positive number"),
        (0.5, "steps", "`steps` must be a positive integer"),
    ):
        with pytest.raises(ValueError, match=message):
            LinearSchedule(steps, unit=unit)
    with pytest.raises(ValueError, match="`steps_per_epoch` must be a positive integer"):
        schedule.set_steps_per_epoch(0)


def test_schedules_of_keras_in_epochs():
    decay = keras.optimizers.schedules.ExponentialDecay
    schedule = InEpochs(decay(0.1, 1, 0.995, staircase=True))
    assert float(final_value(schedule)) == pytest.approx(0.0, abs=1e-6)
    # Epochs of lengths whose reciprocal is rounded.
    for steps in (468, 93, 49):
        schedule = InEpochs(decay(0.1, 1, 0.995, staircase=True))
        schedule.set_steps_per_epoch(steps)
        epochs = np.arange(10 * steps) // steps
        for step in range(0, 10 * steps, steps - 1):
            assert float(schedule(step)) == pytest.approx(0.1 * 0.995 ** epochs[step], rel=1e-6)
    revived = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert float(revived(49)) == pytest.approx(0.1 * 0.995)
    with pytest.raises(TypeError, match="`schedule` must be a Keras schedule"):
        InEpochs(0.1)
