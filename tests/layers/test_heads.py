import numpy as np
import pytest
from keras import ops
from scipy import optimize

from vaezoo.core.random import StatelessSeed
from vaezoo.layers import (
    CholeskyReparam,
    DeltaHead,
    FlowHead,
    GaussianHead,
    InverseAutoregressiveFlow,
    LatentClip,
    MeanBatchNorm,
    PointHead,
    PosteriorHead,
    VarianceDropout,
)
from vaezoo.layers.heads import bounded_log_var
from vaezoo.losses import PointMass, kl_divergence, kl_per_dimension, log_prob

DIM = 3


def _features(seed=0, batch=8, width=2 * DIM):
    return np.random.default_rng(seed).normal(size=(batch, width)).astype("float32")


def _transparent(head):
    """Lets the features through the projection unchanged."""
    width = head.projection.units
    head.build((None, width))
    weights = [np.eye(width), np.zeros(width)]
    head.projection.set_weights(weights[: len(head.projection.weights)])
    return head


# -- Gaussian ----------------------------------------------------------------------------------


def test_features_are_split_into_mean_and_log_variance():
    features = _features()
    posterior, z = _transparent(GaussianHead(DIM, 2))(features)
    np.testing.assert_allclose(posterior.mean, features[:, :DIM], rtol=1e-6)
    np.testing.assert_allclose(posterior.log_var, features[:, DIM:], rtol=1e-6)
    assert tuple(z.shape) == (8, 2, DIM)


def test_projection_is_affine():
    head, features = GaussianHead(DIM, kernel_initializer="he_normal", seed=0), _features(width=5)
    head(features)
    kernel, bias = head.projection.get_weights()
    assert abs(kernel).max() > 0.0
    head.projection.set_weights([kernel, bias + np.arange(6)])
    expected = features @ kernel + np.arange(6)
    np.testing.assert_allclose(head.posterior(features).mean, expected[:, :DIM], rtol=1e-5)
    bare = _transparent(GaussianHead(DIM, use_bias=False))
    assert len(bare.projection.weights) == 1


@pytest.mark.large_on_jax
def test_draws_come_from_the_posterior():
    count, features = 50_000, _features(batch=2)
    posterior, z = _transparent(GaussianHead(DIM, count, seed=0))(features)
    z, mean = np.asarray(z, "float64"), features[:, :DIM]
    sd = np.exp(0.5 * features[:, DIM:])
    np.testing.assert_array_less(abs(z.mean(1) - mean), 4.0 * sd / np.sqrt(count))
    error = 4.0 * sd**2 * np.sqrt(2.0 / count)
    np.testing.assert_array_less(abs(z.var(1) - sd**2), error)
    # The closed-form rate is the mean log-ratio of these draws.
    log_prior = -0.5 * (z**2 + np.log(2.0 * np.pi)).sum(-1)
    ratio = np.asarray(log_prob(posterior, z.astype("float32"))) - log_prior
    error = abs(ratio.mean(1) - np.asarray(kl_divergence(posterior)))
    np.testing.assert_array_less(error, 4.0 * ratio.std(1) / np.sqrt(count))


def test_layers_on_the_mean_come_in_order():
    features = _features()
    clip, norm = LatentClip(0.5), MeanBatchNorm(2.0)
    head = _transparent(GaussianHead(DIM, mean_norm=MeanBatchNorm(2.0), clip=LatentClip(0.5)))
    posterior, _ = head(features, training=True)
    expected = np.asarray(clip(norm(features[:, :DIM], training=True)))
    np.testing.assert_allclose(posterior.mean, expected, rtol=1e-5)
    assert np.linalg.norm(expected, axis=1).max() == pytest.approx(0.5 * np.sqrt(DIM), rel=1e-5)


def test_log_variance_is_held_before_it_is_floored():
    features = np.tile(np.float32([-50.0, 0.0, 2.0]), (4, 2))
    head = _transparent(GaussianHead(DIM, min_log_var=-1.0))
    np.testing.assert_allclose(head.posterior(features).log_var[0], [-1.0, 0.0, 2.0])
    dropout = VarianceDropout(0.5, floor=0.1)
    head = _transparent(GaussianHead(DIM, variance_dropout=dropout, min_log_var=-1.0))
    expected = np.log(np.exp([-1.0, 0.0, 2.0]) + 0.1)
    np.testing.assert_allclose(head.posterior(features).log_var[0], expected, rtol=1e-5)


