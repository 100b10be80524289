"""Inverse autoregressive flows: posteriors that bend, and keep their density."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import (
    SEEDS,
    check_choice,
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

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..core.types import KerasObject, Shape, Tensor


@keras.saving.register_keras_serializable(package="vaezoo")
class IAFBlock(Flow):
    """One step of an inverse autoregressive flow, in its gated form.

        m, s    = MADE(z, context)
        g       = sigmoid(s + b)
        z'      = g * z + (1 - g) * m
        log_det = sum_d log g_d

    Forward in one parallel pass; `inverse` takes D passes. The gates lie in (0, 1), so the entropy
    of the draws can only fall.

    Args:
        hidden_units: Sequence of positive ints, hidden layers of the `MADE`.
        gate_bias: Float, initial value of the trained b: 2 opens the gates to 0.88.
        degrees: `"random"` or `"sequential"`, see `MADE`.
        context_layers: `"all"` or `"first"`, see `MADE`.
        seed: Int that fixes random degrees.
        kernel_initializer: Keras initializer of all kernels of the `MADE`; its own by default.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`.
        context: Optional float tensor `(batch, C)`.

    Returns:
        `(z, log_det)`: float32 `(batch, K, D)` and `(batch, K)` in nats.

    Raises:
        ValueError: As `MADE` does.

    Reference: Kingma et al. (2016), algorithm 1, arXiv:1606.04934.
    """

    def __init__(
        self,
        hidden_units: Sequence[int] = (64, 64),
        gate_bias: float = 2.0,
        degrees: str = "random",
        context_layers: str = "all",
        seed: int = 0,
        kernel_initializer: KerasObject = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.gate_bias = check_real("gate_bias", gate_bias)
        self.kernel_initializer = check_keras(
            "kernel_initializer", kernel_initializer, keras.initializers
        )
        self.network = MADE(
            2,
            hidden_units,
            degrees,
            context_layers=context_layers,
            seed=seed,
            kernel_initializer=kernel_initializer,
            context_initializer=kernel_initializer,
            name="made",
        )
        self.hidden_units, self.degrees = self.network.hidden_units, degrees
        self.context_layers, self.seed = context_layers, self.network.seed

    def build(self, z_shape: Shape, context_shape: Shape | None = None) -> None:
        if not self.network.built:
            self.network.build(z_shape, context_shape)
        self.bias = self.add_weight(
            name="gate_bias",
            shape=(z_shape[-1],),
            initializer=keras.initializers.Constant(self.gate_bias),
        )

    def forward_and_log_det(self, z: Tensor, context: Tensor = None) -> tuple[Tensor, Tensor]:
        z = float32(z)
        mean, logits = self._parameters(z, context)
        gate = ops.sigmoid(logits)
        return gate * z + (1.0 - gate) * mean, -ops.softplus(-logits)

    def _parameters(self, z, context):
        outputs = self.network(z, context=context)
        return outputs[:, :, 0], outputs[:, :, 1] + self.bias

    def inverse_and_log_det(self, z: Tensor, context: Tensor = None) -> tuple[Tensor, Tensor]:
        target = float32(z)

        def settle(_, before):
            mean, logits = self._parameters(before, context)
            gate = ops.sigmoid(logits)
            return (target - (1.0 - gate) * mean) / gate

        # Pass d settles coordinate d, whose parameters depend on those before it.
        source = bounded_loop(target.shape[-1], settle, ops.zeros_like(target))
        _, logits = self._parameters(source, context)
        return source, ops.softplus(-logits)


@keras.saving.register_keras_serializable(package="vaezoo")
class InverseAutoregressiveFlow(Flow):
    """Inverse autoregressive blocks with a change of the coordinates' order after each.

        z_t = P_t( block_t(z_{t-1}, context) ),   t = 1 ... T
        log_det = sum_t log_det_t

    A change of order has determinant 1 and moves nothing but coordinates.

    Args:
        num_blocks: Positive int T.
        hidden_units: Sequence of positive ints, hidden layers of each block.
        order: `"reverse"`, as in DU-IAF, also after the last block; `"permute"`, a fixed random
            permutation of each block's own; or `"keep"`.
        gate_bias: Float, see `IAFBlock`.
        degrees: `"random"` or `"sequential"`, see `MADE`.
        context_layers: `"all"` or `"first"`, see `MADE`.
        seed: Int that fixes degrees and permutations; blocks have masks of their own.
        kernel_initializer: As in `IAFBlock`.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`.
        context: Optional float tensor `(batch, C)`.

    Returns:
        `(z, log_det)`: float32 `(batch, K, D)` and `(batch, K)` in nats.

    Raises:
        ValueError: If `num_blocks` or `order` is out of range, or as `MADE` does.

    Note: The code of DU-IAF gives all blocks the same random masks; here each has its own, so that
    a coordinate cut off in one block is seen in another.

    Reference: Kingma et al. (2016), section 3, arXiv:1606.04934; Shen et al. (2021), section 3.4,
    arXiv:2110.12381.
    """

    def __init__(
        self,
        num_blocks: int = 2,
        hidden_units: Sequence[int] = (64, 64),
        order: str = "reverse",
        gate_bias: float = 2.0,
        degrees: str = "random",
        context_layers: str = "all",
        seed: int = 0,
        kernel_initializer: KerasObject = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_blocks = check_integer("num_blocks", num_blocks)
        self.hidden_units = check_integers("hidden_units", hidden_units)
        self.order = check_choice("order", order, ("reverse", "permute", "keep"))
        self.gate_bias, self.degrees = check_real("gate_bias", gate_bias), degrees
        self.context_layers, self.seed = context_layers, check_seed("seed", seed, optional=False)
        self.kernel_initializer = check_keras(
            "kernel_initializer", kernel_initializer, keras.initializers
        )
        shared = (self.hidden_units, self.gate_bias, degrees, context_layers)
        self.blocks = [
            IAFBlock(
                *shared,
                (self.seed + number) % SEEDS,
                kernel_initializer,
                name=f"block_{number}",
            )
            for number in range(self.num_blocks)
        ]

    def build(self, z_shape: Shape, context_shape: Shape | None = None) -> None:
        size = z_shape[-1]
        rng = np.random.default_rng(self.seed)
        orders = {"reverse": lambda: np.arange(size)[::-1], "keep": lambda: np.arange(size)}
        make = orders.get(self.order, lambda: rng.permutation(size))
        self.orders = [make().astype("int32") for _ in self.blocks]
        self.coordinates = np.arange(size, dtype="int32")
        for order in self.orders:
            self.coordinates = self.coordinates[order]
        for block in self.blocks:
            if not block.built:
                block.build(z_shape, context_shape)

    def forward_and_log_det(self, z: Tensor, context: Tensor = None) -> tuple[Tensor, Tensor]:
        total = ops.zeros_like(float32(z))
        for block, order in zip(self.blocks, self.orders, strict=True):
            z, log_scale = block.forward_and_log_det(z, context)
            z, total = (ops.take(values, order, axis=-1) for values in (z, total + log_scale))
        return z, total

    def inverse_and_log_det(self, z: Tensor, context: Tensor = None) -> tuple[Tensor, Tensor]:
        total = ops.zeros_like(float32(z))
        for block, order in zip(self.blocks[::-1], self.orders[::-1], strict=True):
            z, total = (ops.take(values, np.argsort(order), axis=-1) for values in (z, total))
            z, log_scale = block.inverse_and_log_det(z, context)
            total = total + log_scale
        return z, total
