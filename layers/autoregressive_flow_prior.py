"""Priors whose density is that of a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from ..core.checks import check_integer, check_kind
from ..core.compile import compiled
from ..losses import tfd
from .flow import Flow
from .masked_autoregressive_flow import ConvAutoregressiveFlow, MaskedAutoregressiveFlow
from .priors import Prior

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..core.types import Seed, Shape, Tensor


@keras.saving.register_keras_serializable(package="vaezoo")
class FlowPrior(Prior):
    """A trained flow of standard normal noise.

        z = f(eps),   eps ~ N(0, I)
        log p(z) = log N(f^-1(z); 0, I) + log |det df^-1/dz|    (nats)

    Fast training wants a flow whose inverse is the fast direction, such as
    `MaskedAutoregressiveFlow`.

    Args:
        flow: `Flow` that needs no context.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`.

    Returns:
        log p(z), `(batch, K)` in nats.

    Raises:
        TypeError: If `flow` is no `Flow`.

    Reference: Chen et al. (2017), section 3.2, arXiv:1611.02731.
    """

    nested_draws = True

    def __init__(self, flow: Flow, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.flow = check_kind("flow", flow, Flow, "a vaezoo Flow")
        self._transform: Callable[..., Tensor] | None = None

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if not self.flow.built:
            self.flow.build(input_shape)

    def log_prob(self, z: Tensor) -> Tensor:
        return ops.sum(self.log_prob_per_dimension(z), axis=-1)

    def log_prob_per_dimension(self, z: Tensor) -> Tensor:
        eps, log_scale = self.flow.inverse_and_log_det(z)
        by_noise = tfd().Normal(ops.zeros_like(eps), 1.0).log_prob(eps) + log_scale
        return self.flow.permute(by_noise)

    def sample(self, num_samples: int, seed: Seed) -> Tensor:
        eps = keras.random.normal((num_samples, self.latent_dim), dtype="float32", seed=seed)
        if self._transform is None:
            # Step by step the loop over the coordinates takes a hundred times as long.
            self._transform = compiled(self, lambda noise: self.flow.forward_and_log_det(noise)[0])
        return self._transform(eps[:, None])[:, 0]


@keras.saving.register_keras_serializable(package="vaezoo")
class AutoregressiveFlowPrior(FlowPrior):
    """The prior of VLAE and MAE: masked autoregressive blocks in alternating orders.

        each block:  z'_d = m_d(z_<d) + z_d exp(s_d(z_<d)),   from the code to the noise eps
        log p(z) = sum_d log N(eps_d; 0, 1) + sum_blocks sum_d s_d    (nats)

    A pair of blocks takes the coordinates from the first to the last, then back, in the direction
    of sampling. Densities take one parallel pass through each block, draws D of them.

    Args:
        num_blocks: Positive int, pairs of blocks.
        hidden_units: Sequence of positive ints, hidden layers of each network; by default one of
            10 D units.
        weight_norm: See `MADE`.
        init_scale: Positive float, see `MADE`.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`.

    Returns:
        log p(z), `(batch, K)` in nats.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Ma et al. (2019), MAE, appendix, arXiv:1901.01498; Chen et al. (2017), section 3.2,
    arXiv:1611.02731.
    """

    def __init__(
        self,
        num_blocks: int = 4,
        hidden_units: Sequence[int] | None = None,
        weight_norm: bool = True,
        init_scale: float = 0.1,
        **kwargs: Any,
    ) -> None:
        num_blocks = check_integer("num_blocks", num_blocks)
        flow = MaskedAutoregressiveFlow(
            2 * num_blocks, hidden_units, weight_norm=weight_norm, init_scale=init_scale
        )
        super().__init__(flow, **kwargs)
        self.num_blocks = num_blocks
        self.hidden_units = flow.hidden_units
        self.weight_norm, self.init_scale = flow.weight_norm, flow.init_scale


@keras.saving.register_keras_serializable(package="vaezoo")
class ConvAutoregressiveFlowPrior(FlowPrior):
    """`AutoregressiveFlowPrior` for codes that are feature maps: masked convolutions.

    Args:
        latent_shape: (height, width, channels) of the maps, with product D.
        num_blocks: Positive int, pairs of blocks.
        filters: Positive int, maps of the hidden layers, see `ConvAutoregressiveFlow`.
        weight_norm: See `ConvAutoregressiveFlow`.
        init_scale: Positive float, see `ConvAutoregressiveFlow`.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Call arguments:
        z: Float tensor `(batch, K, D)`, the maps laid flat.

    Returns:
        log p(z), `(batch, K)` in nats.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Ma et al. (2019), MAE, appendix, arXiv:1901.01498.
    """

    def __init__(
        self,
        latent_shape: Sequence[int],
        num_blocks: int = 4,
        filters: int = 128,
        weight_norm: bool = True,
        init_scale: float = 0.1,
        **kwargs: Any,
    ) -> None:
        num_blocks = check_integer("num_blocks", num_blocks)
        flow = ConvAutoregressiveFlow(
            latent_shape, 2 * num_blocks, filters, weight_norm, init_scale
        )
        super().__init__(flow, **kwargs)
        self.latent_shape, self.num_blocks, self.filters = (
            flow.latent_shape,
            num_blocks,
            flow.filters,
        )
        self.weight_norm, self.init_scale = flow.weight_norm, flow.init_scale
