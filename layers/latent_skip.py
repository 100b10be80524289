"""Skip connections from the latent code into every layer of a decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_keras

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Config, KerasObject, Shape, Tensor

_WEIGHT_LAYERS = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)


@keras.saving.register_keras_serializable(package="vaezoo")
class LatentSkip(keras.layers.Layer):
    """Adds a linear map of the latent code to a layer's pre-activation.

        h_{l+1} = act( h + V z ),   h = W h_l + b

    V has no bias, b stands for it. V z is the same at every position of a sequence or feature map.

    Args:
        activation: Activation of the sum, as Keras layers take it; None is the identity.
        kernel_initializer: Initializer of V.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        h: Float tensor `(batch, ..., C)`, for instance the output of a `Dense` or `Conv2D` layer
            without activation.
        z: Float tensor `(batch, D)`, or of any rank up to that of `h` whose axes before the last
            are the leading ones of `h`: `(batch, K, D)` with `(batch, K, ..., C)`.

    Returns:
        Float tensor of the shape of `h`.

    Raises:
        ValueError: If `z` has no fitting shape.

    Reference: Dieng et al. (2019), arXiv:1807.04863.
    """

    def __init__(
        self,
        activation: KerasObject = None,
        kernel_initializer: KerasObject = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.activation = check_keras("activation", activation, keras.activations)
        self.kernel_initializer = check_keras(
            "kernel_initializer", kernel_initializer, keras.initializers
        )
        self.supports_masking = True

    def build(self, h_shape: Shape, z_shape: Shape) -> None:
        h_shape, z_shape = tuple(h_shape), tuple(z_shape)
        leading = zip(h_shape, z_shape[:-1], strict=False)
        if (
            not 2 <= len(z_shape) <= len(h_shape)
            or None in (h_shape[-1], z_shape[-1])
            or any(None not in pair and pair[0] != pair[1] for pair in leading)
        ):
            raise ValueError(
                "`z` must have shape (batch, D) for an `h` of shape (batch, ..., C). Received: "
                f"h.shape={h_shape}, z.shape={z_shape}"
            )
        self.kernel = self.add_weight(
            name="kernel", shape=(z_shape[-1], h_shape[-1]), initializer=self.kernel_initializer
        )

    def call(self, h: Tensor, z: Tensor) -> Tensor:
        skip = ops.matmul(z, self.kernel)
        skip = ops.expand_dims(skip, tuple(range(len(z.shape) - 1, len(h.shape) - 1)))
        return self.activation(h + skip)

    def compute_output_shape(self, h_shape: Shape, z_shape: Shape) -> Any:
        return h_shape

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def with_latent_skips(decoder: keras.layers.Layer) -> keras.Model:
    """A copy of a decoder in which every layer sees the latent code.

        act( W h + b )   becomes   act( W h + b + V z )

    in each dense and convolution layer but those that take z (nearly) directly, with no such layer
    between. The output layer is among them. The sum stands right behind the weights, so a batch
    normalization or activation layer that follows in the decoder still follows.

    Nothing is shared with `decoder`: the copy has weights of its own, which start at the values of
    `decoder`, and new matrices V. A layer that `decoder` calls several times is still shared by
    these calls, together with its V. Nested functional and sequential models come out flattened.
    Recurrent, attention and wrapped layers are copied as they are.

    Args:
        decoder: Functional or built sequential Keras model of one input z `(batch, D)`; or any
            Keras model with a `LatentSkip` in it.

    Returns:
        Functional model of the same input and output shapes and name; `decoder` itself if it has a
        `LatentSkip` already.

    Raises:
        TypeError: If `decoder`, or a model in it, is not functional or sequential.
        ValueError: If it is not built, has other inputs than one z `(batch, D)`, holds a
            channels-first convolution, or has no dense or convolution layer behind the first.

    Reference: Dieng et al. (2019), arXiv:1807.04863.
    """
    if any(isinstance(layer, LatentSkip) for layer in _all_layers(decoder)):
        return decoder
    _check_rewirable(decoder)
    return _Rewiring(decoder).model


class _Rewiring:
    """The state of one walk through a decoder's graph."""

    def __init__(self, decoder: keras.layers.Layer) -> None:
        flat = _flatten(decoder)
        source = flat.inputs[0]
        self.z = keras.Input(batch_shape=source.shape, dtype=source.dtype, name=source.name)
        self.originals: dict[int, Any] = {}
        self.followers: dict[int, Any] = {}
        self.behind_weights: dict[int, Any] = {}
        self.model = keras.models.clone_model(
            flat,
            input_tensors=keras.tree.pack_sequence_as(flat.input, [self.z]),
            clone_function=self.copy,
            call_function=self.connect,
        )
        if not any(isinstance(layer, LatentSkip) for layer in self.followers.values()):
            raise ValueError(
                "`decoder` must have a dense or convolution layer behind the first, which sees z "
                f"already. Received: decoder={decoder.name!r}, layers="
                f"{[layer.name for layer in _all_layers(decoder)]}"
            )
        for layer, copy in self.originals.values():
            copy.set_weights(layer.get_weights())

    def copy(self, layer):
        config = layer.get_config()
        if isinstance(layer, _WEIGHT_LAYERS):
            config["activation"] = None
        copy = type(layer).from_config(config)
        if isinstance(layer, keras.layers.Layer):
            self.originals[id(copy)] = layer, copy
        return copy

    def connect(self, copy, *args, **kwargs):
        deep = any(id(x) in self.behind_weights for x in keras.tree.flatten((args, kwargs)))
        outputs = copy(*args, **kwargs)
        if isinstance(copy, _WEIGHT_LAYERS):
            if deep:
                outputs = self.follower(copy, LatentSkip, "skip")(outputs, self.z)
            elif self.originals[id(copy)][0].get_config()["activation"] != "linear":
                outputs = self.follower(copy, keras.layers.Activation, "activation")(outputs)
            deep = True
        if deep:
            # The tensors are kept beside their ids, lest an id be used again.
            self.behind_weights |= {id(x): x for x in keras.tree.flatten(outputs)}
        return outputs

    def follower(self, copy, kind, suffix):
        """The layer that takes over the activation; one for all calls of a shared layer."""
        if (id(copy), suffix) not in self.followers:
            layer, _ = self.originals[id(copy)]
            self.followers[id(copy), suffix] = kind(
                layer.get_config()["activation"],
                name=f"{layer.name}_{suffix}",
                dtype=copy.dtype_policy,
            )
        return self.followers[id(copy), suffix]


