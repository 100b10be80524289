"""Checks that every layer, objective and model passes, for tests of your own.

    from vaezoo import testing

    def test_my_layer():
        testing.run_layer_test(lambda: MyLayer(3), np.ones((4, 5), "float32"))

They work with any test runner and on both backends. A failed check raises an `AssertionError` that
says what should hold and what was found.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from .core.compile import compiled
from .core.gradients import value_and_gradients
from .core.precision import dtype_policy
from .losses import DiagonalGaussian, Regularizer, Terms
from .losses.objective import Reported

__all__ = [
    "ModelContract",
    "check_serialization",
    "make_terms",
    "run_layer_test",
    "run_model_test",
    "run_objective_test",
]


def check_serialization(instance: Any) -> Any:
    """Checks that an object can be made again from its configuration.

    Fails if the configuration lacks an argument of the constructor, unless that has its default, or
    is no JSON, or if the class is not registered with Keras, or if the new object has another class
    or configuration.

    Args:
        instance: Layer, objective, schedule, initializer or constraint.

    Returns:
        The new object.
    """
    kind, config = type(instance), instance.get_config()
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        # One at its default may be left out, as where files from before have none.
        known = name in config or getattr(instance, name, config) == parameter.default
        holds = name == "self" or variadic or known
        _require(holds, f"`get_config` holds the argument `{name}`", sorted(config))
    serialized = keras.saving.serialize_keras_object(instance)
    # A file holds JSON, and is loaded without running code.
    text = json.dumps(serialized)
    try:
        again = keras.saving.deserialize_keras_object(json.loads(text), safe_mode=True)
    except Exception as error:
        raise AssertionError(
            f"should hold: the configuration makes the object again: {error}"
        ) from error
    _require(type(again) is kind, "the same class is made again", type(again))
    found = json.dumps(keras.saving.serialize_keras_object(again))
    _require(found == text, f"the configuration stays {text}", found)
    return again


def run_layer_test(
    make: Callable[[], keras.Layer],
    *inputs: Any,
    keywords: Mapping[str, Any] | None = None,
    output_shape: Any = None,
    mixed_dtype: str | None = "float32",
    saves_noise: bool = True,
    unused: Sequence[str] = (),
    rtol: float = 1e-5,
    atol: float = 1e-6,
) -> keras.Layer:
    """Checks what every layer should do, in training and in inference where it tells them apart.

    Weights are first moved away from their initial values, so that none is zero. Fails if

    - the configuration is incomplete or makes another layer (`check_serialization`);
    - shapes or dtypes of a symbolic call differ from those of the values, or from `output_shape`;
    - an output is not finite;
    - a model of the layer alone gives other values after saving and loading, or, with
      `saves_noise`, another noise;
    - the compiled layer (XLA) gives other values than the eager one;
    - a gradient is not finite, or that of a trainable weight is zero everywhere;
    - under the policy "mixed_float16" an output is not finite or not of `mixed_dtype`, or a weight
      is not float32.

    Args:
        make: Function of nothing that returns a new layer.
        *inputs: Arrays, the positional arguments of the call; the first axis is the batch.
        keywords: Optional dict of arrays, further arguments of the call.
        output_shape: Optional tuple with None for the batch, or a nest of them as outputs are:
            the expected shape.
        mixed_dtype: Expected dtype of floating outputs under "mixed_float16", or None for layers
            that are never called so.
        saves_noise: Whether noise continues after loading, as with
            `vaezoo.core.random.SavesNoise`. Keras' own layers repeat theirs.
        unused: Names of weights that have no gradient.
        rtol: Relative tolerance between compiled and eager values.
        atol: Absolute tolerance between them.

    Returns:
        The layer, built and with its weights moved.
    """
    keywords = dict(keywords or {})
    arrays = [*map(np.asarray, inputs), *map(np.asarray, keywords.values())]

    def call(layer, tensors, **options):
        given = dict(zip(keywords, tensors[len(inputs) :], strict=True))
        return layer(*tensors[: len(inputs)], **given, **options)

    layer = make()
    check_serialization(layer)
    symbols = [keras.Input(a.shape[1:], dtype=_dtype(a)) for a in arrays]
    symbolic = call(layer, symbols)
    if output_shape is not None:
        shapes = [tuple(s) for s in _shapes(output_shape)]
        found = [tuple(value.shape) for value in _tensors(symbolic)]
        _require(found == shapes, f"the output's shape is {shapes}", found)
    model = keras.Model(symbols, _tensors(symbolic))
    _move(layer)

    state = [ops.convert_to_numpy(variable) for variable in layer.variables]
    loaded = _reloaded(model).get_layer(layer.name)
    draws = [path for path in (v.path for v in layer.variables) if "seed_generator" in path]
    for old, new in zip(layer.variables, loaded.variables, strict=True):
        if "seed_generator" in old.path and not saves_noise:
            new.assign(old)
        same = np.array_equal(ops.convert_to_numpy(old), ops.convert_to_numpy(new))
        _require(same, f"the variable '{old.path}' is loaded as it was saved", new)

    modes: list[dict[str, bool]] = [{}]
    if "training" in inspect.signature(layer.call).parameters:
        modes = [{"training": False}, {"training": True}]

    def run(layer, tensors):
        return [_tensors(call(layer, tensors, **mode)) for mode in modes]

    xla = keras.backend.backend() == "tensorflow" and not draws
    expected = _reference(layer, run, arrays)
    _assign(loaded, state)
    values, gradients = _values_and_gradients(loaded, run, arrays, xla)
    for mode, before, after in zip(modes, expected, values, strict=True):
        _check_values(before, symbolic, len(arrays[0]), mode)
        _check_equal(after, before, f"the loaded, compiled layer, {mode}", rtol, atol)
    names = [f"input {i}" for i, array in enumerate(arrays) if array.dtype.kind == "f"]
    weights = [weight.name for weight in loaded.trainable_weights]
    _check_gradients(gradients, names + weights, set(weights) - set(unused))
    if mixed_dtype:
        with dtype_policy("mixed_float16"):
            half = make()
            halves = [a.astype("float16") if a.dtype.kind == "f" else a for a in arrays]
            call(half, [keras.Input(a.shape[1:], dtype=_dtype(a)) for a in halves])
            values = _reference(half, call, halves)
        for value in filter(_is_floating, _tensors(values)):
            _require(_dtype(value) == mixed_dtype, f"a mixed policy gives {mixed_dtype}", value)
            _require_finite(value, "outputs under a mixed policy")
        for weight in half.trainable_weights:
            _require(_dtype(weight) == "float32", f"'{weight.path}' is float32", weight.dtype)
    _assign(layer, state)
    return layer


def make_terms(mean: Any, log_var: Any, log_px: Any = None, z: Any = None) -> Terms:
    """Returns the `Terms` of diagonal Gaussian posteriors under a standard normal prior.

    In NumPy where everything given is: JAX compiles each operation for each new shape.

    Args:
        mean: `(batch, D)`.
        log_var: `(batch, D)`.
        log_px: Log likelihoods of the draws, `(batch, K)`. Defaults to zeros.
        z: Draws, `(batch, K, D)`. Defaults to the mean, once.
    """

    def log_density(xp, z, mean, log_var):
        squared = xp.square(z - mean[:, None]) * xp.exp(-log_var)[:, None]
        return -0.5 * xp.sum(squared + log_var[:, None] + np.log(2.0 * np.pi), axis=-1)

    xp = np if isinstance(mean, np.ndarray) and isinstance(log_var, np.ndarray) else ops
    z = mean[:, None] if z is None else z
    kl_per_dimension = 0.5 * (xp.square(mean) + xp.exp(log_var) - log_var - 1.0)
    return Terms(
        log_px=np.zeros(z.shape[:2], "float32") if log_px is None else log_px,
        log_pz=log_density(xp, z, 0.0 * mean, 0.0 * log_var),
        log_qz=log_density(xp, z, mean, log_var),
        kl=xp.sum(kl_per_dimension, axis=-1),
        kl_per_dimension=kl_per_dimension,
        posterior=DiagonalGaussian(mean, log_var),
        z=z,
    )


def run_objective_test(
    make: Callable[[], keras.Layer],
    *,
    terms: Callable[..., Terms] = make_terms,
    latent_dim: int = 3,
    num_samples: int = 2,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    charges: bool = True,
) -> keras.Layer:
    """Checks what every objective and every regularizer should do, in training and in evaluation.

    Fails if

    - the configuration is incomplete or makes another object (`check_serialization`);
    - `per_example` is not float32 `(batch,)` or `batch` not a float32 scalar, also under the policy
      "mixed_float16";
    - the report of a training step lacks a name of `report_names` or has another;
    - a value is not finite, in a batch of one row, too, or with log likelihoods beyond float16;
    - the compiled objective (XLA) gives other values than the eager one;
    - a gradient by mean, log variance or log likelihood is not finite, or all of them are zero; if
      nothing is charged, one is not zero.

    Args:
        make: Function of nothing that returns a new `Objective` or `Regularizer`.
        terms: Function like `make_terms`, for posteriors of another kind.
        latent_dim: Positive int, D.
        num_samples: Positive int, draws for each example, K.
        rtol: Relative tolerance between compiled and eager values.
        atol: Absolute tolerance between them.
        charges: Whether the loss is changed; a regularizer may only measure.

    Returns:
        The objective, after its first training step.
    """
    objective = make()
    check_serialization(objective)
    _prepare(objective, latent_dim)
    rows = objective.min_batch_size + 4
    rng = np.random.default_rng(0)
    mean, log_var = rng.normal(size=(2, rows, latent_dim)).astype("float32")
    noise = rng.normal(size=(rows, num_samples, latent_dim)).astype("float32")
    log_px = rng.normal(-9.0, 1.0, size=(rows, num_samples)).astype("float32")

    def loss_of(part, count, mean, log_var, log_px, training):
        xp = np if isinstance(mean, np.ndarray) else ops
        z = mean[:, None] + xp.exp(0.5 * log_var)[:, None] * noise[:count]
        num_examples = getattr(part, "num_examples", None)
        index = np.arange(count, dtype="int32") % (num_examples or count)
        found = terms(mean, log_var, log_px, z)._replace(index=index)
        loss = part(found, training=training)
        report = {k: v.value if isinstance(v, Reported) else v for k, v in loss.report.items()}
        parts = loss.per_example, loss.batch, report
        return keras.tree.map_structure(ops.convert_to_tensor, parts)

    def check(part, count, training, log_px=log_px):
        loss = loss_of(part, count, mean[:count], log_var[:count], log_px[:count], training)
        for name, value, shape in (("per_example", loss[0], (count,)), ("batch", loss[1], ())):
            found = tuple(value.shape), _dtype(value)
            _require(found == (shape, "float32"), f"`{name}` is float32 of shape {shape}", found)
            _require_finite(value, f"`{name}` of {count} rows, training={training}")
        names = set(part.report_names)
        good = set(loss[2]) == names or (not training and set(loss[2]) <= names)
        _require(good, f"the report holds {sorted(names)}", sorted(loss[2]))
        for name, value in loss[2].items():
            _require_finite(value, f"'{name}' of {count} rows, training={training}")
        return loss

    state = [ops.convert_to_numpy(variable) for variable in objective.variables]
    draws = any("seed_generator" in variable.path for variable in objective.variables)
    xla = keras.backend.backend() == "tensorflow" and not draws
    for training in (False, True):
        _assign(objective, state)
        eager = check(objective, rows, training)
        after = [ops.convert_to_numpy(variable) for variable in objective.variables]
        _assign(objective, state)

        def step(mean, log_var, log_px, training=training):
            def scalar(*at):
                parts = loss_of(objective, rows, *at, training)
                return ops.mean(parts[0]) + parts[1], parts

            others = objective.variables
            (_, parts), found = value_and_gradients(scalar, [], others, [mean, log_var, log_px])
            return parts, found

        values, gradients = compiled(objective, step, xla)(mean, log_var, log_px)
        what = f"the compiled objective, training={training}"
        _check_equal(_tensors(values), _tensors(eager), what, rtol, atol)
        _check_gradients(gradients, ["mean", "log_var", "log_px"], ())
        flat = np.concatenate([ops.convert_to_numpy(g).ravel() for g in gradients])
        # What acts in training alone has none in evaluation.
        if charges:
            _require(np.any(flat != 0.0) or not training, "the loss has a gradient", "zeros")
        else:
            _require(not np.any(flat), "the loss has no gradient", "others than zero")
    with dtype_policy("mixed_float16"):
        mixed = make()
        _prepare(mixed, latent_dim)
        # float16 ends at 65504.
        check(mixed, rows, training=True, log_px=np.full_like(log_px, -3e5))
    check(objective, 1, training=True)
    _assign(objective, after)
    return objective


class ModelContract:
    """A model trained for two short fits, and the checks that every model passes.

    Trains under XLA in full batches, then on a last batch of a single row.

    Args:
        make: Function of nothing that returns a new model, not compiled.
        x: Training set of a few batches and one row, an array.
        batch_size: Positive int, fewer than the rows.
        step_logs: Names that the training step logs beside those of the objective.
        max_traces: Most traces of the encoder by build and first fit: one, and one for each shape.
    """

    def __init__(
        self,
        make: Callable[[], keras.Model],
        x: Any,
        *,
        batch_size: int = 16,
        step_logs: Sequence[str] = (),
        max_traces: int = 3,
    ) -> None:
        self.make, self.x = make, x
        self.step_logs, self.max_traces = set(step_logs), max_traces
        self.model = model = make()
        traces = _count_calls(model.encoder)
        # Plain descent: Adam's first steps are equally long in all dimensions, which leaves a
        # vector of constrained length where it is.
        model.compile(keras.optimizers.SGD(0.01, clipnorm=1.0), jit_compile=True)
        model.build((None, *x.shape[1:]))
        self.before = _by_path(model.trainable_variables)
        rows, first = len(x), _FirstStep()

        def fit(part, **options):
            # Part of the training set, so that their places in it have to be given.
            y = {"index": np.arange(rows)[part]} if model.num_examples else None
            return model.fit(x[part], y, batch_size=batch_size, verbose=0, **options).history

        # XLA takes seconds for a further shape on TensorFlow, where two batches without any graph,
        # one of the full size and the last one, take none.
        apart = keras.backend.backend() == "tensorflow"
        whole = slice(rows // batch_size * batch_size if apart else rows)
        fit(whole, callbacks=[first])
        self.after, self.traces = first.weights, traces()
        self.history = fit(whole, epochs=2)
        self.later_traces = traces() - self.traces
        if apart:
            for eager in (True, False):
                model.run_eagerly, model.jit_compile = eager, not eager
                model.make_train_function(force=True)
                if eager:
                    fit(slice(whole.stop - batch_size, rows))
        self.deterministic = not model.head.has_density

    def check_weights(self) -> None:
        """Checks that one step moves every trainable weight, and that all stay finite."""
        _require(set(self.before) == set(self.after), "the weights are built before training", "")
        for path, value in self.before.items():
            _require(np.any(self.after[path] != value), f"the first step moves '{path}'", value)
        for path, value in _by_path(self.model.variables).items():
            _require(np.all(np.isfinite(value)), f"'{path}' is finite", value)

    def check_logs(self) -> None:
        """Checks that logs hold loss, distortion, rate, and what is reported, all finite."""
        names = {*self.model.objective.report_names, *self.step_logs}
        names |= {"loss", "distortion", "rate"}
        _require(set(self.history) == names, f"the logs hold {sorted(names)}", set(self.history))
        for name, epochs in self.history.items():
            # A code without density has no finite rate, and says so.
            infinite = self.deterministic and name == "rate"
            good = np.isposinf(epochs) if infinite else np.isfinite(epochs)
            _require(np.all(good), f"the log '{name}' is {'inf' if infinite else 'finite'}", epochs)

    def check_traces(self) -> None:
        """Checks that later epochs and a second `fit` trace, and so compile, nothing again."""
        most = self.max_traces
        _require(1 <= self.traces <= most, f"a fit traces at most {most} times", self.traces)
        _require(self.later_traces == 0, "a second fit traces nothing", self.later_traces)

    def check_evaluate(self, training_only: Sequence[str] = ()) -> None:
        """Checks that `evaluate` reports what training reports, but for `training_only`."""
        with _without_graphs(self.model):
            logs = self.model.evaluate(self.x, batch_size=len(self.x), verbose=0, return_dict=True)
        names = set(self.history) - set(training_only)
        _require(set(logs) == names, f"`evaluate` reports {sorted(names)}", sorted(logs))
        for name in ("loss", "distortion"):
            _require_finite(logs[name], f"'{name}' of `evaluate`")

    def check_log_prob(self) -> None:
        """Checks that `log_prob` is finite, float32, one a row, or refused without a density."""
        if self.deterministic:
            try:
                self.model.log_prob(self.x)
            except ValueError as error:
                _require("needs a posterior with a density" in str(error), "says why", error)
                return
            raise AssertionError("`log_prob` should be refused: the posterior has no density")
        found = self.model.log_prob(self.x, num_samples=10)
        _require(found.shape == (len(self.x),), "`log_prob` is one number a row", found.shape)
        _require(found.dtype == "float32", "`log_prob` is float32", found.dtype)
        _require_finite(found, "`log_prob`")

    def check_generate(self) -> None:
        """Checks that `generate` repeats by its seed, differs by others, and between rows."""
        first, again, other = (self.model.generate(5, seed=seed) for seed in (1, 1, 2))
        shape = (5, *self.x.shape[1:])
        _require(first.shape == shape, f"five are of shape {shape}", first.shape)
        _require(np.array_equal(first, again), "equal seeds give equal samples", (first, again))
        different = np.any((first != other).reshape(5, -1), axis=1)
        _require(np.all(different), "other seeds give other samples", (first, other))
        _require(len(np.unique(first, axis=0)) == 5, "no two samples are equal", first)

    def check_reload(self, rtol: float = 1e-5, atol: float = 1e-6) -> keras.Model:
        """Checks that a saved model has the same configuration, outputs and noise; returns it."""
        loaded = _reloaded(self.model)
        config, config_found = (json.dumps(m.get_config()) for m in (self.model, loaded))
        _require(config_found == config, f"the configuration stays {config}", config_found)
        shapes, shapes_found = ([v.shape for v in m.variables] for m in (self.model, loaded))
        _require(shapes_found == shapes, f"variables have the shapes {shapes}", shapes_found)
        outputs = []
        for model in (self.model, loaded, loaded):
            with _without_graphs(model):
                outputs.append(model.predict(self.x, batch_size=len(self.x), verbose=0))
        one, two, later = outputs
        _check_equal(_tensors(two), _tensors(one), "the loaded model", rtol, atol)
        # It was a draw: the next one differs, unless the encoder is deterministic.
        same = np.allclose(later.z, two.z, rtol=rtol, atol=atol)
        _require(same == self.deterministic, "draws are new each time", same)
        return loaded


def run_model_test(make: Callable[[], keras.Model], x: Any, **options: Any) -> ModelContract:
    """Runs all checks of `ModelContract`: training, logs, evaluation, inference and saving.

    Fails at the first check that does not hold; each check of `ModelContract` says what it wants.

    Args:
        make: Function of nothing that returns a new `vaezoo.zoo.VAE`, not compiled.
        x: Training set, an array of at least 33 rows by default.
        **options: Arguments of `ModelContract`.

    Returns:
        The `ModelContract`, with the trained `model`.
    """
    contract = ModelContract(make, x, **options)
    contract.check_weights()
    contract.check_logs()
    contract.check_traces()
    contract.check_evaluate()
    contract.check_log_prob()
    contract.check_generate()
    contract.check_reload()
    return contract


class _FirstStep(keras.callbacks.Callback):
    """Keeps the trainable weights as the first step left them."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.weights = _by_path(self.model.trainable_variables)


