"""What the networks have in common: checks of their arguments, initialisers, output layers."""

import math

import keras

from ...layers import with_latent_skips


def check_positive(name, value):
    """Raises a `ValueError` unless `value` is a positive integer."""
    if not _is_positive(value):
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")


def check_sizes(name, values, at_least=0):
    """Returns a sequence of positive integers as a tuple, or raises a `ValueError`."""
    if (
        not isinstance(values, (tuple, list))
        or len(values) < at_least
        or not all(map(_is_positive, values))
    ):
        kind = "non-empty " if at_least else ""
        raise ValueError(
            f"`{name}` must be a {kind}sequence of positive integers. Received: {name}={values!r}"
        )
    return tuple(values)


def check_image(name, shape, multiple=1):
    """Returns an image shape as a tuple, or raises a `ValueError`.

    Args:
        name: Argument to name in the error.
        shape: (height, width, channels).
        multiple: What the height and width must be multiples of.
    """
    if not isinstance(shape, (tuple, list)) or len(shape) != 3 or not all(map(_is_positive, shape)):
        raise ValueError(
            f"`{name}` must be (height, width, channels), three positive integers. "
            f"Received: {name}={shape!r}"
        )
    if shape[0] % multiple or shape[1] % multiple:
        raise ValueError(
            f"`{name}` must have a height and width that are multiples of {multiple}; the 'conv' "
            f"networks take any size. Received: {name}={shape!r}"
        )
    return tuple(shape)


def _is_positive(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def fresh(initializer):
    """An initialiser for one layer: an unseeded object repeats its draw wherever it is used."""
    initializer = keras.initializers.get(initializer)
    return initializer.clone() if hasattr(initializer, "clone") else initializer


def he_normal(fan_in):
    """N(0, 2 / fan_in), not truncated.

    `keras.initializers.HeNormal` truncates, and takes the fan-out of a transposed convolution for
    its fan-in.
    """
    return keras.initializers.RandomNormal(stddev=math.sqrt(2.0 / fan_in))


def check_output(params_per_value, num_classes, output_activation):
    """Raises a `ValueError` unless the arguments of `likelihood_params` agree."""
    check_positive("params_per_value", params_per_value)
    if num_classes is None:
        return
    if not _is_positive(num_classes) or num_classes < 2:
        raise ValueError(
            f"`num_classes` must be an integer of at least 2. Received: {num_classes=}"
        )
    if params_per_value != 1 or output_activation is not None:
        raise ValueError(
            "`params_per_value` must be 1 and `output_activation` None when `num_classes` is "
            f"given: the outputs are logits. Received: {num_classes=}, {params_per_value=}, "
            f"{output_activation=}"
        )


def likelihood_params(layer, channels, output_activation, params_per_value, num_classes):
    """The output tensor of a decoder.

    The activation is for the first parameter of each value, its mean; the others stay raw.

    Args:
        layer: Function `(channels, activation, name) -> tensor (batch, ..., channels)`.
        channels: Size of the last axis of the data.
        output_activation: As in `mlp_decoder`.
        params_per_value: As in `mlp_decoder`.
        num_classes: As in `mlp_decoder`.
    """
    if num_classes is not None:
        logits = layer(channels * num_classes, None, "params")
        shape = (*logits.shape[1:-1], channels, num_classes)
        return keras.layers.Reshape(shape, name="classes")(logits)
    if params_per_value == 1 or output_activation is None:
        return layer(channels * params_per_value, output_activation, "params")
    first = layer(channels, output_activation, "mean")
    others = layer(channels * (params_per_value - 1), None, "raw")
    return keras.layers.Concatenate(name="params")([first, others])


def decoder_model(z, params, skip, name):
    """The functional decoder, with latent skips if asked."""
    decoder = keras.Model(z, params, name=name)
    return with_latent_skips(decoder) if skip else decoder
