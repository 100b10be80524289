"""Functions of a model over whole arrays: how often they compile, and what fills batches up."""

import keras
import numpy as np
import pytest

from helpers.sources import Frame
from vaezoo import metrics
from vaezoo.losses import DiagonalGaussian
from vaezoo.metrics.subject import as_subject

JAX = keras.backend.backend() == "jax"


@pytest.fixture
def subject(linear_gaussian):
    parts = linear_gaussian.encoder(), linear_gaussian.decoder()
    options = {"data": linear_gaussian.data, "likelihood": linear_gaussian.likelihood()}
    return as_subject(*parts, **options)


@pytest.mark.parametrize("most_rows", [None, 16])
def test_functions_are_compiled_for_few_sizes(subject, most_rows):
    x, sizes = np.arange(20.0, dtype="float32").reshape(10, 2), []

    def double(x):
        sizes.append(x.shape[0])
        return 2.0 * x, None

    for rows in range(1, 11):
        found = subject.run("double", double, x[:rows], batch_size=5, most_rows=most_rows)
        np.testing.assert_array_equal(found[0], 2.0 * x[:rows])
        assert found[1] is None
    # A batch is filled up to its full size, or as far as there is room.
    assert sorted(sizes) == (([1, 2, 4, 8] if most_rows else [1, 2, 4, 5]) if JAX else [None])


def test_draws_do_not_depend_on_what_fills_a_batch_up(subject):
    rng = np.random.default_rng(0)
    mean, log_var = (rng.standard_normal((7, 3)).astype("float32") for _ in range(2))
    found = subject.draw_statistics(DiagonalGaussian(mean, log_var), 10, batch_size=5, seed=1)
    assert found.mean.shape == (7, 3)
    # Covariances are summed over the examples, and over no others.
    for scatter, rows in zip(found.scatter, (slice(5), slice(5, 7)), strict=True):
        of_rows = found.variance[rows].sum(axis=0)
        np.testing.assert_allclose(np.diagonal(scatter), of_rows, rtol=1e-5)
    whole = subject.draw_statistics(DiagonalGaussian(mean, log_var), 10, batch_size=7, seed=1)
    np.testing.assert_allclose(found.mean[:5], whole.mean[:5], rtol=1e-5, atol=1e-6)


def test_prior_draws_are_the_first_ones(subject):
    draws = subject.sample_prior(9, seed=3)
    assert draws.shape == (9, 3)
    if JAX:
        np.testing.assert_array_equal(draws[:5], subject.sample_prior(5, seed=3))


def test_frames_are_arrays(subject, linear_gaussian):
    rows = np.random.default_rng(0).uniform(size=(24, 2))
    labels = np.arange(24) % 2
    for measure in (
        lambda wrap: metrics.active_units(wrap(rows)).value,
        lambda wrap: metrics.knn_probe((wrap(rows), wrap(labels)), (rows, labels)).value,
        lambda wrap: metrics.frechet_distance(wrap(rows), wrap(rows[:12]), features="pixels").value,
    ):
        assert measure(Frame) == measure(np.asarray)
    np.testing.assert_array_equal(subject.check(Frame(linear_gaussian.data)), linear_gaussian.data)
