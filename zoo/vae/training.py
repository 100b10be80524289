"""Training of the model class: steps over checked data, from `compile` to `evaluate`."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ...core.arrays import EpochNumber, RowOrder, batches_of, epochs_of
from ...core.checks import check_flag, check_integer, check_keras, wrong
from ...core.compile import compiles_by_size, padded, rows_to_compile, run_once, stateless
from ...core.conditions import data_of, num_rows, with_data
from ...core.convolution import step_options
from ...core.masks import num_valid
from ...core.replicas import check_strategy, num_devices, num_tf_replicas, strategy_scope
from ...core.resuming import Resuming
from ...layers import awaits_initialization, initialize_from_data
from .data import check_batch, check_options, clear_errors, read_data, read_validation_data
from .epochs import clocks_of, length_of_epoch, own_learning_rate, tell_clocks, warn_of_ramps
from .execution import steps_at_once
from .initialization import first_examples
from .inputs import Batch, Reader
from .memory import explains_memory
from .padding import FilledStep, Sizes, UnmaskedLosses
from .scale import watched
from .xla import slower_with_xla

if TYPE_CHECKING:
    from typing import Any

    # What it uses of `VAE`.
    from keras import Model as _Model

    from ...core.types import Config, Examples, KerasObject, Tensor
    from .model import Output
else:
    _Model = object

TENSORFLOW = keras.backend.backend() == "tensorflow"


class Training(_Model):
    """Base class of `VAE` for training: checks data and runs Keras' loops over them.

    `VAE` defines the parts, `build`, `params` and the loss.
    """

    train_function: Any
    test_function: Any
    _test_functions: dict[int, Any]

    def compile(
        self,
        optimizer: KerasObject = "adam",
        *,
        jit_compile: bool | str = "auto",
        run_eagerly: bool = False,
        steps_per_execution: int | str = "auto",
        **kwargs: Any,
    ) -> None:
        """Configures training; the objective is the model's own.

        Args:
            optimizer: Keras optimizer or its name.
            jit_compile: Whether XLA compiles the steps. `"auto"` means yes, except for eager runs
                and under several `tf.distribute` replicas, which XLA cannot compile, on TensorFlow
                with LSTMs of cuDNN, which it cannot either, and on TensorFlow's CPU for networks
                that are faster without it (recurrent layers, PixelCNNs, plain convolutions).
                `model.jit_compile` holds the outcome; a saved model decides anew where it is
                loaded.
            run_eagerly: Whether to run step by step in Python.
            steps_per_execution: Training steps in one call of the compiled function. `"auto"` is 1,
                except in a long enough `fit` of dense networks on TensorFlow's CPU by XLA, without
                callbacks that act on batches: up to 32 of its short steps are then taken at once,
                with the same values.
            **kwargs: Further arguments of `keras.Model.compile`, by name.

        Raises:
            ValueError: If an argument is out of range, losses or metrics are given, XLA is asked
                for where it cannot work, or the model was made under a `tf.distribute` strategy of
                several machines.
        """
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f"`{name}` must not be given: a VAE minimizes its `objective` and logs its "
                    f"terms. Received: {name}={kwargs[name]!r}"
                )
        optimizer = check_keras("optimizer", optimizer, keras.optimizers)
        if optimizer is None:
            raise wrong("optimizer", "an optimizer of Keras or its name", None)
        if jit_compile != "auto" and type(jit_compile).__name__ not in ("bool", "bool_"):
            raise wrong("jit_compile", "True, False or 'auto'", jit_compile)
        run_eagerly = check_flag("run_eagerly", run_eagerly)
        if steps_per_execution != "auto":
            steps_per_execution = check_integer("steps_per_execution", steps_per_execution)
        check_strategy(self)
        self._asked_jit_compile = jit_compile
        self._asked_steps = steps_per_execution
        replicas = num_tf_replicas(self)
        cudnn = keras.backend.backend() == "tensorflow" and self.uses_cudnn
        if jit_compile == "auto":
            possible = not run_eagerly and replicas == 1 and not cudnn
            jit_compile = possible and not slower_with_xla(self)
        elif jit_compile and cudnn:
            raise ValueError(
                "`jit_compile` must be False or 'auto' with networks of `use_cudnn=True`: XLA "
                "cannot compile cuDNN's LSTM on TensorFlow. Received: jit_compile=True"
            )
        elif jit_compile and replicas > 1:
            raise ValueError(
                "`jit_compile` must be False or 'auto' under several `tf.distribute` replicas, "
                "which XLA cannot compile. Received: "
                f"jit_compile={jit_compile}, replicas={replicas}"
            )
        super().compile(
            optimizer=optimizer,
            jit_compile=jit_compile,
            run_eagerly=run_eagerly,
            steps_per_execution=1 if steps_per_execution == "auto" else steps_per_execution,
            **kwargs,
        )
        # Keras compiles for a number of steps at once: that of the step, and other evaluations.
        self._steps_of_step, self._test_functions = self.steps_per_execution, {}
        own_learning_rate(self.optimizer)

    def get_compile_config(self) -> Config:
        """Returns the arguments of `compile` as they were given."""
        config = super().get_compile_config()
        if not config:
            return config
        config = {**config, "jit_compile": self._asked_jit_compile}
        if self._asked_steps == "auto":
            # As in files from before there was a choice.
            del config["steps_per_execution"]
        return config

    def compile_from_config(self, config: Config) -> None:
        """Compiles as a saved model was compiled."""
        config = keras.saving.deserialize_keras_object(config)
        if num_tf_replicas(self) > 1:
            config["jit_compile"] = "auto"
        self.compile(**config)
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @explains_memory
    def fit(
        self,
        x: Tensor = None,
        y: Tensor = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Any = None,
        validation_split: float | None = 0.0,
        validation_data: Examples | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does, after checking the data.

        Args:
            x: Inputs: array, `tf.data.Dataset`, `PyDataset` or generator; of a conditional model
                a dict of arrays, or batches of such dicts. The order of an array's
                rows depends on the global seed when `fit` begins and on the number of the epoch.
                On TensorFlow each epoch over a `tf.data.Dataset` may wait at its end for the
                thread that tunes the pipeline; `options.autotune.enabled = False` ends that.
            y: Optional targets or labels, see the class. A model that classifies its training
                examples (`num_examples`) needs their indices, too: arrays get them here; batches
                of other sources must be `(x, {"index": index})` or `(x, {"index": index, "y": y})`,
                as `vaezoo.data.load(..., with_index=True)` and `vaezoo.data.with_index` make them.
            batch_size: Int; 32 by default for arrays.
            epochs: Int.
            verbose: As in Keras.
            callbacks: As in Keras.
            validation_split: As in Keras.
            validation_data: As in Keras, or an array of inputs.
            **kwargs: Further arguments of `keras.Model.fit`, by name.

        Raises:
            TypeError: If the data are not numbers.
            ValueError: If they are empty, of the wrong shape, outside the likelihood's support,
                not finite, in batches too small for a batch statistic of the model, or without
                the indices that it needs; or if a schedule counts in epochs and nothing says how
                long these are.
            FloatingPointError: If the loss becomes NaN or infinite; the message tells the data's
                scale.

        Warns:
            If the data are not scaled, or the scale of a Gaussian likelihood is above theirs.
            If a schedule of the objective does not end in time: before the training, and before
            a `PlateauDecay` may lower the learning rate.
        """
        epochs = check_integer("epochs", epochs)
        check_options(kwargs, verbose, callbacks, epochs)
        data = read_data(
            self,
            x,
            y,
            kwargs.pop("sample_weight", None),
            batch_size=batch_size,
            training=True,
            class_weight=kwargs.pop("class_weight", None),
            # As in Keras, the split counts only where no validation data are given.
            validation_split=validation_split,
            split=validation_data is None,
        )
        validation = data.held_out
        if validation_data is not None:
            size = kwargs.get("validation_batch_size") or batch_size
            validation = read_validation_data(self, validation_data, size).packed
        data = self._initialize_from(data)._replace(given=x)
        self._build_optimizer()
        length = length_of_epoch(data.x, batch_size, kwargs.get("steps_per_epoch"))
        self._count_epochs(length, epochs, kwargs.get("initial_epoch", 0), callbacks)
        epochs_of_x = epochs_of(x)
        if epochs_of_x is not None or hasattr(data.x, "element_spec"):
            # Their order is their own: Keras would permute the batches of a `PyDataset` by global
            # random numbers, and warn of its own default for a `tf.data.Dataset`.
            kwargs.setdefault("shuffle", False)
        callbacks = watched(self, data.observed, callbacks)
        if epochs_of_x is not None:
            callbacks = _numbered_first(callbacks, epochs_of_x)
        with clear_errors(self):
            return self._fit(data, batch_size, epochs, verbose, callbacks, validation, **kwargs)

    def _fit(self, data, batch_size, epochs, verbose, callbacks, validation_data, **kwargs):
        """Trains on `Data`."""
        x, y, weight = data.x, data.y, data.sample_weight
        shuffle = kwargs.get("shuffle", True)
        if self._orders_rows_of(x, kwargs.get("steps_per_epoch")) and shuffle != "batch":
            order = RowOrder(num_rows(x), np.random.randint(2**31), shuffle)
            x, y, weight = _batched((x, y, weight), batch_size, order), None, None
            kwargs["shuffle"] = False
            callbacks = _numbered_first(callbacks, order)
        callbacks, saver = _saved(callbacks, data.given)
        at_once = self.steps_per_execution
        if self.compiled and self._asked_steps == "auto":
            at_once = steps_at_once(self, data, batch_size, epochs, callbacks, kwargs)
        steps = kwargs.get("validation_steps")
        held_out = keras.utils.unpack_x_y_sample_weight(validation_data)
        if TENSORFLOW and self._orders_rows_of(held_out[0], steps):
            size = kwargs.get("validation_batch_size") or batch_size
            validation_data = _batched(held_out, size)
        try:
            with self._taking(at_once):
                return super().fit(
                    x,
                    y,
                    batch_size,
                    epochs,
                    verbose,
                    callbacks,
                    validation_data=validation_data,
                    sample_weight=weight,
                    **kwargs,
                )
        finally:
            if saver is not None:
                saver.end_fit()

    @contextlib.contextmanager
    def _taking(self, steps):
        """Lets Keras' loops take so many steps in one call of a compiled function."""
        given = self.steps_per_execution
        if not self.compiled:
            yield
            return
        if self._steps_of_step != steps:
            self.train_function = None
        if steps == given:
            yield
            return
        others = self._test_functions
        others[given] = self.test_function
        self.steps_per_execution, self.test_function = steps, others.pop(steps, None)
        try:
            yield
        finally:
            # Unless a callback has compiled the model anew.
            if others is self._test_functions:
                others[steps] = self.test_function
                self.steps_per_execution, self.test_function = given, others.pop(given, None)

    def _orders_rows_of(self, x, steps):
        """Whether batches of `x` are made here: Keras splits them over devices and by `steps`."""
        return _is_array(x) and steps is None and num_devices(self) == 1

    def _count_epochs(self, length, epochs, initial_epoch, callbacks):
        if not self.compiled:
            # Keras has its own words for that.
            return
        if length is not None:
            self.set_steps_per_epoch(length)
            warn_of_ramps(self, length, epochs, initial_epoch, callbacks)
        elif clocks_of(self):
            raise ValueError(
                "`steps_per_epoch` must be given, because a schedule counts in epochs and the "
                "number of batches of `x` is unknown; a `tf.data.Dataset` can state it by "
                "`dataset.apply(tf.data.experimental.assert_cardinality(n))`. Received: "
                "steps_per_epoch=None"
            )

    def set_steps_per_epoch(self, steps_per_epoch: int) -> None:
        """Says how many steps an epoch has to all schedules of `unit="epochs"`.

        `fit` does so; a loop of one's own over `train_on_batch` has to, before its first step. If
        there are such schedules and the number is new, the training step is compiled anew.

        Args:
            steps_per_epoch: Positive int.

        Raises:
            RuntimeError: If the model is not compiled.
            ValueError: If it is no positive integer.
        """
        if not self.compiled:
            raise RuntimeError("`set_steps_per_epoch` must be called after `compile`.")
        if tell_clocks(clocks_of(self), check_integer("steps_per_epoch", steps_per_epoch)):
            self.train_function = None

    def _initialize_from(self, data):
        """Initializes weight-normalized layers that have seen no data yet, see `fit`.

        They see E[z|x], each dimension standardized. The official code's head is weight-normalized,
        whose means start so; those of a plain head may start close together, and layers that are
        scaled up for them would not bear draws. Codes without a density are what they are.

        Returns:
            `Data`, with nothing consumed.
        """
        if data.first is None:
            return data
        with strategy_scope(self):
            if not self.built:
                self.build((None, *data_of(data.first).shape[1:]))
            if not awaits_initialization(self):
                return data
            data, examples, target = first_examples(data, self.initial_examples)

            def see(examples, target):
                with initialize_from_data():
                    features = self.features(examples)
                    # In batch statistics, which inference does not have yet, there is no dropout.
                    statistics = self.head.min_batch_size > 1
                    z = self.head.posterior(features, training=statistics).mean
                    if self.head.has_density and not statistics:
                        mean, variance = ops.moments(z, axes=0)
                        z = (z - mean) * ops.rsqrt(variance + 1e-12)
                    z = z[:, None]
                    self.params(z, target)
                    self.prior.log_prob(z)

            run_once(self, see, *map(self._in_event_dtype, (examples, target)))
        return data

    def _in_event_dtype(self, x):
        values = ops.cast(data_of(x), self.event_dtype)
        return with_data(keras.tree.map_structure(ops.convert_to_tensor, x), values)

    def _build_optimizer(self):
        """Makes the optimizer's variables, if the model has its own.

        On TensorFlow Keras makes them in the step, which is then traced twice: `fit` of one batch
        of `du_vae_omniglot` takes 22 instead of 39 seconds of processor time.
        """
        if TENSORFLOW and self.compiled and self.built and not self.optimizer.built:
            with strategy_scope(self):
                self.optimizer.build(self.trainable_variables)

    def _get_jax_state(self, *args, **kwargs):
        """Keras' hand-over of the variables to a compiled step, which donates their memory.

        Keras (3.15.1) ends a `fit` under `use_ema=True`, and an epoch under `SwapEMAWeights`, with
        one JAX array in both a weight and its average, which cannot be donated twice, and would
        vanish from the average after an evaluation. To be removed once
        `Optimizer.finalize_variable_values` copies.
        """
        seen = set()
        # A model that was never compiled has no such attribute.
        optimizer = getattr(self, "optimizer", None)
        for variable in (*self.variables, *getattr(optimizer, "variables", ())):
            if id(variable.value) in seen:
                variable.assign(ops.copy(variable.value))
            seen.add(id(variable.value))
        state = super()._get_jax_state(*args, **kwargs)
        if kwargs.get("purge_model_variables"):
            # Where the first batch of a step cannot be made, Keras has lost what it took out.
            names = [name for name, wanted in kwargs.items() if wanted]
            self._jax_state = dict(zip(names, state, strict=False))
        return state

    def jax_state_sync(self) -> None:
        """Puts back the variables that Keras took out of the model for compiled steps on JAX."""
        values = keras.tree.flatten(getattr(self, "_jax_state", None) or {})
        # Those that a failed step has used up are gone.
        if not any(value.is_deleted() for value in values):
            super().jax_state_sync()

    @explains_memory
    def evaluate(
        self,
        x: Tensor = None,
        y: Tensor = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Tensor = None,
        **kwargs: Any,
    ) -> Any:
        """Evaluates as `keras.Model.evaluate` does, after checking the data.

        Args:
            x: Inputs: array, `tf.data.Dataset`, `PyDataset` or generator.
            y: Optional targets or labels, see the class.
            batch_size: Int; 32 by default for arrays.
            verbose: As in Keras.
            sample_weight: Optional `(n,)`, weights of the examples of arrays.
            **kwargs: Further arguments of `keras.Model.evaluate`.

        Returns:
            List of the logged values, or dict under `return_dict=True`.

        Raises:
            TypeError: If the data are not numbers.
            ValueError: If they are empty, of the wrong shape, outside the likelihood's support or
                not finite.
        """
        # `fit` has checked its validation data and hands over its own iterator.
        if not kwargs.get("_use_cached_eval_dataset"):
            check_options(kwargs, verbose, kwargs.get("callbacks"))
            data = read_data(self, x, y, sample_weight, batch_size=batch_size)
            x, y, sample_weight = data.x, data.y, data.sample_weight
        self.batch_sizes = _sizes_of(x, batch_size, kwargs.get("steps"))
        if TENSORFLOW and self._orders_rows_of(x, kwargs.get("steps")):
            x, y, sample_weight = _batched((x, y, sample_weight), batch_size), None, None
        with clear_errors(self):
            return super().evaluate(x, y, batch_size, verbose, sample_weight, **kwargs)

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the step of `fit` as Keras does; on JAX with options of the compiler for CPUs."""
        made = self.train_function is not None and not force
        if not made:
            self._steps_of_step = self.steps_per_execution
        compiled = self.jit_compile and not self.run_eagerly
        options = step_options() if compiled and not made else {}
        if (
            not options
            or keras.distribution.distribution() is not None
            or keras.config.is_nnx_enabled()
        ):
            return super().make_train_function(force)
        import jax

        step = jax.jit(self.train_step, donate_argnums=0, compiler_options=options)
        self.train_function = self._make_function(step)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Makes the step of `evaluate` as Keras does; on JAX it is compiled for few sizes alone."""
        if force and self.compiled:
            self._test_functions.clear()
        super().make_test_function(force)
        made = isinstance(self.test_function, FilledStep)
        compiled = self.jit_compile and not self.run_eagerly
        if keras.backend.backend() == "jax" and compiled and not made:
            self.test_function = FilledStep(self.test_function, self)
        return self.test_function

    def test_step(self, *arguments: Any) -> Any:
        """Keras' evaluation step: of the data on TensorFlow, of state and data on JAX.

        Of a batch that is filled up, Keras' own step would count all rows in the logged loss.
        """
        *state, data = arguments
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        valid = Batch.unpack(x, y).valid
        if valid is None:
            return super().test_step(*arguments)

        def step():
            output = self(x, training=False)
            loss = self.compute_loss(x, y, output, sample_weight, training=False)
            self.update_loss(loss, num_valid(x, valid))
            return self.get_metrics_result()

        groups = self.trainable_variables, self.non_trainable_variables, self.metrics_variables
        logs, new, added = stateless(step, groups, state[0], collect_losses=True)
        if added:
            raise UnmaskedLosses
        return logs, new

    def update_loss(self, value: Any, rows: Any) -> None:
        """Adds the loss of a batch of `rows` examples to the logged one."""
        tracker = next(metric for metric in self.metrics if metric.name == "loss")
        tracker.update_state(value, sample_weight=rows)

    @explains_memory
    def predict(
        self, x: Tensor, batch_size: int | None = None, verbose: int | str = "auto", **kwargs: Any
    ) -> Output:
        """Runs the model as `keras.Model.predict` does, after checking the data.

        Args:
            x: Inputs: array, `tf.data.Dataset`, `PyDataset` or generator.
            batch_size: Int; 32 by default for arrays.
            verbose: As in Keras.
            **kwargs: Further arguments of `keras.Model.predict`, by name.

        Returns:
            `Output` of NumPy arrays.

        Raises:
            TypeError: If the data are not numbers.
            ValueError: If they are empty, of the wrong shape, outside the likelihood's support or
                not finite.
        """
        check_options(kwargs, verbose, kwargs.get("callbacks"))
        data = read_data(self, x, batch_size=batch_size, observed=False)
        x = _filled_up(self, data.x, batch_size or 32)
        given = x
        if TENSORFLOW and self._orders_rows_of(x, kwargs.get("steps")):
            given = _batched((x, None, None), batch_size)
        with clear_errors(self):
            found = super().predict(given, batch_size, verbose, **kwargs)
        if x is data.x:
            return found
        return _first_rows(found, num_rows(data.x))

    def train_on_batch(
        self,
        x: Tensor,
        y: Tensor = None,
        sample_weight: Tensor = None,
        class_weight: dict[Any, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Takes a step as `keras.Model.train_on_batch` does, after checking the batch as `fit`."""
        reader = Reader(self, training=True, class_weight=class_weight)
        batch = check_batch(self, reader, x, y, sample_weight)
        self._build_optimizer()
        return super().train_on_batch(*batch, return_dict=return_dict)

    def test_on_batch(
        self, x: Tensor, y: Tensor = None, sample_weight: Tensor = None, return_dict: bool = False
    ) -> Any:
        """Evaluates as `keras.Model.test_on_batch` does, after checking the batch."""
        batch = check_batch(self, Reader(self), x, y, sample_weight)
        self.batch_sizes = Sizes(math.inf)
        return super().test_on_batch(*batch, return_dict=return_dict)

    def predict_on_batch(self, x: Tensor) -> Any:
        """Runs the model as `keras.Model.predict_on_batch` does, after checking the batch."""
        x, _, _ = check_batch(self, Reader(self, observed=False), x)
        rows = num_rows(x)
        if compiles_by_size(noise=True) and keras.distribution.distribution() is None:
            shape = tuple(data_of(x).shape[1:])
            compiled = self._sizes_of_predictions.setdefault(shape, set())
            x = _with_rows(x, Sizes(math.inf).next(rows, compiled))
        found = super().predict_on_batch(x)
        return found if num_rows(x) == rows else _first_rows(found, rows)


def _batched(parts, batch_size, order=None):
    x, y, weight = parts
    # Parts that are missing at the end have no place in a batch.
    arrays = (x,) if y is None and weight is None else (x, y) if weight is None else parts
    return batches_of(arrays, batch_size or 32, order or RowOrder(num_rows(x), shuffle=False))


def _numbered_first(callbacks, epochs):
    """The callbacks of a `fit`, behind the one that tells the data which epoch begins."""
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return [epochs, *callbacks]
    kept = [one for one in callbacks.callbacks if not isinstance(one, EpochNumber)]
    callbacks.callbacks = [epochs, *kept]
    return callbacks


def _saved(callbacks, data):
    """The callbacks of a `fit` with the one that saves it in its place, and that one or None."""
    given = isinstance(callbacks, keras.callbacks.CallbackList)
    items = callbacks.callbacks if given else callbacks
    savers = [one for one in items if isinstance(one, Resuming)]
    if not savers:
        return callbacks, None
    if len(savers) > 1:
        raise ValueError(
            "`callbacks` must have one `Checkpoint` at most; a `Run` has one of its own. Received: "
            f"{len(savers)}"
        )
    (saver,) = savers
    if given:
        # Their places are theirs.
        saver.remember(items, (data,))
        return callbacks, saver
    return saver.placed(items, data), saver


def _first_rows(found, rows):
    return keras.tree.map_structure(lambda v: None if v is None else v[:rows], found)


def _is_array(x):
    x = data_of(x)
    return hasattr(x, "shape") and hasattr(x, "dtype")


def _sizes_of(x, batch_size, steps):
    """Returns the sizes of the batches of an evaluation of x."""
    if _is_array(x):
        return Sizes(batch_size or 32)
    return Sizes(math.inf if length_of_epoch(x, batch_size, steps) == 1 else None)


def _filled_up(model, x, batch_size):
    """Returns an array with rows after its last ones, where another size would compile anew."""
    if not _is_array(x) or num_devices(model) > 1:
        return x
    rows = num_rows(x)
    last = min(rows % batch_size or batch_size, rows)
    size = rows_to_compile(last, batch_size, noise=True)
    if size > last and rows > batch_size:
        # Of this size there are batches anyway.
        size = batch_size
    return _with_rows(x, rows - last + size)


def _with_rows(x, rows):
    """An array, or a dict of arrays, filled up to a number of rows."""
    filled = padded(keras.tree.flatten(x), rows)
    return keras.tree.pack_sequence_as(x, list(filled))
