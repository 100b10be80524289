import math

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.layers import FlatSoftmax, HierarchicalSoftmax
from vaezoo.losses import AuxiliarySoftmax, InformationWeightedELBO
from vaezoo.metrics import mutual_information

LATENT = 2


def make(num_examples=12, softmax=FlatSoftmax, num_classes=None, row_step=None, **options):
    """The same weights with every call; `softmax` is a class, of `num_classes` classes."""
    keras.utils.set_random_seed(0)
    steps = {"row_learning_rate": row_step} if row_step else {}
    part = AuxiliarySoftmax(
        num_examples=num_examples,
        network=keras.Sequential([keras.layers.Dense(16, "relu")]),
        softmax=softmax(num_classes or num_examples, **steps),
        **options,
    )
    part.prepare(LATENT)
    return part


class Exact(keras.layers.Layer):
    """The posterior over examples itself, for Gaussian q(z|x_i): what a classifier can learn."""

    def __init__(self, mean, log_var):
        super().__init__()
        self.mean, self.log_var, self.num_classes = mean, log_var, len(mean)

    def log_probabilities(self, z):
        distance = ops.square(ops.expand_dims(z, 1) - self.mean) / np.exp(self.log_var)
        return ops.log_softmax(-0.5 * ops.sum(distance + self.log_var, axis=-1), axis=1)

    def log_prob(self, h, index):
        return ops.take_along_axis(self.log_probabilities(h), index[:, None], axis=1)[:, 0]

    def entropy(self, h):
        log_s = self.log_probabilities(h)
        return -ops.sum(ops.exp(log_s) * log_s, axis=1)


@pytest.fixture
def batch(make_terms):
    """Function of a seed: terms of 12 examples with 3 draws each, and their indices."""

    def draw(seed=0, size=12, samples=3, classes=12):
        generator = np.random.default_rng(seed)
        mean, log_var = generator.normal(size=(2, size, LATENT)).astype("float32")
        noise = generator.normal(size=(size, samples, LATENT)).astype("float32")
        z = mean[:, None] + np.exp(0.5 * log_var)[:, None] * noise
        index = generator.integers(0, classes, size).astype("int32")
        return make_terms(mean, log_var, z=z)._replace(index=index)

    return draw


def report_of(part, terms):
    part.classifier_steps = 0
    loss = part(terms, training=True)
    return ops.convert_to_numpy(loss.per_example), {
        name: ops.convert_to_numpy(value) for name, value in loss.report.items()
    }


# -- estimates -----------------------------------------------------------------------------------


def test_exact_classifier_gives_the_mutual_information(make_terms):
    generator = np.random.default_rng(0)
    examples, samples = 20, 400
    mean = 1.5 * generator.normal(size=(examples, LATENT)).astype("float32")
    log_var = generator.normal(size=mean.shape).astype("float32") - 1.0
    noise = generator.normal(size=(examples, samples, LATENT)).astype("float32")
    z = mean[:, None] + np.exp(0.5 * log_var)[:, None] * noise
    terms = make_terms(mean, log_var, z=z)._replace(index=np.arange(examples))
    by_estimator = {}
    for estimator in ("ce", "entropy"):
        part = AuxiliarySoftmax(
            num_examples=examples,
            network=keras.layers.Identity(),
            softmax=Exact(mean, log_var),
            estimator=estimator,
        )
        by_estimator[estimator] = report_of(part, terms)[1]["mutual_information"]
    # An independent estimate of the same quantity, from draws of its own.
    posterior = terms.posterior
    expected = mutual_information(posterior, num_samples=samples, seed=1)
    bound = 5 * (expected.standard_error + by_estimator["ce"].std() / math.sqrt(examples * samples))
    for values in by_estimator.values():
        assert abs(values.mean() - expected.value) < bound + 0.02
        assert 0 < values.mean() < math.log(examples)