@pytest.mark.large_on_jax
def test_scalar_scale_is_shared_by_all_dimensions():
    features = _features(width=DIM + 1)
    head = _transparent(GaussianHead(DIM, scale="scalar"))
    assert head.projection.units == DIM + 1
    shared = np.repeat(features[:, DIM:], DIM, axis=1)
    np.testing.assert_allclose(head(features)[0].log_var, shared, rtol=1e-6)
    head = _transparent(GaussianHead(DIM, scale="scalar", reparam=CholeskyReparam(1)))
    diagonal = np.diagonal(np.asarray(head(features)[0].scale_tril), axis1=1, axis2=2)
    np.testing.assert_allclose(diagonal, np.exp(shared), rtol=1e-5)


def test_posterior_draws_nothing():
    features = _features()
    head, twin = (_transparent(GaussianHead(DIM, seed=4)) for _ in range(2))
    np.testing.assert_array_equal(head(features)[1], twin(features)[1])
    twin.posterior(features)
    np.testing.assert_array_equal(head(features)[1], twin(features)[1])


@pytest.mark.large_on_jax
@pytest.mark.parametrize("reparam", [None, CholeskyReparam(1)], ids=["diagonal", "cholesky"])
def test_sample_draws_from_a_given_posterior(reparam):
    head, features = _transparent(GaussianHead(DIM, reparam=reparam)), _features()
    posterior = head.posterior(features, training=True)
    z, _ = head.sample_and_log_prob(posterior, 20_000, StatelessSeed(3))
    # The former name.
    np.testing.assert_array_equal(z, head.sample(posterior, 20_000, StatelessSeed(3)))
    log_q = np.asarray(head.log_prob(posterior, z), "float64")
    np.testing.assert_array_equal(log_q, log_prob(posterior, z))
    # Minus the entropy is its expectation: D/2 log(2 pi e) + log sd.
    log_det = (
        0.5 * np.asarray(posterior.log_var).sum(1)
        if reparam is None
        else np.log(np.diagonal(np.asarray(posterior.scale_tril), axis1=1, axis2=2)).sum(1)
    )
    expected = -0.5 * DIM * np.log(2.0 * np.pi * np.e) - log_det
    error = 4.0 * np.sqrt(DIM / 2 / 20_000)
    np.testing.assert_array_less(abs(log_q.mean(1) - expected), error)


def test_gradient_reaches_the_features_through_the_draw(gradient):
    features = _features()
    head = _transparent(GaussianHead(DIM, 1, seed=0))
    slope = gradient(lambda value: ops.sum(head(value)[1]), features)
    twin = _transparent(GaussianHead(DIM, 1, seed=0))
    z = np.asarray(twin(features)[1])[:, 0]
    np.testing.assert_allclose(slope[:, :DIM], np.ones((8, DIM)), rtol=1e-6)
    np.testing.assert_allclose(slope[:, DIM:], 0.5 * (z - features[:, :DIM]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "smallest", "advised"),
    [
        ({}, 1, 1),
        ({"mean_norm": MeanBatchNorm(0.5)}, 2, 1),
        ({"reparam": CholeskyReparam(1)}, DIM + 1, 2 * DIM),
    ],
    ids=["plain", "normalized", "cholesky"],
)
def test_batch_sizes_are_known_before_building(arguments, smallest, advised):
    head = GaussianHead(DIM, **arguments)
    assert not head.built
    assert (head.min_batch_size, head.advised_batch_size) == (smallest, advised)


# -- delta -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delta", "low", "high"), [(0.1, 0.493239, 1.772250), (0.15, 0.411113, 1.986247)]
)
def test_range_of_variances(delta, low, high):
    head = DeltaHead(DIM, delta)
    np.testing.assert_allclose([head.low**2, head.high**2], [low, high], atol=1e-6)

    def excess(variance):
        return np.log(variance) - variance + 2.0 * delta + 1.0

    roots = [optimize.brentq(excess, 1e-6, 1.0), optimize.brentq(excess, 1.0, 10.0)]
    np.testing.assert_allclose([head.low**2, head.high**2], roots, rtol=1e-6)


