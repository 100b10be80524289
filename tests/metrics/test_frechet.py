import json
import math

import numpy as np
import pytest

from vaezoo.metrics.features import FeatureNetwork
from vaezoo.metrics.frechet import frechet_distance, gaussian_frechet_distance, kernel_distance

FLAT = FeatureNetwork(lambda images: images.reshape(len(images), -1), name="flat")


def images(n, seed, shift=0.0, scale=0.1, shape=(2, 2, 1)):
    noise = np.random.default_rng(seed).normal(size=(n, *shape))
    return np.clip(0.5 + shift + scale * noise, 0.0, 1.0).astype("float32")


class Generator:
    """A model, as far as these metrics look."""

    def generate(self, num, seed, mean):
        self.called = (num, seed, mean)
        return images(num, seed)


def test_distance_of_two_gaussians():
    assert gaussian_frechet_distance(0.0, 1.0, 1.0, 4.0) == pytest.approx(2.0, abs=1e-12)


def test_distance_of_commuting_and_of_rotated_covariances():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    first, second = rng.uniform(0.1, 3.0, (2, 5))
    mean1, mean2 = rng.normal(size=(2, 5))
    expected = np.sum((mean1 - mean2) ** 2) + np.sum((np.sqrt(first) - np.sqrt(second)) ** 2)
    cov1, cov2 = (rotation * values @ rotation.T for values in (first, second))
    assert gaussian_frechet_distance(mean1, cov1, mean2, cov2) == pytest.approx(expected, abs=1e-10)


def test_distance_against_the_root_of_the_product():
    linalg = pytest.importorskip("scipy.linalg")
    factors = np.random.default_rng(1).normal(size=(2, 6, 9))
    cov1, cov2 = (factor @ factor.T for factor in factors)
    root = np.real(linalg.sqrtm(cov1 @ cov2))
    expected = np.trace(cov1 + cov2 - 2 * root)
    value = gaussian_frechet_distance(np.zeros(6), cov1, np.zeros(6), cov2)
    assert value == pytest.approx(expected, abs=1e-8)
    assert gaussian_frechet_distance(np.zeros(6), cov2, np.zeros(6), cov1) == pytest.approx(value)


def test_singular_covariances_are_exact_and_jitter_adds_to_both():
    # Points on two lines: the distance of N(0, diag(4, 0)) and N(0, diag(0, 9)).
    cov1, cov2, zero = np.diag([4.0, 0.0]), np.diag([0.0, 9.0]), np.zeros(2)
    assert gaussian_frechet_distance(zero, cov1, zero, cov2) == pytest.approx(13.0, abs=1e-12)
    expected = (math.sqrt(4.5) - math.sqrt(0.5)) ** 2 + (math.sqrt(9.5) - math.sqrt(0.5)) ** 2
    assert gaussian_frechet_distance(zero, cov1, zero, cov2, jitter=0.5) == pytest.approx(expected)


def test_sets_are_compared_by_their_unbiased_moments():
    generated, data = images(300, 0, 0.1), images(400, 1, scale=0.05)
    result = frechet_distance(generated, data, features=FLAT)
    moments = []
    for array in (generated, data):
        flat = array.reshape(len(array), -1).astype("float64")
        moments += [flat.mean(axis=0), np.cov(flat, rowvar=False)]
    assert result.value == pytest.approx(gaussian_frechet_distance(*moments), rel=1e-9)
    assert result.extra["jitter"] == 0.0
    assert result.count == 300
    assert result.settings["num_real"] == 400


def test_a_set_is_at_no_distance_from_itself():
    data = images(100, 0)
    assert frechet_distance(data, data, features="pixels").value == pytest.approx(0.0, abs=1e-12)
    # Fewer images than pixels: singular.
    data = images(40, 0, shape=(8, 8, 1))
    result = frechet_distance(data, data, features="pixels")
    assert result.value == pytest.approx(0.0, abs=1e-6)
    assert result.extra["jitter"] == 1e-6


