"""Gains of a normalization layer, held at a given root mean square."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ..core.checks import check_kind, check_real
from ..losses import RootMeanSquare
from ._gains import gain_statistics, has_gain, normalization_layers, target_of

if TYPE_CHECKING:
    from typing import Any


class GammaRenormalization(keras.callbacks.Callback):
    """Holds the root mean square of a normalization layer's gains at its target.

        gamma <- gamma * target / sqrt( mean_d gamma_d^2 )    after each optimizer update

    Before training it installs a `RootMeanSquare` constraint on the layers' `gamma`; Keras applies
    constraints inside the compiled step, so each update is followed by one, also with
    `steps_per_execution`. After each epoch it checks the result and logs `gamma_rms`, `gamma_min`
    and `gamma_max`, with the layer's name in front when there are several layers.

    Example:
        model = keras.Sequential([..., keras.layers.BatchNormalization(name="norm"), ...])
        model.fit(x, y, callbacks=[GammaRenormalization(0.5, layers="norm")])

    Args:
        gamma: Positive float, the target. It may be omitted for layers that have one, such as
            `MeanBatchNorm`.
        layers: Normalization layer of the model or its name, or a sequence of them. By default all
            layers that have a target, or else the model's only normalization layer.

    Raises:
        ValueError: If `gamma` is not positive or `layers` is empty; before training, if there is no
            normalization layer, none is named among several, or one has no `gamma`, no target,
            another target or another constraint.
        TypeError: If `layers` holds neither layers nor names.
        RuntimeError: If after an epoch the root mean square is off by more than 1e-5 of the target.

    Reference: Shen et al. (2021), DU-VAE, algorithm 1, line 9, arXiv:2110.12381.

    Note: A layer of Keras' own does not save the constraint; after reloading a model, pass the
    callback to `fit` again.
    """

    def __init__(self, gamma: float | None = None, layers: Any = None) -> None:
        super().__init__()
        gamma = check_real("gamma", gamma, "(0, inf)", optional=True)
        if isinstance(layers, (str, keras.layers.Layer)):
            layers = [layers]
        if layers is not None:
            rule = "a list of layers or of names of layers"
            layers = list(check_kind("layers", layers, (list, tuple), rule))
            if not layers:
                raise ValueError("`layers` must not be empty. Received: layers=[]")
            for item in layers:
                check_kind("layers", item, (str, keras.layers.Layer), rule)
        self.gamma, self.layers = gamma, layers

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Installs the constraint where it is missing."""
        known = normalization_layers(self.model)
        chosen = (
            self._default_layers(known)
            if self.layers is None
            else [self._checked(item, known) for item in self.layers]
        )
        self._targets = [(layer, self._target(layer)) for layer in chosen]
        # Not `any` over a generator, which would stop at the first.
        if any([self._install(layer, target) for layer, target in self._targets]):
            # A step that an earlier `fit` compiled knows of no constraint.
            self.model.make_train_function(force=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Checks and logs the gains."""
        for layer, target in self._targets:
            statistics = gain_statistics(layer)
            if logs is not None:
                prefix = f"{layer.name}_" if len(self._targets) > 1 else ""
                logs.update({f"{prefix}gamma_{name}": value for name, value in statistics.items()})
            if not _is_met(layer, target):
                raise RuntimeError(
                    f"After epoch {epoch} `gamma` of layer {layer.name!r} should have the root "
                    f"mean square {target}. Received: gamma_rms={statistics['rms']}. Something "
                    "other than the optimizer sets it, or training has diverged."
                )

    def _default_layers(self, known):
        targeted = [layer for layer in known if target_of(layer) is not None]
        if targeted or len(known) == 1:
            return targeted or known
        if not known:
            raise ValueError(
                "`GammaRenormalization` needs a normalization layer with a `gamma`. Received: "
                f"model {self.model.name!r} without one"
            )
        raise ValueError(
            "`layers` must be given for a model with several normalization layers. "
            f"Received: layers=None, with {_names(known)} in the model"
        )

    def _checked(self, item, known):
        members = self.model._flatten_layers()
        layer = next((member for member in members if item in (member, member.name)), None)
        if layer is None:
            raise ValueError(
                f"`layers` must be layers of the model, with normalization: {_names(known)}. "
                f"Received: {item if isinstance(item, str) else item.name!r}"
            )
        if not has_gain(layer):
            state = "without one" if layer.built else "that is not built"
            raise ValueError(
                f"Layer {layer.name!r} must have a variable `gamma`. Received: a "
                f"{type(layer).__name__} {state}"
            )
        return layer

    def _target(self, layer):
        declared, constraint = target_of(layer), layer.gamma.constraint
        if constraint is not None and not isinstance(constraint, RootMeanSquare):
            raise ValueError(
                f"`gamma` of layer {layer.name!r} must have no other constraint. Received: "
                f"{type(constraint).__name__}"
            )
        if declared is None and self.gamma is None:
            raise ValueError(
                f"`gamma` must be given, since layer {layer.name!r} has no target. Received: "
                "gamma=None"
            )
        if hasattr(layer, "target") and self.gamma not in (None, declared):
            raise ValueError(
                f"`gamma` must be the target that layer {layer.name!r} was made with, {declared}. "
                f"Received: gamma={self.gamma}"
            )
        return declared if self.gamma is None else self.gamma

    def _install(self, layer, target):
        installed = layer.gamma.constraint
        constraint = RootMeanSquare(target)
        if not _is_met(layer, target):
            layer.gamma.assign(constraint(layer.gamma))
        if not _is_met(layer, target):
            raise ValueError(
                f"`gamma` of layer {layer.name!r} must hold finite numbers that are not all zero. "
                f"Received: gamma_rms={gain_statistics(layer)['rms']}"
            )
        if installed is not None and installed.target == target:
            return False
        layer.gamma.constraint = constraint
        return True


def _is_met(layer, target):
    # Half precision cannot hold the target any closer.
    exact = keras.backend.standardize_dtype(layer.gamma.dtype) in ("float32", "float64")
    tolerance = 1e-5 if exact else 1e-2
    return abs(gain_statistics(layer)["rms"] / target - 1.0) <= tolerance


def _names(layers):
    return ", ".join(layer.name for layer in layers) or "none"
