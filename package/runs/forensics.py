"""What was not finite first: the steps after the last checkpoint, taken once more and looked at."""

from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING

import keras
import numpy as np

from ..core.checkpoints import Saved, write_state
from ..core.files import written
from ..core.gradients import gradients
from ..core.resuming import Resuming
from ..core.states import assign, unsaved_variables, values_of, variables_of
from .directory import NONFINITE_BATCH, NONFINITE_MODEL, NONFINITE_REPORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

#: Rows that a sentence names, at most.
_NAMED = 10
#: Terms of the loss, as they are told.
_TERMS = {"distortion": "reconstruction", "kl": "KL"}


class _Found(Exception):
    """The first step after which a loss or a weight is not finite."""

    def __init__(self, place: tuple[int, int], batch: Any, before: Any, loss: float) -> None:
        super().__init__("found")
        self.place, self.batch, self.before, self.loss = place, batch, before, loss


class _Nothing(Exception):
    """An epoch without such a step."""


class _Examiner(Resuming):
    """Takes one step at a time, and keeps what the variables were before it.

    Args:
        saved: `Saved` that the training goes on from.
    """

    writes_variables = False

    def __init__(self, saved: Saved) -> None:
        super().__init__()
        self._given = saved
        self._number = saved.batch
        self._trained: Any = None

    def read(self) -> Saved | None:
        return self._given

    def write(self, saved: Saved) -> None:
        pass

    def restore_variables(self, saved: Saved) -> None:
        if saved.variables is not None:
            assign(unsaved_variables(self.model), saved.variables)

    def end_epoch(self, epoch: int) -> None:
        raise _Nothing

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        # A callback that asks Keras for its model within a step ends the step's hold on it.
        self._trained = self.model

    def take_step(self, run: Callable[..., Any], arguments: Any) -> Any:
        *state, iterator = arguments
        model, found = self._trained, None
        for number in range(model.steps_per_execution or 1):
            try:
                batch = next(iterator)
            except StopIteration:
                if number:
                    break
                raise
            if state:
                before = [[np.array(value) for value in group] for group in state[0]]
            else:
                before = values_of(variables_of(model))
            found = run(*state, iter([batch]))
            logs = found[0] if state else found
            state = [found[1]] if state else []
            loss = float(keras.ops.convert_to_numpy(logs["loss"]))
            weights = state[0][0] if state else values_of(model.trainable_variables)
            self._number += 1
            if not (math.isfinite(loss) and all(np.all(np.isfinite(w)) for w in weights)):
                raise _Found((self._place, self._number), batch, before, loss)
        return found


def investigate(run_again: Callable[[Any], Any], model: keras.Model, saved: Saved) -> Any:
    """Repeats the steps after a checkpoint until one is not finite.

    Args:
        run_again: Function that trains the model with a callback, from the checkpoint on.
        model: `VAE` with the weights of the checkpoint.
        saved: `Saved` of the checkpoint.

    Returns:
        Pair of a report, a dict of JSON values with a `text`, and the batch; the model then has the
        weights before that batch. None where nothing was found.
    """
    groups = [
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    ]
    try:
        run_again(_Examiner(saved))
    except _Found as error:
        found = error
    except (_Nothing, FloatingPointError):
        return None
    else:
        return None
    if keras.backend.backend() == "jax":
        for variables, values in zip(groups, found.before, strict=True):
            assign(variables, values)
        before = values_of(variables_of(model))
    else:
        before = found.before
        assign(variables_of(model), before)
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    report = {
        "epoch": found.place[0] + 1,
        "batch": found.place[1],
        "loss": found.loss if math.isfinite(found.loss) else str(found.loss),
        "learning_rate": rate,
        **_examine(model, keras.utils.unpack_x_y_sample_weight(found.batch)),
    }
    # Looking at it has drawn noise.
    assign(variables_of(model), before)
    report["text"] = _told(report)
    return report, found.batch


def keep(directory: Path, model: keras.Model, report: Any, batch: Any) -> None:
    """Writes a report with its batch and the model before it to the directory of a run."""
    write_state(directory / NONFINITE_MODEL, Saved(report["epoch"] - 1), model.save)
    arrays = {
        "/".join(map(str, path)): keras.ops.convert_to_numpy(leaf)
        for path, leaf in keras.tree.flatten_with_path(batch)
        if hasattr(leaf, "dtype") and hasattr(leaf, "shape")
    }
    with written(directory / NONFINITE_BATCH) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
    with written(directory / NONFINITE_REPORT) as partial:
        partial.write_text(json.dumps(report, indent=2), "utf-8")


