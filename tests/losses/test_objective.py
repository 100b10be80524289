import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.core.masks import masks_rows
from vaezoo.core.replicas import batch_mean
from vaezoo.losses import (
    ELBO,
    FreeBits,
    ImportanceWeightedELBO,
    InformationWeightedELBO,
    LinearSchedule,
    Loss,
    MaximumMeanDiscrepancy,
    MuELBO,
    MutualPosteriorDivergence,
    Objective,
    Regularizer,
)
from vaezoo.losses.objective import Weight


class _Constant(Regularizer):
    report_names = ("constant",)
    min_batch_size = 3

    def call(self, terms, training=False):
        return Loss(ops.ones_like(terms.kl), 2.0, {"constant": 2.0})


def test_distortion_is_the_mean_over_draws(make_terms):
    mean = np.zeros((2, 3), "float32")
    terms = make_terms(mean, mean, np.float32([[-1.0, -3.0], [-2.0, -6.0]]))
    np.testing.assert_allclose(terms.distortion, [2.0, 4.0])


def test_a_batch_too_small_for_a_regularizer_leaves_it_out(make_terms):
    mean = np.ones((2, 3), "float32")
    objective = ELBO(regularizers=[_Constant()])
    terms = make_terms(mean, 0.0 * mean)
    loss = objective(terms)
    np.testing.assert_allclose(loss.per_example, terms.kl)
    assert loss.batch == 0.0
    objective.make_trackers()
    (tracker,) = objective.trackers
    assert np.isnan(tracker.result())
    tracker.add(loss.report["constant"], 2)
    assert np.isnan(tracker.result())
    # Values of a batch count for each of its examples.
    for value, rows in ((np.float32(2.0), 3), (np.float32([5.0, 6.0]), 2)):
        tracker.add(value, rows)
    np.testing.assert_allclose(tracker.result(), (3 * 2.0 + 5.0 + 6.0) / 5)


def test_regularizers_add_to_every_part_of_the_loss(make_terms):
    mean = np.ones((3, 3), "float32")
    terms = make_terms(mean, 0.0 * mean)
    objective = ELBO(LinearSchedule(2, start=0.5), regularizers=[_Constant(), _Constant()])
    loss = objective(terms, training=True)
    np.testing.assert_allclose(loss.per_example, 0.5 * np.asarray(terms.kl) + 2.0)
    assert loss.batch == 4.0
    assert sorted(loss.report) == ["beta", "constant"]
    assert objective.report_names == ("beta", "constant", "constant")
    assert objective.min_batch_size == 3
    assert ELBO().min_batch_size == 1


def test_regularizers_must_be_regularizers():
    with pytest.raises(TypeError, match="`regularizers` must be of vaezoo .*ELBO"):
        ELBO(regularizers=[ELBO()])


def test_bases_leave_their_methods_open(make_terms):
    terms = make_terms(np.zeros((2, 3), "float32"), np.zeros((2, 3), "float32"))
    with pytest.raises(NotImplementedError):
        Objective()(terms)


def test_objectives_stay_in_float32(make_terms, float32_policy):
    keras.config.set_dtype_policy("mixed_float16")
    mean, log_var = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    terms = make_terms(mean, log_var, np.full((4, 1), -3e5, "float32"))
    parts = [MaximumMeanDiscrepancy(seed=0), MutualPosteriorDivergence()]
    loss = ELBO(regularizers=parts)(terms, training=True)
    # 3e5 is beyond float16, whose largest number is 65504.
    np.testing.assert_allclose(loss.per_example, 3e5 + terms.kl, rtol=1e-6)
    for value in (loss.per_example, loss.batch):
        assert keras.backend.standardize_dtype(value.dtype) == "float32"


def test_weight_of_a_number_is_its_variable():
    weight = Weight(0.5, "beta")
    np.testing.assert_allclose(weight(training=True), 0.5)
    weight.variable.assign(2.0)
    for training in (True, False):
        np.testing.assert_allclose(weight(training=training), 2.0)
    assert weight.trainable_variables == []


def test_weight_of_a_schedule_counts_training_steps_only():
    weight = Weight(LinearSchedule(4), "beta")
    values = [float(ops.convert_to_numpy(weight(training=True))) for _ in range(3)]
    assert values == [0.0, 0.25, 0.5]
    np.testing.assert_allclose(weight(training=False), 1.0)
    np.testing.assert_allclose(weight(training=True), 0.75)
    np.testing.assert_allclose(weight.variable.numpy(), 0.75)


def test_weight_takes_the_schedules_of_keras():
    weight = Weight(keras.optimizers.schedules.PolynomialDecay(0.2, 10, 1.0), "beta")
    values = [float(ops.convert_to_numpy(weight(training=True))) for _ in range(3)]
    np.testing.assert_allclose(values, [0.2, 0.28, 0.36], rtol=1e-6)
    np.testing.assert_allclose(weight(training=False), 1.0, rtol=1e-6)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, None, "0.5"])
def test_weights_are_non_negative_numbers_or_schedules(value):
    with pytest.raises(ValueError, match="`beta` must be a finite, non-negative number or a sched"):
        Weight(value, "beta")
    assert Weight(np.float32(0.5), "beta").initial == 0.5


PARTS = [
    ELBO(0.5),
    FreeBits(0.1),
    ImportanceWeightedELBO(),
    InformationWeightedELBO(),
    *(MuELBO(mode) for mode in ("global", "per_dim", "per_sample")),
    *(MaximumMeanDiscrepancy(2.0, kernel, seed=0) for kernel in ("imq", "rbf")),
    *(
        MutualPosteriorDivergence(reduction=reduction)
        for reduction in ("mean_of_softplus", "softplus_of_mean")
    ),
]


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_rows_that_fill_a_batch_up_count_nowhere(part, rows, make_terms, monkeypatch):
    noise = np.random.default_rng(1).standard_normal((8, 2)).astype("float32")
    monkeypatch.setattr(keras.random, "normal", lambda shape, **_: noise[: shape[0]])
    objective = part if isinstance(part, Objective) else ELBO(regularizers=[part])
    assert masks_rows(part)
    assert masks_rows(objective)
    rng = np.random.default_rng(0)
    mean, log_var, log_px = (
        rng.standard_normal(shape).astype("float32") for shape in ((8, 2), (8, 2), (8, 3))
    )
    log_px[rows:], mean[rows:] = -np.inf, 1e3
    z = mean[:, None] + np.float32([[-0.1], [0.1], [0.2]])
    valid = np.arange(8) < rows
    with np.errstate(over="ignore", invalid="ignore"):
        filled = make_terms(mean, log_var, log_px, z)._replace(valid=valid)
        alone = make_terms(mean[:rows], log_var[:rows], log_px[:rows], z[:rows])
        found, expected = (objective(terms) for terms in (filled, alone))
    value = batch_mean(ops.convert_to_tensor(found.per_example), valid)
    np.testing.assert_allclose(value, np.mean(expected.per_example), rtol=1e-5)
    np.testing.assert_allclose(found.batch, expected.batch, rtol=1e-5, atol=1e-6)
    assert set(found.report) == set(expected.report)
    objective.make_trackers()
    for tracker in objective.trackers:
        means = []
        for loss, mask in ((found, valid), (expected, None)):
            tracker.reset_state()
            tracker.add(loss.report[tracker.name], rows, mask)
            means.append(ops.convert_to_numpy(tracker.result()))
        np.testing.assert_allclose(*means, rtol=1e-5, atol=1e-6, err_msg=tracker.name)
