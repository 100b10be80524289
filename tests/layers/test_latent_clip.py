import keras
import numpy as np
import pytest
from keras import ops

from vaezoo.layers import LatentClip

DIM = 10


@pytest.fixture(scope="module")
def means():
    """Norms from far inside to far outside of the ball of radius 3 sqrt(10) = 9.49."""
    directions = np.random.default_rng(0).normal(size=(40, DIM))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return (directions * np.geomspace(1e-3, 1e6, 40)[:, None]).astype("float32")


@pytest.mark.parametrize(("factor", "radius"), [(3.0, 9.4868), (6.0, 18.9737)])
def test_norms_directions_and_identity_inside(means, factor, radius):
    clip = LatentClip(factor)
    clipped = np.asarray(clip(means))
    norms, before = np.linalg.norm(clipped, axis=1), np.linalg.norm(means, axis=1)
    assert factor * np.sqrt(DIM) == pytest.approx(radius, abs=1e-4)
    assert norms.max() <= factor * np.sqrt(DIM) * (1.0 + 1e-6)
    inside = before < 0.999 * radius
    np.testing.assert_array_equal(clipped[inside], means[inside])
    np.testing.assert_allclose(norms[before > radius], radius, rtol=1e-5)
    np.testing.assert_allclose(clipped / norms[:, None], means / before[:, None], rtol=1e-5)
    np.testing.assert_allclose(clip(clipped), clipped, rtol=1e-6)


def test_zero_vector_in_value_and_gradient(gradient):
    clip, zero = LatentClip(), np.zeros((2, DIM), "float32")
    np.testing.assert_array_equal(clip(zero), zero)
    slope = gradient(lambda mean: ops.sum(clip(mean) * ops.arange(DIM, dtype="float32")), zero)
    np.testing.assert_array_equal(slope, np.tile(np.arange(DIM), (2, 1)))


def test_no_radial_gradient_outside(means, gradient):
    clip, upstream = LatentClip(), np.random.default_rng(1).normal(size=DIM).astype("float32")
    outside = means[np.linalg.norm(means, axis=1) > 10.0]
    slope = gradient(lambda mean: ops.sum(clip(mean) * upstream), outside)
    norms = np.linalg.norm(outside, axis=1, keepdims=True)
    radial = (slope * outside / norms).sum(1)
    np.testing.assert_allclose(radial, 0.0, atol=1e-6 * np.linalg.norm(upstream))
    # The angular part is what the rescaling leaves: upstream, projected, over the norm's excess.
    unit = outside / norms
    angular = upstream - unit * (unit @ upstream)[:, None]
    expected = angular * 3.0 * np.sqrt(DIM) / norms
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)


def test_gradient_inside_is_the_identity(means, gradient):
    clip, inside = LatentClip(), means[np.linalg.norm(means, axis=1) < 9.0]
    slope = gradient(lambda mean: ops.sum(ops.square(clip(mean))), inside)
    np.testing.assert_allclose(slope, 2.0 * inside, rtol=1e-6)


def test_training_makes_no_difference(means):
    clip = LatentClip()
    np.testing.assert_array_equal(clip(means, training=True), clip(means, training=False))


def test_half_precision_goes_in_and_float32_comes_out(float32_policy):
    keras.config.set_dtype_policy("mixed_float16")
    # Its square is beyond float16.
    clipped = LatentClip()(np.full((1, DIM), 300.0, "float16"))
    assert keras.backend.standardize_dtype(clipped.dtype) == "float32"
    np.testing.assert_allclose(clipped, np.full((1, DIM), 3.0), rtol=1e-5)


@pytest.mark.parametrize("factor", [0.0, -3.0, float("nan")])
def test_factor_error(factor):
    with pytest.raises(
        ValueError, match=f"`factor` must be a finite, positive number. Received: factor={factor}"
    ):
        LatentClip(factor)


@pytest.mark.parametrize("compile", [False, True])
def test_identity_inside_does_not_depend_on_how_a_root_is_rounded(compile, monkeypatch, gradient):
    # Some processors approximate the root of 1.
    for name in ("sqrt", "rsqrt"):
        root = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda x, root=root: root(x) * np.float32(0.99999988))
    clip, inside = LatentClip(), np.random.default_rng(2).normal(size=(5, DIM)).astype("float32")
    call = _compiled(clip) if compile else clip
    np.testing.assert_array_equal(call(inside), inside)
    upstream = np.arange(DIM, dtype="float32")
    slope = gradient(lambda mean: ops.sum(clip(mean) * upstream), inside)
    np.testing.assert_array_equal(slope, np.tile(upstream, (5, 1)))


def _compiled(layer):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(layer)
    import tensorflow as tf

    return tf.function(layer, jit_compile=True, autograph=False)


def test_not_finite_rows_stay_to_themselves(gradient):
    mean = np.ones((3, DIM), "float32")
    mean[0, 0] = np.nan
    clipped = np.asarray(LatentClip()(mean))
    np.testing.assert_array_equal(clipped[1:], mean[1:])
    assert np.isnan(clipped[0, 0])