@pytest.mark.large
@pytest.mark.parametrize("density", ["sampled", "analytic"])
@pytest.mark.parametrize("softmax", [FlatSoftmax, HierarchicalSoftmax])
def test_divergence_is_kl_minus_log_n_plus_classifier_loss(batch, softmax, density):
    part = make(softmax=softmax, density=density)
    for seed in range(3):
        terms = batch(seed)
        _, report = report_of(part, terms)
        kl = np.mean(terms.log_qz - terms.log_pz, axis=1) if density == "sampled" else terms.kl
        expected = kl - math.log(12) + report["classifier_loss"]
        np.testing.assert_allclose(report["marginal_divergence"], expected, rtol=1e-5, atol=1e-5)
        # The same by way of log q(z) = log q(z|x) - log N - log s.
        total = report["mutual_information_bound"] + report["marginal_divergence"]
        np.testing.assert_allclose(total, kl, rtol=1e-5, atol=1e-5)


@pytest.mark.large_on_jax
@pytest.mark.parametrize(
    ("estimator", "expected"),
    [("ce", 0.0), ("entropy", 0.0), ("fano_low", 0.0), ("fano_hat", 6.899848)],
)
def test_estimates_by_a_uniform_classifier(batch, estimator, expected):
    part = make(1000, estimator=estimator)
    for variable in part.softmax.weights:
        variable.assign(0.0 * variable)
    _, report = report_of(part, batch(classes=1000))
    np.testing.assert_allclose(report["classifier_loss"], 6.907755, rtol=1e-6)
    np.testing.assert_allclose(report["mutual_information"], expected, rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_fano_estimates_enclose_the_entropy(batch, scale):
    found, terms = {}, batch()
    for estimator in ("entropy", "fano_low", "fano_hat", "ce"):
        part = make(estimator=estimator)
        for variable in part.softmax.weights:
            variable.assign(scale * np.random.default_rng(1).normal(size=variable.shape))
        _, found[estimator] = report_of(part, terms)
    entropy, low, high = (
        found[name]["mutual_information"] for name in ("entropy", "fano_low", "fano_hat")
    )
    z = ops.reshape(terms.z, (-1, LATENT))
    log_s = part.softmax.log_prob(part.network(z), np.repeat(terms.index, 3))
    error = 1.0 - np.exp(ops.convert_to_numpy(log_s)).reshape(12, 3).mean(axis=1)
    assert np.all(high - entropy >= -1e-5)
    assert np.all(high - entropy <= error * math.log(11) + 1e-5)
    assert np.all(low <= entropy + 1e-5)
    assert np.max(high - entropy) > 1e-3
    ce = found["ce"]
    np.testing.assert_allclose(
        ce["mutual_information"], ce["mutual_information_bound"], rtol=1e-5, atol=1e-5
    )


def test_bound_is_no_less_than_that_of_mine():
    # T_ij of pairs, examples equally likely: E T_ii - E_z log E_x exp T >= E T_ii - log E E exp T.
    for seed in range(20):
        generator = np.random.default_rng(seed)
        logits = generator.uniform(0.1, 5.0) * generator.normal(size=(9, 9)).astype("float32")
        softmax = FlatSoftmax(9, use_bias=False)
        part = AuxiliarySoftmax(
            num_examples=9, network=keras.layers.Identity(), softmax=softmax, estimator="ce"
        )
        part.prepare(9)
        softmax.weights[0].assign(logits.T)
        z = np.eye(9, dtype="float32")
        log_s = ops.convert_to_numpy(softmax.log_prob(z, np.arange(9)))
        bound = np.mean(math.log(9) + log_s)
        mine = np.mean(np.diag(logits)) - np.log(np.mean(np.exp(logits.astype("float64"))))
        assert bound >= mine - 1e-6


def test_shared_classes_spread_the_examples_evenly(batch):
    part = make(13, num_classes=4)
    labels = ops.convert_to_numpy(part.label_of(np.arange(13)))
    assert sorted(np.bincount(labels)) == [3, 3, 3, 4]
    # No simple function of the order, which may be sorted by class.
    assert np.any(labels != np.arange(13) % 4)
    _, report = report_of(part, batch())
    np.testing.assert_allclose(
        report["mutual_information_bound"], math.log(4) - report["classifier_loss"], rtol=1e-5
    )
    kl = np.mean(batch().log_qz - batch().log_pz, axis=1)
    expected = kl - math.log(13) + report["classifier_loss"]
    np.testing.assert_allclose(report["marginal_divergence"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.large
def test_sampled_entropy_measures_the_same(batch):
    terms = batch(samples=3000)
    found = {
        name: report_of(make(softmax=HierarchicalSoftmax, alpha=0.0, estimator=name), terms)[1]
        for name in ("entropy", "entropy_sampled")
    }
    exact, sampled = (values["mutual_information"] for values in found.values())
    # A path of 4 decisions, each with at most log 2 nats and a spread below that.
    assert np.all(np.abs(exact - sampled) < 5 * 4 * math.log(2) / math.sqrt(3000))


# -- weights and gradients -----------------------------------------------------------------------


def test_loss_is_the_weighted_sum(batch):
    per_example, report = report_of(make(alpha=0.3, beta=2.0), batch())
    expected = 0.3 * report["mutual_information"] + 2.0 * report["marginal_divergence"]
    np.testing.assert_allclose(per_example, expected, rtol=1e-5, atol=1e-5)
    joint, _ = report_of(make(alpha=0.3, beta=2.0, classifier_grad="joint"), batch())
    np.testing.assert_allclose(joint, expected + report["classifier_loss"], rtol=1e-5, atol=1e-5)


def test_nothing_is_charged_outside_of_training(batch):
    loss = make()(batch(), training=False)
    np.testing.assert_array_equal(loss.per_example, 0.0)
    assert loss.report == {}
    objective = InformationWeightedELBO([make()])
    terms = batch()
    expected = ops.convert_to_numpy(terms.distortion) + terms.kl
    np.testing.assert_allclose(objective(terms, training=False).per_example, expected, rtol=1e-6)


@pytest.mark.large
@pytest.mark.parametrize(
    "kind", [{}, {"softmax": HierarchicalSoftmax, "row_step": 0.05}], ids=["flat", "tree"]
)
@pytest.mark.one_backend
def test_classifier_learns_from_its_own_loss_alone(batch, kind):
    # Weights of a hundred on what its loss is not: the same steps.
    losses, weights = [], []
    for alpha in (0.0, 100.0):
        part = make(alpha=alpha, beta=alpha, optimizer=keras.optimizers.Adam(0.02), **kind)
        terms = batch(samples=20)._replace(index=np.arange(12))
        losses.append(
            [
                ops.convert_to_numpy(part(terms, training=True).report["classifier_loss"]).mean()
                for _ in range(30)
            ]
        )
        weights.append([ops.convert_to_numpy(v) for v in part._learned])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert losses[0][-1] < losses[0][0] - 0.3
    for first, second in zip(*weights, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)


@pytest.mark.large
def test_more_classifier_steps_learn_faster(batch):
    found = []
    for steps in (1, 5):
        part = make(classifier_steps=steps, optimizer=keras.optimizers.Adam(0.01))
        terms = batch(samples=20)._replace(index=np.arange(12))
        part(terms, training=True)
        assert int(part.optimizer.iterations) == steps
        report = part(terms, training=True).report
        found.append(ops.convert_to_numpy(report["classifier_loss"]).mean())
    assert found[1] < found[0]


def test_classifier_stays_frozen_for_the_model():
    part = make()
    part.trainable = True
    assert part.trainable_variables == []
    assert not any(variable.trainable for variable in part.variables)


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1.0}, "`alpha` must be a finite, non-negative number. Received: alpha=-1.0"),
        (
            {"beta": float("nan")},
            "`beta` must be a finite, non-negative number. Received: beta=nan",
        ),
        ({"num_examples": 0}, "`num_examples` must be an integer of at least 2"),
        ({"num_classes": 13}, "softmax.num_classes=13, num_examples=12"),
        ({"estimator": "fano"}, "`estimator` must be one of 'ce', 'entropy'"),
        ({"classifier_grad": "both"}, "`classifier_grad` must be one of 'detached', 'joint'"),
        ({"density": "exact"}, "`density` must be one of 'sampled', 'analytic'"),
        ({"classifier_steps": 0}, "`classifier_steps` must be a positive integer"),
        ({"estimator": "entropy_sampled"}, "alpha=1.0, softmax=FlatSoftmax"),
    ],
)
def test_errors_name_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        make(**{"num_classes": 12, **options})


def test_fano_hat_as_a_penalty_warns():
    with pytest.warns(UserWarning, match="as a penalty"):
        make(estimator="fano_hat")


def test_training_without_indices_is_refused(batch):
    with pytest.raises(ValueError, match="needs the index of each training example"):
        make()(batch()._replace(index=None), training=True)
