"""Random numbers: seeds of layers, seeds given as inputs, and seeds that are saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

from .replicas import replica_context

if TYPE_CHECKING:
    from typing import Any

    from .types import Tensor


class SeedGenerator(keras.random.SeedGenerator):
    """`keras.random.SeedGenerator` whose draws differ between replicas."""

    def next(self, ordered: bool = True) -> Tensor:
        """Returns the next seed, integer `(2,)`, folded with the replica's number."""
        seed = super().next(ordered)
        context = replica_context()
        if context is None:
            return seed
        # Golden-ratio steps keep the replicas' seeds apart from those of neighboring user seeds.
        shift = ops.cast(context.replica_id_in_sync_group, "uint32") * ops.cast(
            0x9E3779B9, "uint32"
        )
        # The dtype of seeds differs between backends.
        return seed + ops.cast(ops.stack([shift, ops.zeros_like(shift)]), seed.dtype)


class StatelessSeed(keras.random.SeedGenerator):
    """Seeds derived from a tensor, so that a compiled function can take its seed as an input.

    Args:
        seed: Integer scalar, Python or tensor.
        stream: Integer scalar, Python or tensor: independent noise under one seed, such as the
            number of a chunk.
    """

    def __init__(self, seed: Tensor, stream: Tensor = 0) -> None:
        # No variable: the state is the given tensors and a Python count of the draws so far.
        self._seed, self._stream = ops.cast(seed, "uint32"), ops.cast(stream, "uint32")
        self._draws = 0

    def next(self, ordered: bool = True) -> Tensor:
        """Returns the next seed, uint32 `(2,)`."""
        self._draws += 1
        # 2^8 draws for each of 2^24 streams, so that no draw of one meets a draw of another.
        return ops.stack([self._seed, self._stream * 256 + self._draws])


class SavesNoise:
    """Mixin for layers that own a `SeedGenerator` named `noise`: its state is saved with them.

    Keras leaves generators out of `.keras` and `.weights.h5` files, so a model that was reloaded
    would repeat the noise of its first steps.
    """

    noise: keras.random.SeedGenerator

    def save_own_variables(self, store: Any) -> None:
        """Adds the generator's state to the layer's own variables."""
        super().save_own_variables(store)
        store["noise"] = ops.convert_to_numpy(self.noise.state.value)

    def load_own_variables(self, store: Any) -> None:
        """Restores the generator's state, then the layer's own variables."""
        state = {key: store[key] for key in store.keys()}
        self.noise.state.assign(state.pop("noise"))
        super().load_own_variables(state)
