"""Convolutions in another form than Keras' are the same functions."""

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import zoo
from vaezoo.core import convolution
from vaezoo.core.gradients import value_and_gradients_at

JAX = keras.backend.backend() == "jax"
#: Grid, kernel, strides and padding of transposed convolutions.
CASES = (
    ((5, 4), (3, 3), (2, 2), "same"),
    ((5, 4), (3, 3), (2, 2), "valid"),
    ((3, 3), (3, 3), (1, 1), "same"),
    ((2, 3), (1, 1), (2, 2), "valid"),
    ((1, 1), (4, 3), (1, 1), "valid"),
    ((3, 2), (5, 2), (3, 1), "same"),
)


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def pairs(rng):
    """Ours and Keras' convolutions of the same tensors."""
    for grid, size, strides, padding in CASES:
        x, kernel = normal(rng, 2, *grid, 3), normal(rng, *size, 2, 3)
        yield x, kernel, convolution.conv_transpose, ops.conv_transpose, strides, padding
    for grid, size, strides in (((5, 4), (1, 1), (2, 2)), ((4, 3), (4, 3), (1, 1))):
        x, kernel = normal(rng, 2, *grid, 3), normal(rng, *size, 3, 2)
        yield x, kernel, convolution.conv, ops.conv, strides, "valid"


def both(inner):
    """Values of a function of the tensors, of our convolutions and of Keras'."""
    found = []
    for ours in (True, False):

        def total(tensors, ours=ours):
            outputs = []
            for number, (_, _, new, old, strides, padding) in enumerate(pairs(rng())):
                x, kernel = tensors[2 * number : 2 * number + 2]
                options = {} if ours else {"data_format": "channels_last"}
                given = strides if ours else list(strides)
                outputs.append((new if ours else old)(x, kernel, given, padding, **options))
            return outputs

        found.append(inner(total, [t for pair in pairs(rng()) for t in pair[:2]]))
    return found


def rng():
    return np.random.default_rng(0)


def compiled(function, tensors):
    tensors = [ops.convert_to_tensor(tensor) for tensor in tensors]
    if JAX:
        import jax

        return jax.jit(function)(tensors)
    return function(tensors)


def largest(values):
    return max(float(ops.max(ops.abs(value))) for value in values)


def close(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        scale = largest([b])
        np.testing.assert_allclose(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=tolerance * scale, rtol=0
        )


def cost(outputs):
    return sum(ops.sum(ops.square(ops.tanh(output))) for output in outputs)


@pytest.mark.large_on_jax
def test_values_are_those_of_keras():
    close(*both(compiled), 1e-6)


@pytest.mark.large_on_jax
def test_gradients_are_those_of_keras():
    def gradients(total, tensors):
        return compiled(
            lambda given: value_and_gradients_at(lambda t: (cost(total(t)), ()), given)[1], tensors
        )

    close(*both(gradients), 1e-5)


@pytest.mark.large_on_jax
@pytest.mark.skipif(not JAX, reason="on TensorFlow they are Keras' own")
def test_second_derivatives_are_those_of_keras():
    import jax

    def curvature(total, tensors):
        def of(given):
            return jax.jvp(jax.grad(lambda t: cost(total(t))), (given,), (given,))[1]

        return compiled(of, tensors)

    close(*both(curvature), 1e-5)


@pytest.mark.skipif(not JAX, reason="on TensorFlow they are Keras' own")
def test_convolutions_can_be_mapped_over_draws():
    import jax

    x, kernel = normal(rng(), 3, 2, 4, 4, 3), normal(rng(), 3, 3, 2, 3)
    mapped = jax.vmap(lambda x: convolution.conv_transpose(x, kernel, 2, "same"))(x)
    single = convolution.conv_transpose(x.reshape(6, 4, 4, 3), kernel, 2, "same")
    close([mapped.reshape(single.shape)], [single], 1e-6)


def test_options_of_the_compiler_leave_what_the_user_set(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    name = "xla_cpu_experimental_ynn_fusion_type"
    expected = {name} if convolution.on_jax_cpu() else set()
    assert set(convolution.step_options()) == expected
    monkeypatch.setenv("XLA_FLAGS", f"--{name}=dot")
    assert convolution.step_options() == {}


@pytest.mark.skipif(not JAX, reason="of JAX's compiler")
def test_the_step_is_compiled_with_the_options(monkeypatch):
    import jax

    given = []

    def spy(function, **options):
        given.append(options)
        return function

    monkeypatch.delenv("XLA_FLAGS", raising=False)
    encoder, decoder = zoo.networks.make("mlp", (4,), latent_dim=2, hidden_units=(3,))
    model = zoo.VAE(encoder, decoder, latent_dim=2)
    model.compile("sgd")
    monkeypatch.setattr(jax, "jit", spy)
    model.make_train_function()
    assert given[-1] == {"donate_argnums": 0, "compiler_options": convolution.step_options()}