@pytest.mark.parametrize("delta", [0.01, 0.1, 0.15, 1.0])
def test_rate_never_falls_below_delta(delta):
    values = np.array([-1e30, -1e4, -20.0, -3.0, 0.0, 1e-3, 2.0, 5.0], "float32")
    shift, raw = (grid.ravel() for grid in np.meshgrid(values, [*values, 20.0, 1e4, 1e30]))
    features = np.stack([shift, raw], axis=1).astype("float32")
    posterior, z = _transparent(DeltaHead(1, delta))(features)
    rate = np.asarray(kl_per_dimension(posterior), "float64")[:, 0]
    assert np.all(np.isfinite(np.asarray(z)))
    floor = delta + 5e-7
    np.testing.assert_allclose(rate, floor + 0.5 * np.maximum(shift, 0.0), rtol=1e-6, atol=1e-6)
    assert rate.min() > floor - 1e-6


def test_large_shifts_are_finite(gradient):
    features = np.float32([[1e4, 3.0], [1e30, -1e30], [-1e30, 1e30], [0.0, 0.0]])
    head = _transparent(DeltaHead(1))
    rate = np.asarray(kl_per_dimension(head.posterior(features)))[:, 0]
    np.testing.assert_allclose(rate[:2], 0.1 + 0.5 * features[:2, 0], rtol=1e-5)
    slope = gradient(lambda value: ops.sum(kl_divergence(head.posterior(value))), features)
    assert np.all(np.isfinite(slope))
    np.testing.assert_allclose(slope[0], [0.5, 0.0], atol=1e-3)


def test_standard_deviation_keeps_a_fiftieth_of_its_range_from_the_lower_end():
    head = _transparent(DeltaHead(1, 0.1))
    posterior = head.posterior(np.float32([[0.0, -1e4], [0.0, 0.0], [0.0, 1e4]]))
    sd = np.exp(0.5 * np.asarray(posterior.log_var))[:, 0]
    shares = (sd - head.low) / (head.high - head.low)
    np.testing.assert_allclose(shares, [0.02, 0.5, 1.0], atol=1e-6)
    np.testing.assert_allclose(sd[0] ** 2, 0.511, atol=5e-4)


def test_delta_means_are_positive_at_the_ends_of_the_range_too():
    head = _transparent(DeltaHead(1, 0.1, num_samples=4))
    posterior, z = head(np.float32([[-5.0, 1e4], [-5.0, -1e4], [0.0, 0.0]]))
    mean = np.asarray(posterior.mean)
    # The 1e-6 under the root keeps its gradient finite where there is no slack.
    assert mean.min() >= 1e-3 * (1.0 - 1e-5)
    np.testing.assert_allclose(mean[0], 1e-3, rtol=0.2)
    assert tuple(z.shape) == (3, 4, 1)


# -- point -------------------------------------------------------------------------------------


def test_point_head_repeats_the_projection():
    features = _features(width=DIM)
    head = _transparent(PointHead(DIM, 2))
    posterior, z = head(features)
    assert isinstance(posterior, PointMass)
    np.testing.assert_allclose(posterior.mean, features)
    np.testing.assert_allclose(z, np.repeat(features[:, None], 2, axis=1))
    np.testing.assert_allclose(
        head.sample_and_log_prob(posterior, 3, StatelessSeed(0))[0][:, 2], features
    )
    np.testing.assert_array_equal(head.log_prob(posterior, z), np.full((8, 2), np.inf))
    assert not head.has_density


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [GaussianHead, DeltaHead, PointHead])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, None])
def test_size_errors(make, value):
    with pytest.raises(ValueError, match=f"`latent_dim` must be a positive .*latent_dim={value}"):
        make(value)
    with pytest.raises(ValueError, match=f"`num_samples` must be a positive .*={value}"):
        make(3, num_samples=value)


def test_gaussian_head_errors():
    with pytest.raises(
        ValueError, match="`scale` must be one of 'vector', 'scalar'. .*scale='full'"
    ):
        GaussianHead(3, scale="full")
    message = "`reparam` must draw.*reparam.num_samples=2, num_samples=1"
    with pytest.raises(ValueError, match=message):
        GaussianHead(3, reparam=CholeskyReparam(2))


@pytest.mark.parametrize("delta", [0.0, -0.1, float("nan")])
def test_delta_error(delta):
    with pytest.raises(
        ValueError, match=f"`delta` must be a finite, positive number. Received: delta={delta}"
    ):
        DeltaHead(3, delta)