def test_jackknife_leaves_blocks_out():
    generated, data = images(60, 0, 0.1), images(60, 1)
    result = frechet_distance(generated, data, features=FLAT, num_blocks=60, seed=3)
    rng = np.random.default_rng(3)
    left_out = []
    for row1, row2 in zip(rng.permutation(60), rng.permutation(60), strict=True):
        parts = np.delete(generated, row1, axis=0), np.delete(data, row2, axis=0)
        left_out.append(frechet_distance(*parts, features=FLAT, num_blocks=0).value)
    left_out = np.array(left_out)
    error = math.sqrt(59 / 60 * np.sum((left_out - left_out.mean()) ** 2))
    assert result.standard_error == pytest.approx(error, rel=1e-6)
    corrected = 60 * result.value - 59 * left_out.mean()
    assert result.extra["bias_corrected"] == pytest.approx(corrected, rel=1e-6)


def test_standard_error_is_the_spread_over_repetitions_and_the_bias_falls():
    # Wide enough not to be clipped: N(0.5, 0.1) against N(0.6, 0.1) in 4 pixels, at distance 0.04.
    results = [
        frechet_distance(images(400, 2 * i, 0.1), images(400, 2 * i + 1), features=FLAT)
        for i in range(40)
    ]
    values = np.array([result.value for result in results])
    errors = np.array([result.standard_error for result in results])
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.35)
    corrected = np.array([result.extra["bias_corrected"] for result in results])
    spread = values.std(ddof=1) / math.sqrt(40)
    assert abs(corrected.mean() - 0.04) < 4 * spread
    assert values.mean() > corrected.mean()


def test_no_blocks_give_no_standard_error():
    result = frechet_distance(images(20, 0), images(20, 1), features=FLAT, num_blocks=0)
    assert math.isnan(result.standard_error)
    assert "bias_corrected" not in result.extra


def test_kernel_distance_is_unbiased_around_zero():
    results = [
        kernel_distance(images(100, 2 * i), images(120, 2 * i + 1), features=FLAT)
        for i in range(40)
    ]
    values = np.array([result.value for result in results])
    assert abs(values.mean()) < 4 * values.std(ddof=1) / math.sqrt(40)
    assert values.min() < 0.0
    scores = values / [result.standard_error for result in results]
    # 10 blocks each: a t of 9 degrees of freedom, whose standard deviation is 1.13.
    assert 0.7 < scores.std() < 1.7