def _examine(model, data):
    """What of one step is not finite first: terms and rows, layers, gradients."""
    x, y, weight = data
    found: dict[str, Any] = {"terms": [], "rows": [], "row_count": None, "layer": None}
    with _watched(model) as seen:
        output = model(x, training=True)
        value, terms, extra = model.loss_and_terms(x, y, output, weight)
    if seen:
        found["layer"], found["layer_class"], found["layer_rows"] = seen[0]
    rows: set[int] = set()
    for name, word in _TERMS.items():
        values = _numbers(getattr(terms, name))
        found["row_count"] = values.size
        bad = np.flatnonzero(~np.isfinite(values)).tolist()
        if bad:
            found["terms"].append(word)
            rows.update(bad)
    for name, item in extra.items():
        values = _numbers(getattr(item, "value", item))
        if not np.all(np.isfinite(values)):
            found["terms"].append(f"regularizer {name}")
            if values.size == found["row_count"] > 1:
                rows.update(np.flatnonzero(~np.isfinite(values)).tolist())
    found["rows"] = sorted(rows)
    finite = math.isfinite(float(_numbers(value)))
    if not finite and not found["terms"]:
        found["terms"].append("regularizer")
    found["gradients"], found["gradient_norm"] = [], None
    if finite:
        found.update(_gradients(model, x, y, weight))
    return found


def _gradients(model, x, y, weight):
    chosen = {id(variable) for variable in model.trainable_variables}
    others = [variable for variable in variables_of(model) if id(variable) not in chosen]
    others += [variable for variable in model.metrics_variables if id(variable) not in chosen]

    def loss():
        return model.loss_and_terms(x, y, model(x, training=True), weight)[0]

    values = gradients(loss, model.trainable_variables, others)
    pairs = list(zip(model.trainable_variables, values, strict=True))
    named = [(v.path, _numbers(g).astype("float64")) for v, g in pairs if g is not None]
    bad = [path for path, value in named if not np.all(np.isfinite(value))]
    norm = None if bad else math.sqrt(sum(float(np.sum(value**2)) for _, value in named))
    return {"gradients": bad, "gradient_norm": norm}


@contextlib.contextmanager
def _watched(model: keras.Model) -> Iterator[list[Any]]:
    """Notes the layers of a model whose output is the first that is not finite."""
    seen: list[Any] = []
    # The loss is told by its terms.
    parts = {id(part) for part in (model, *model.objective._flatten_layers())}
    layers = [layer for layer in model._flatten_layers() if id(layer) not in parts]

    def watch(layer):
        call = layer.call

        def watched(*args, **kwargs):
            result = call(*args, **kwargs)
            if not seen:
                for leaf in keras.tree.flatten(result):
                    if not keras.ops.is_tensor(leaf) or "float" not in str(leaf.dtype):
                        continue
                    values = _numbers(leaf)
                    if np.all(np.isfinite(values)):
                        continue
                    bad = ~np.isfinite(values.reshape(len(values), -1)) if values.ndim else []
                    rows = np.flatnonzero(np.any(bad, axis=1)).tolist() if values.ndim else []
                    seen.append((layer.path or layer.name, type(layer).__name__, rows))
                    break
            return result

        # Keras looks after what is set the usual way.
        object.__setattr__(layer, "call", watched)

    for layer in layers:
        watch(layer)
    try:
        yield seen
    finally:
        for layer in layers:
            object.__delattr__(layer, "call")


def _numbers(value):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(value, "float32")))


def _told(report):
    place = f"epoch {report['epoch']}, batch {report['batch']}"
    parts = []
    if report["terms"]:
        parts.append(f"In {place} the loss is {report['loss']}: its {report['terms'][0]} term is")
        parts[-1] += " not finite"
        rows = report["rows"]
        if rows:
            named = ", ".join(map(str, rows[:_NAMED])) + (" ..." if len(rows) > _NAMED else "")
            parts[-1] += f", in {len(rows)} of {report['row_count']} rows ({named})"
    elif report["gradients"]:
        parts.append(
            f"In {place} the loss is finite, and its gradient is not: first that of "
            f"{report['gradients'][0]}"
        )
    else:
        parts.append(
            f"In {place} loss and gradient are finite (norm {report['gradient_norm']:.3g}), and "
            f"after the step, at a learning rate of {report['learning_rate']:.3g}, weights or loss "
            "are not"
        )
    if report["layer"]:
        parts.append(
            f"The first output that is not finite is that of {report['layer']} "
            f"({report['layer_class']})"
        )
    elif report["terms"]:
        parts.append("The outputs of all layers are finite")
    return ". ".join(parts) + "."