@pytest.mark.parametrize("make", [GaussianHead, DeltaHead, PointHead])
def test_features_must_be_flat(make):
    with pytest.raises(ValueError, match=r"shape \(batch, F\). Received: shape=\(2, 4, 4, 1\)"):
        make(3)(np.zeros((2, 4, 4, 1), "float32"))


def test_base_leaves_its_parameters_open():
    with pytest.raises(NotImplementedError):
        PosteriorHead(3).parameters(None)


# -- the bound on log-variances -------------------------------------------------------------------


def test_bound_is_the_identity_inside_in_value_and_gradient(gradient):
    inside = np.random.default_rng(0).uniform(-30.0, 20.0, 1000).astype("float32")
    inside[:4] = -30.0, 20.0, 0.0, np.float32(1e-7)
    np.testing.assert_array_equal(bounded_log_var(inside), inside)
    np.testing.assert_array_equal(bounded_log_var(0.5 * inside, 2.0), 0.5 * inside)
    upstream = np.arange(1000, dtype="float32")
    slope = gradient(lambda v: ops.sum(bounded_log_var(v) * upstream), inside)
    np.testing.assert_array_equal(slope, upstream)


def test_bound_continues_variance_and_precision_along_their_tangents(gradient):
    outside = np.float32([20.5, 84.0, 14_024.0, 1e8, -30.5, -700.0, -14_024.0])
    above, below = outside > 0, outside < 0
    found = np.asarray(bounded_log_var(outside), "float64")
    np.testing.assert_allclose(found[above], 20.0 + np.log1p(outside[above] - 20.0), rtol=1e-6)
    np.testing.assert_allclose(found[below], -30.0 - np.log1p(-30.0 - outside[below]), rtol=1e-6)
    # In half the unit, half of it.
    np.testing.assert_allclose(2.0 * np.asarray(bounded_log_var(outside / 2.0, 2.0)), found, 1e-6)
    # The KL's gradient is finite everywhere and points back inside.
    slope = gradient(
        lambda v: ops.sum(ops.exp(bounded_log_var(v)) - bounded_log_var(v)) / 2.0, outside
    )
    assert np.all(np.isfinite(slope))
    assert np.all(slope[above] > 0)
    assert np.all(slope[below] < 0)
    np.testing.assert_allclose(slope[above], np.exp(20.0) / 2.0, rtol=1e-4)


def test_bound_keeps_what_is_not_finite_in_its_place():
    found = np.asarray(bounded_log_var(np.float32([np.nan, 1.0, np.inf])))
    assert np.isnan(found[0])
    np.testing.assert_array_equal(found[1:], [1.0, np.inf])


@pytest.mark.parametrize(
    "parts", [{}, {"scale": "scalar"}, {"variance_dropout": VarianceDropout(0.9)}]
)
def test_gaussian_heads_are_bounded(parts):
    head = GaussianHead(DIM, project=False, **parts)
    features = np.full((2, DIM + head._num_scales), 14_024.0, "float32")
    posterior, z = head(features)
    np.testing.assert_allclose(posterior.log_var, 20.0 + np.log1p(14_004.0), rtol=1e-5)
    assert np.all(np.isfinite(z))
    assert np.all(np.isfinite(kl_divergence(posterior)))


def test_log_standard_deviations_are_bounded_at_half():
    head = GaussianHead(DIM, project=False, reparam=CholeskyReparam(1))
    features = np.full((2, 2 * DIM), 7012.0, "float32")
    # The factor is that of N(0, I) before the first step.
    scale = np.diagonal(np.asarray(head(features)[0].scale_tril), axis1=1, axis2=2)
    np.testing.assert_allclose(np.log(scale), 10.0 + 0.5 * np.log1p(14_004.0), rtol=1e-5)


@pytest.mark.parametrize("raw", [1e6, -1e4])
def test_the_base_of_a_flow_is_bounded(raw):
    flow = InverseAutoregressiveFlow(1, (4,))
    head = _transparent(FlowHead(DIM, flow, context_dim=0))
    features = np.concatenate([np.zeros((2, DIM)), np.full((2, DIM), raw)], 1).astype("float32")
    log_var = 2.0 * (np.log(raw) if raw > 0 else raw)
    np.testing.assert_allclose(
        head.posterior(features).base_log_var, bounded_log_var(np.float32(log_var)), rtol=1e-5
    )