def test_kernel_distance_against_a_double_loop():
    x, y = images(6, 0, 0.2), images(7, 1)
    result = kernel_distance(x, y, features=FLAT, num_blocks=1)

    def kernel(a, b):
        return (float(np.dot(a.ravel().astype("float64"), b.ravel())) / 4 + 1) ** 3

    def off_diagonal(values):
        pairs = [(a, b) for i, a in enumerate(values) for j, b in enumerate(values) if i != j]
        return np.mean([kernel(a, b) for a, b in pairs])

    expected = off_diagonal(x) + off_diagonal(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert result.value == pytest.approx(expected, abs=1e-6)
    assert math.isnan(result.standard_error)
    assert kernel_distance(images(90, 0, 0.2), images(90, 1), features=FLAT).value > 0.1


def test_a_model_generates_means_as_many_as_there_are_data():
    model, data = Generator(), images(50, 1)
    result = frechet_distance(model, data, features=FLAT, seed=7)
    assert model.called == (50, 7, True)
    assert result.value == frechet_distance(images(50, 7), data, features=FLAT, seed=7).value
    assert frechet_distance(model, data, features=FLAT, num_samples=30).count == 30
    assert frechet_distance(images(50, 7), data, features=FLAT, num_samples=30).count == 30


@pytest.mark.large_on_jax
def test_a_vae_is_scored_by_the_images_it_generates():
    from vaezoo.zoo import VAE, networks

    data = images(20, 1, shape=(4, 4, 1))
    encoder, decoder = networks.make("mlp", latent_dim=2, input_shape=(4, 4, 1), hidden_units=(8,))
    model = VAE(encoder, decoder, latent_dim=2, seed=0)
    model(data[:2])
    result = frechet_distance(model, data, features="pixels", num_samples=30, seed=2)
    generated = model.generate(30, seed=2)
    assert result.value == frechet_distance(generated, data, features="pixels", seed=2).value
    assert result.value > 0.0
    json.dumps(result.to_dict(), allow_nan=False)


def test_value_range_is_scaled_and_generated_values_clipped():
    generated, data = images(50, 0), images(50, 1)
    expected = frechet_distance(generated, data, features=FLAT).value
    symmetric = frechet_distance(
        2 * generated - 1, 2 * data - 1, features=FLAT, value_range=(-1.0, 1.0)
    )
    assert symmetric.value == pytest.approx(expected, rel=1e-3)
    beyond = frechet_distance(np.where(generated > 0.6, 9.0, generated), data, features=FLAT)
    clipped = frechet_distance(np.where(generated > 0.6, 1.0, generated), data, features=FLAT)
    assert beyond.value == clipped.value


def test_fingerprint_tells_protocols_apart():
    generated, data = images(50, 0), images(50, 1)

    def fingerprint(generated=generated, data=data, function=frechet_distance, **arguments):
        arguments = {"features": FLAT, **arguments}
        return function(generated, data, **arguments).settings["fingerprint"]

    reference = fingerprint()
    assert len(reference) == 12
    # Another model, other random numbers: still to be compared.
    assert fingerprint(images(50, 5), seed=3, num_blocks=5) == reference
    others = [
        fingerprint(num_samples=40),
        fingerprint(data=images(50, 2)),
        fingerprint(data=data[:40]),
        fingerprint(features="pixels"),
        fingerprint(value_range=(0.0, 2.0)),
        fingerprint(function=kernel_distance),
    ]
    assert len({reference, *others}) == 7


DATA = images(30, 0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"features": None}, ValueError, "`features` must be chosen.*'inception'.*'pixels'"),
        ({"features": "vgg"}, ValueError, "features='vgg'"),
        ({"features": "classifier"}, ValueError, "`labels` must be given"),
        ({"generated": object()}, TypeError, "a model with `generate`. Received: object"),
        ({"generated": DATA[:, :1]}, ValueError, "must have the shape of `data`"),
        ({"generated": DATA * np.nan}, ValueError, "`generated` must be finite"),
        ({"generated": DATA[:2]}, ValueError, "at least 3 examples"),
        ({"data": [0.0]}, TypeError, "`data` must be an array of images. Received: list"),
        ({"data": 255 * DATA}, ValueError, r"`data` must lie in `value_range`, \[0, 1\]"),
        ({"num_samples": 31}, ValueError, "num_samples=31, 30 images"),
        ({"num_samples": 2}, ValueError, "num_samples=2"),
        ({"num_blocks": 1}, ValueError, "num_blocks=1"),
        ({"num_blocks": 31}, ValueError, "num_blocks=31 for 30 images"),
        ({"value_range": (1.0, 0.0)}, ValueError, r"value_range=\(1.0, 0.0\)"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
    ],
)
def test_frechet_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        frechet_distance(**{"generated": DATA, "data": DATA, "features": FLAT, **arguments})


@pytest.mark.parametrize("num_blocks", [0, 16])
def test_kernel_errors(num_blocks):
    with pytest.raises(ValueError, match=f"num_blocks={num_blocks}"):
        kernel_distance(DATA, DATA, features=FLAT, num_blocks=num_blocks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)), r"\(2,\), \(2, 2\), \(3,\), \(3, 3\)"),
        ((np.zeros(2), np.eye(2), np.zeros(2), np.nan * np.eye(2)), "must be finite"),
        ((0.0, 1.0, 0.0, 1.0, -1.0), "jitter=-1.0"),
    ],
)
def test_closed_form_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_frechet_distance(*arguments)