def _require(holds, rule, found):
    if not holds:
        raise AssertionError(f"should hold: {rule}. Found: {found}")


def _require_finite(value, what):
    found = ops.convert_to_numpy(ops.cast(value, "float32"))
    _require(np.all(np.isfinite(found)), f"{what} are finite", found)


def _dtype(value):
    return keras.backend.standardize_dtype(value.dtype)


def _is_floating(value):
    return "float" in _dtype(value)


def _tensors(structure):
    """The tensors of a nest, in order."""
    return [leaf for leaf in keras.tree.flatten(structure) if hasattr(leaf, "dtype")]


def _shapes(nest):
    """The shapes of a nest of them, in order; a shape is a tuple of ints and None."""
    if all(size is None or isinstance(size, int) for size in nest):
        return [nest]
    return [shape for part in nest for shape in _shapes(part)]


def _by_path(variables):
    return {variable.path: ops.convert_to_numpy(variable) for variable in variables}


def _assign(layer, values):
    for variable, value in zip(layer.variables, values, strict=True):
        variable.assign(value)


def _move(layer):
    """Moves trainable weights from their initial values, where zeros hide what depends on them."""
    rng = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        value = ops.convert_to_numpy(weight)
        weight.assign(value + 0.1 * rng.normal(size=value.shape))


