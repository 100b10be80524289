"""Masked autoregressive flows: densities in one pass, draws one dimension after the other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import (
    check_choice,
    check_flag,
    check_image_shape,
    check_integer,
    check_integers,
    check_keras,
    check_real,
    check_seed,
)
from ..core.loops import bounded_loop
from ..losses import float32
from .flow import Flow
from .made import MADE
from .masked_conv import MaskedConv2D
from .weight_normalization import initializing_from_data, paused_initialization

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..core.types import KerasObject, Shape


class _AffineAutoregressiveFlow(Flow):
    """Base of the flows whose blocks shift and scale a coordinate by what came before it.

    Subclasses set `orders`, for each block in the direction of the call the coordinates in the
    order in which it takes them, and `group_size`, how many of them it takes at once, and implement
    `_parameters`.
    """

    group_size = 1

    def _parameters(self, number, z, context):
        """Shift and log-scale of a block, for `z (batch, K, D)` in the order of that block."""
        raise NotImplementedError

    def inverse_and_log_det(self, z, context=None):
        z, total = float32(z), 0.0
        for number in reversed(range(len(self.orders))):
            order = self.orders[number]
            z = ops.take(z, order, axis=-1)
            shift, log_scale = self._parameters(number, z, context)
            z, back = shift + z * ops.exp(log_scale), np.argsort(order)
            z, total = ops.take(z, back, axis=-1), total + ops.take(log_scale, back, axis=-1)
        return z, total

    def forward_and_log_det(self, z, context=None):
        if initializing_from_data():
            # A loop is no place to set weights in. The networks see codes, which at the start
            # are nearly the noise: one pass over that stands for them.
            self.inverse_and_log_det(z, context)
            with paused_initialization():
                return self.forward_and_log_det(z, context)
        z, total = float32(z), 0.0
        for number, order in enumerate(self.orders):
            z, log_scale = self._settled(number, ops.take(z, order, axis=-1), context)
            back = np.argsort(order)
            z, total = ops.take(z, back, axis=-1), total - ops.take(log_scale, back, axis=-1)
        return z, total

    def _settled(self, number, noise, context):
        steps = np.arange(noise.shape[-1], dtype="int32") // self.group_size

        def settle(step, state):
            z, log_scales = state
            shift, log_scale = self._parameters(number, z, context)
            # Later coordinates stay zero: what they would be is no number to rely on, and a mask
            # does not stop an infinity.
            now = ops.equal(steps, step)
            z = ops.where(now, (noise - shift) * ops.exp(-log_scale), z)
            return z, ops.where(now, log_scale, log_scales)

        start = ops.zeros_like(noise), ops.zeros_like(noise)
        return bounded_loop(int(steps[-1]) + 1, settle, start)


@keras.saving.register_keras_serializable(package="vaezoo")
class MaskedAutoregressiveFlow(_AffineAutoregressiveFlow):
    """Affine autoregressive blocks whose fast direction is the density's.

        inverse:  eps = m(z) + z * exp(s(z)),             log_det =  sum_d s_d
        call:     z_d = (eps_d - m_d(z_<d)) exp(-s_d(z_<d)),   log_det = -sum_d s_d

    m and 2 s are outputs of masked networks, and d runs in the order of the block. The inverse is
    one parallel pass; the call takes D passes for each block, in a loop to be compiled. Coordinates
    keep their places: what changes from block to block is the order in which they are taken.

    Args:
        num_blocks: Positive int, elementary flows.
        hidden_units: Sequence of positive ints, hidden layers of each `MADE`; by default one of
            10 D units.
        order: `"reverse"`, from the first coordinate to the last and back in turn; `"permute"`,
            a fixed random order of each block's own; or `"keep"`.
        separate_networks: Whether m and s come from two networks; from one otherwise.
        direct: Whether inputs are also connected to the outputs, see `MADE`.
        weight_norm: See `MADE`.
        init_scale: Positive float, see `MADE`; used under weight normalization.
        degrees: `"sequential"` or `"random"`, see `MADE`.
        activation: Keras activation of the hidden layers.
        context_layers: `"all"` or `"first"`, see `MADE`.
        seed: Int that fixes random orders and degrees.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`.
        context: Optional float tensor `(batch, C)`.

    Returns:
        `(z, log_det)`: float32 `(batch, K, D)` and `(batch, K)` in nats.

    Raises:
        ValueError: If `num_blocks` or `order` is out of range, or as `MADE` does.

    Reference: Papamakarios et al. (2017), section 3.1, arXiv:1705.07057; in the parametrization of
    Ma et al. (2019), MAE, appendix, arXiv:1901.01498.
    """

    def __init__(
        self,
        num_blocks: int = 8,
        hidden_units: Sequence[int] | None = None,
        order: str = "reverse",
        separate_networks: bool = True,
        direct: bool = True,
        weight_norm: bool = True,
        init_scale: float = 0.1,
        degrees: str = "sequential",
        activation: KerasObject = "relu",
        context_layers: str = "all",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_blocks = check_integer("num_blocks", num_blocks)
        self.order = check_choice("order", order, ("reverse", "permute", "keep"))
        self.hidden_units = check_integers("hidden_units", hidden_units, optional=True)
        self.separate_networks = check_flag("separate_networks", separate_networks)
        self.direct = check_flag("direct", direct)
        self.weight_norm = check_flag("weight_norm", weight_norm)
        self.init_scale = check_real("init_scale", init_scale, "(0, inf)")
        self.degrees, self.context_layers = degrees, context_layers
        self.seed = check_seed("seed", seed, optional=False)
        self.activation = check_keras("activation", activation, keras.activations)
        # Fails here, not at the first call, if an argument is out of range.
        self._network(0, "check", self.hidden_units or ())

    def _argument(self, name):
        value = super()._argument(name)
        return keras.activations.serialize(value) if name == "activation" else value

    def _network(self, number, name, hidden_units):
        return MADE(
            1 if self.separate_networks else 2,
            hidden_units,
            self.degrees,
            self.activation,
            self.direct,
            self.context_layers,
            self.seed + number,
            weight_norm=self.weight_norm,
            init_scale=self.init_scale,
            dtype=self.dtype_policy,
            name=f"{name}_{number}",
        )

    def build(self, z_shape: Shape, context_shape: Shape | None = None) -> None:
        size = z_shape[-1]
        hidden_units = (10 * size,) if self.hidden_units is None else self.hidden_units
        rng = np.random.default_rng(self.seed)
        forward = np.arange(size)
        self.orders = [
            rng.permutation(size)
            if self.order == "permute"
            else forward[::-1]
            if self.order == "reverse" and number % 2
            else forward
            for number in range(self.num_blocks)
        ]
        names = ("shift", "log_scale") if self.separate_networks else ("shift_and_log_scale",)
        # Flat, since Keras saves no lists within lists.
        self.networks = [
            self._network(number, name, hidden_units)
            for number in range(self.num_blocks)
            for name in names
        ]
        for network in self.networks:
            network.build(z_shape, context_shape)

    def _parameters(self, number, z, context):
        if not self.separate_networks:
            outputs = self.networks[number](z, context=context)
            return outputs[:, :, 0], 0.5 * outputs[:, :, 1]
        shift, log_square = self.networks[2 * number : 2 * number + 2]
        return shift(z, context=context)[:, :, 0], 0.5 * log_square(z, context=context)[:, :, 0]


@keras.saving.register_keras_serializable(package="vaezoo")
class ConvAutoregressiveFlow(_AffineAutoregressiveFlow):
    """Affine autoregressive blocks over the positions of latent maps.

        inverse:  eps = m(z) + z * exp(s(z)),             log_det =  sum s
        call:     z_t = (eps_t - m_t(z_<t)) exp(-s_t(z_<t)),   log_det = -sum s

    Positions t are taken row by row from the left, or all the way back, in turn; the channels of
    one position are given jointly. m and 2 s are the outputs of two masked convolutional networks:

        h = relu(A(z));   h = relu(h + B_1(h));   h = relu(h + B_2(h));   B_3(h) + A'(z)

    with 3x3 convolutions that see earlier positions (A, A') or also their own (B), each
    weight-normalized. The inverse is one parallel pass; the call takes a pass for each position and
    block, in a loop to be compiled.

    Args:
        latent_shape: (height, width, channels), positive ints with product D.
        num_blocks: Positive int, elementary flows.
        filters: Positive int, maps of the hidden layers.
        weight_norm: Whether the convolutions are weight-normalized.
        init_scale: Positive float, standard deviation of the outputs of each convolution after
            the initialization from data, see `initialize_from_data`.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`, the maps laid flat.

    Returns:
        `(z, log_det)`: float32 `(batch, K, D)` and `(batch, K)` in nats.

    Raises:
        ValueError: If an argument is out of range, `z` is of another size, or a context is given.

    Reference: Ma et al. (2019), MAE, appendix, arXiv:1901.01498.
    """

    def __init__(
        self,
        latent_shape: Sequence[int],
        num_blocks: int = 8,
        filters: int = 128,
        weight_norm: bool = True,
        init_scale: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        latent_shape = check_image_shape("latent_shape", latent_shape)
        num_blocks = check_integer("num_blocks", num_blocks)
        filters = check_integer("filters", filters)
        weight_norm = check_flag("weight_norm", weight_norm)
        init_scale = check_real("init_scale", init_scale, "(0, inf)")
        self.latent_shape, self.num_blocks, self.filters = latent_shape, num_blocks, filters
        self.weight_norm, self.init_scale = weight_norm, init_scale
        channels = latent_shape[-1]
        self.group_size = channels
        forward = np.arange(math.prod(latent_shape))
        # Half a turn of the maps: positions in reverse, channels as they are.
        backward = forward.reshape(-1, channels)[::-1].reshape(-1)
        self.orders = [backward if number % 2 else forward for number in range(num_blocks)]
        # Flat, since Keras saves no lists within lists.
        self.networks = [
            _MaskedConvNet(
                filters,
                channels,
                weight_norm,
                init_scale,
                dtype=self.dtype_policy,
                name=f"{name}_{number}",
            )
            for number in range(num_blocks)
            for name in ("shift", "log_scale")
        ]

    def build(self, z_shape: Shape, context_shape: Shape | None = None) -> None:
        if len(z_shape) != 3 or z_shape[-1] != math.prod(self.latent_shape):
            raise ValueError(
                f"`z` must have shape (batch, K, {math.prod(self.latent_shape)}), as "
                f"`latent_shape` says. Received: shape={tuple(z_shape)}"
            )
        for network in self.networks:
            if not network.built:
                network.build((None, *self.latent_shape))

    def _parameters(self, number, z, context):
        if context is not None:
            raise ValueError(
                "`context` must not be given: the flow takes none. Received: "
                f"shape={tuple(context.shape)}"
            )
        maps = ops.reshape(z, (-1, *self.latent_shape))
        shift, log_square = (
            ops.reshape(network(maps), (-1, *z.shape[1:]))
            for network in self.networks[2 * number : 2 * number + 2]
        )
        return shift, 0.5 * log_square


@keras.saving.register_keras_serializable(package="vaezoo")
class _MaskedConvNet(keras.layers.Layer):
    """The network of `ConvAutoregressiveFlow`, on maps in the order of a block."""

    def __init__(
        self, filters: int, channels: int, weight_norm: bool, init_scale: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters

        def conv(name, maps, mask_type):
            return MaskedConv2D(
                maps,
                3,
                mask_type,
                weight_norm=weight_norm,
                init_scale=init_scale,
                dtype=self.dtype_policy,
                name=name,
            )

        self.first = conv("first", filters, "A")
        self.residuals = [conv(f"residual_{number}", filters, "B") for number in range(2)]
        self.last = conv("last", channels, "B")
        self.shortcut = conv("direct", channels, "A")

    def build(self, input_shape):
        self.first.build(input_shape)
        self.shortcut.build(input_shape)
        for conv in (*self.residuals, self.last):
            conv.build((*input_shape[:-1], self.filters))

    def call(self, maps):
        hidden = ops.relu(self.first(maps))
        for conv in self.residuals:
            hidden = ops.relu(hidden + conv(hidden))
        return self.last(hidden) + self.shortcut(maps)