def _all_layers(model):
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _all_layers(layer)


def _check_rewirable(model):
    if not _is_graph(model):
        raise TypeError(
            "`decoder` must be a functional or sequential Keras model: the layers of others cannot "
            "be rewired; put `LatentSkip` into the `call` of such a model. Received: "
            f"{type(model).__name__}"
        )
    if not model.built:
        raise ValueError(
            "`decoder` must be built: give the sequential model a `keras.Input`. Received: "
            f"decoder={model.name!r}, not built"
        )
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ValueError(
            f"`decoder` must have one input z of shape (batch, D). Received: input shapes {shapes}"
        )
    for layer in _all_layers(model):
        if isinstance(layer, keras.Model) and not _is_graph(layer):
            raise TypeError(
                "`decoder` must be made of layers, functional and sequential models: the layers "
                f"of others cannot be rewired. Received: {type(layer).__name__} {layer.name!r}"
            )
        if getattr(layer, "data_format", None) == "channels_first":
            raise ValueError(
                "`decoder` must be channels-last throughout. Received: a channels-first layer "
                f"{layer.name!r}"
            )


def _is_graph(model):
    # Of other models, only functional ones know their operations.
    return isinstance(model, keras.Sequential) or hasattr(model, "operations")


def _flatten(model):
    """The same layers as one functional model."""
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    while any(isinstance(layer, keras.Model) for layer in model.layers):
        model = keras.models.clone_model(
            model,
            clone_function=lambda layer: layer,
            # Unlike `__call__`, `call` leaves the inner layers in the graph, not the inner model.
            call_function=lambda layer, *args, **kwargs: (
                layer.call if isinstance(layer, keras.Model) else layer
            )(*args, **kwargs),
        )
    return model