def _prepare(objective, latent_dim):
    for part in (objective, *getattr(objective, "regularizers", ())):
        if isinstance(part, Regularizer):
            part.prepare(latent_dim)


def _reloaded(model):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return keras.saving.load_model(path)


@contextlib.contextmanager
def _without_graphs(model):
    """On TensorFlow a single call is faster without a graph; `fit` has one, under XLA."""
    before = model.run_eagerly, model.jit_compile
    if keras.backend.backend() == "tensorflow":
        model.run_eagerly, model.jit_compile = True, False
    try:
        yield
    finally:
        model.run_eagerly, model.jit_compile = before


def _count_calls(layer):
    """Counts how often Python runs through a layer; returns a function that tells it."""
    call, counted = layer.call, []

    def counts(*args, **kwargs):
        counted.append(1)
        return call(*args, **kwargs)

    layer.call = counts
    return lambda: len(counted)


def _check_equal(values, expected, what, rtol, atol):
    for value, other in zip(values, expected, strict=True):
        value, other = map(ops.convert_to_numpy, (value, other))
        np.testing.assert_allclose(value, other, rtol, atol, err_msg=f"values of {what}")


def _check_values(values, symbolic, rows, mode):
    for value, expected in zip(values, _tensors(symbolic), strict=True):
        shape = tuple(rows if size is None else size for size in expected.shape)
        found = tuple(value.shape)
        _require(found == shape, f"values have the shape of a symbolic call, {shape}", found)
        same = _dtype(value) == _dtype(expected)
        _require(same, f"values have the dtype of a symbolic call, {expected.dtype}", value.dtype)
        if _is_floating(value):
            _require_finite(value, f"outputs, {mode},")


def _check_gradients(gradients, names, needed):
    for name, gradient in zip(names, gradients, strict=True):
        found = ops.convert_to_numpy(gradient)
        _require(np.all(np.isfinite(found)), f"the gradient by {name} is finite", found)
        _require(name not in needed or np.any(found != 0.0), f"{name} has a gradient", "zeros")


def _reference(layer, run, arrays):
    """Values of a function of a layer and tensors, eager on TensorFlow.

    Operation by operation JAX compiles each of them, which takes many times as long as at once.
    """
    if keras.backend.backend() == "jax":
        return compiled(layer, lambda *tensors: run(layer, tensors))(*arrays)
    return run(layer, [ops.convert_to_tensor(array) for array in arrays])


def _values_and_gradients(layer, run, arrays, xla):
    """Outputs, and gradients of a weighted sum of them by floating inputs and by weights."""
    floats = [i for i, array in enumerate(arrays) if array.dtype.kind == "f"]

    def step(*tensors):
        def scalar(*at):
            given = list(tensors)
            for i, tensor in zip(floats, at, strict=True):
                given[i] = tensor
            outputs = run(layer, given)
            # Of different signs, so that what sums to a constant has a gradient as well.
            total = sum(
                ops.sum(ops.cast(value, "float32") * ops.cos(_number(value)))
                for value in filter(_is_floating, _tensors(outputs))
            )
            return total, outputs

        at = [tensors[i] for i in floats]
        others = layer.non_trainable_variables
        (_, outputs), found = value_and_gradients(scalar, layer.trainable_variables, others, at)
        return outputs, found

    return compiled(layer, step, xla)(*arrays)


def _number(value):
    """Numbers a tensor's entries."""
    return ops.reshape(ops.arange(ops.size(value), dtype="float32"), ops.shape(value))
