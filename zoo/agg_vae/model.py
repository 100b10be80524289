"""Aggressive training: an inference network that keeps up with the posterior it approximates."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import warnings
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
from keras import ops

from ...core.arrays import EpochNumber
from ...core.checks import check_integer, check_seed
from ...core.conditions import data_of
from ...core.gradients import while_loop
from ...core.replicas import num_devices
from ...losses import ELBO, LinearSchedule
from ..recipes import digits_mlp, digits_pixelcnn, omniglot_resnet_pixelcnn, text_lstm, text_tiny
from ..vae.custom_step import CustomStepVAE
from ..vae.inputs import Batch
from .batches import RecentBatches, inner_batches
from .optimizer import DECODER, ENCODER, in_parts, mark

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import Config, Examples, KerasObject, Shape, Tensor, Weighting
    from ...layers.likelihoods import Likelihood
    from ...layers.priors import Prior

PRESETS = {
    "digits_mlp": digits_mlp(),
    "omniglot": omniglot_resnet_pixelcnn(
        "Agg-VAE", beta=LinearSchedule(10, start=0.1, unit="epochs")
    ),
    "digits_pixelcnn": digits_pixelcnn(),
    **{
        corpus: text_lstm(
            corpus,
            "Agg-VAE",
            # He et al. (2019) wait for less.
            plateau={"patience": 2},
            beta=LinearSchedule(10, start=0.1, unit="epochs"),
        )
        for corpus in ("yahoo", "yelp", "yelp_sentences")
    },
    "text_tiny": text_tiny(beta=LinearSchedule(3, start=0.1, unit="epochs")),
}

#: Steps of a window: of texts, and of everything else.
TEXT_WINDOW, WINDOW = 15, 10
#: What the first window is compared with.
FIRST_AVERAGE = 1e4
#: Below every mutual information, and finite, as all weights are.
NOTHING = float(np.finfo("float32").min)


def AggVAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 32,
    beta: Weighting = 1.0,
    window: int | None = None,
    max_inner_steps: int = 99,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "agg_vae",
) -> AggressiveVAE:
    """VAE whose encoder is trained to the end, or nearly so, before each step of the decoder.

        while aggressive, for each batch X:
            encoder:  steps on X, then on random training batches, until the loss stops falling
            decoder:  one step on X
        later, for each batch X:
            encoder and decoder:  one step on X
        loss = E_q[-log p(x|z)] + beta * KL(q(z|x) || p(z))    (nats per example)

    The inner steps end with the first window of `window` steps whose average loss, per predicted
    symbol of a text or else per example, is above that of the window before, and at the latest
    after `max_inner_steps`. `vaezoo.callbacks.AggressiveTraining` ends the aggressive phase, for
    good, when the mutual information of validation data stops rising; `fit` with validation data
    brings it along. Logs gain `aggressive` and `inner_steps`, averages over the epoch.

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters, or an
            `AutoregressiveDecoder`.
        latent_dim: Positive int D.
        beta: Non-negative float or schedule of the outer steps, weight of the rate.
        window: Positive int, steps of a window; by default 15 for texts and 10 otherwise.
        max_inner_steps: Positive int.
        prior: Optional `Prior`; N(0, I) by default. What it learns, it learns with the decoder.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise and the choice of batches.
        name: Model name.

    Returns:
        An uncompiled `AggressiveVAE`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: He et al. (2019), algorithm 1, arXiv:1901.05534.

    Note: The paper's inner steps end when the loss stops falling; windows, the limit of 99 steps
    and the comparison of the first window with 1e4 are the official code's.
    """
    return AggressiveVAE(
        encoder,
        decoder,
        latent_dim=latent_dim,
        window=window,
        max_inner_steps=max_inner_steps,
        prior=prior,
        likelihood=likelihood,
        objective=ELBO(beta),
        num_samples=num_samples,
        seed=seed,
        name=name,
    )


class Windows(NamedTuple):
    """Tracks the inner steps and whether their loss still falls.

    Attributes:
        steps: Steps taken, int32.
        total: Loss summed over the examples of the window, float32.
        size: What they are divided by: predicted symbols, or examples, float32.
        previous: Average of the window before, float32.
        risen: Whether the last full window's average was above the one before, bool.
    """

    steps: Any
    total: Any
    size: Any
    previous: Any
    risen: Any

    @classmethod
    def start(cls) -> Any:
        """Before the first step."""
        zero = ops.zeros((), "float32")
        first = ops.full((), FIRST_AVERAGE, "float32")
        return cls(ops.zeros((), "int32"), zero, zero, first, ops.zeros((), "bool"))

    def goes_on(self, limit: Any) -> bool:
        """Whether there is to be another step, of `limit` at most."""
        return ops.logical_and(self.steps < limit, ops.logical_not(self.risen))

    def after(self, total: Tensor, size: Any, window: int) -> Windows:
        """The state after one more step.

        Args:
            total: Loss of the step's batch, summed over its examples.
            size: Number of its predicted symbols, or examples.
            window: Positive int, steps of a window.
        """
        steps, total, size = self.steps + 1, self.total + total, self.size + size
        full = ops.equal(ops.mod(steps, window), 0)
        average = total / size
        return Windows(
            steps,
            ops.where(full, 0.0, total),
            ops.where(full, 0.0, size),
            ops.where(full, average, self.previous),
            ops.logical_and(full, average > self.previous),
        )


@keras.saving.register_keras_serializable(package="vaezoo")
class AggressivePhase(keras.layers.Layer):
    """Whether a model trains aggressively, and what decides for how long.

    All are variables, so files and backups of the model hold them.

    Attributes:
        aggressive: 1 or 0.
        previous: Mutual information of the epoch before, nats; the lowest float before the first.
        best: The largest so far.
        below: Number of epochs below the best so far.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)

        def variable(name, value, dtype):
            initializer = keras.initializers.Constant(value)
            return self.add_weight(name=name, initializer=initializer, dtype=dtype, trainable=False)

        self.aggressive = variable("aggressive", 1, "int32")
        self.previous = variable("previous", NOTHING, "float32")
        self.best = variable("best", NOTHING, "float32")
        self.below = variable("below", 0, "int32")
        self.built = True

    @property
    def active(self) -> bool:
        """Whether the model trains aggressively. To be asked between epochs."""
        return bool(ops.convert_to_numpy(self.aggressive.value))

    def end(self) -> None:
        """Ends the aggressive phase; `fit` goes on with ordinary steps from the next epoch on."""
        self.aggressive.assign(0)


@keras.saving.register_keras_serializable(package="vaezoo")
class AggressiveVAE(CustomStepVAE):
    """`VAE` with the training step of `AggVAE`.

    `compile` gives encoder and decoder an optimizer each: the one it is given, and a copy of it.
    `optimizer.learning_rate` is that of both, and `optimizer.iterations` counts the outer steps, as
    the objective's schedules do.

    Args:
        encoder: As in `VAE`.
        decoder: As in `VAE`.
        window: As in `AggVAE`.
        max_inner_steps: As in `AggVAE`.
        seed: As in `AggVAE`.
        name: Model name.
        **kwargs: Further arguments of `VAE`.

    Attributes:
        phase: `AggressivePhase`.

    Raises:
        ValueError: If an argument is out of range.

    Note: `global_clipnorm` limits the norm of the gradients of all weights in inner steps, too, as
    the official code does, which costs them the gradient of the decoder's weights.
    """

    masks_rows = True

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: keras.layers.Layer,
        *,
        window: Tensor = None,
        max_inner_steps: int = 99,
        seed: int | None = None,
        name: str = "agg_vae",
        **kwargs: Any,
    ) -> None:
        window = check_integer("window", window, optional=True)
        max_inner_steps = check_integer("max_inner_steps", max_inner_steps)
        seed = check_seed("seed", seed)
        super().__init__(encoder, decoder, seed=seed, name=name, **kwargs)
        self.seed, self.max_inner_steps = seed, max_inner_steps
        self._given_window = window
        self.phase = AggressivePhase(name="phase")
        self.aggressive_tracker = keras.metrics.Mean("aggressive")
        self.inner_steps_tracker = keras.metrics.Mean("inner_steps")
        self._pool: Any = None
        self._stacks = False

    @property
    def window(self) -> int:
        """Steps of a window."""
        if self._given_window is not None:
            return self._given_window
        return WINDOW if getattr(self.likelihood, "num_predicted", None) is None else TEXT_WINDOW

    def get_config(self) -> Config:
        """Returns the parts and the arguments of the step."""
        return {
            **super().get_config(),
            "window": self._given_window,
            "max_inner_steps": self.max_inner_steps,
            "seed": self.seed,
        }

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        mark(self._encoder_variables(), ENCODER)

    def _encoder_variables(self):
        return [*self.encoder.trainable_variables, *self.head.trainable_variables]

    def compile(self, optimizer: KerasObject = "adam", **kwargs: Any) -> None:
        """Configures training; see `VAE.compile`.

        Args:
            optimizer: Keras optimizer of both parts, or its name. It must neither average weights
                nor accumulate gradients.
            **kwargs: Further arguments of `VAE.compile`.

        Raises:
            ValueError: As `VAE.compile` does; if the optimizer does not fit; or under several
                devices.
        """
        self._check_devices()
        super().compile(in_parts(optimizer), **kwargs)

    def _check_devices(self):
        devices = num_devices(self)
        if devices > 1:
            raise ValueError(
                "`AggVAE` trains on one device only: its inner steps end by the loss there. "
                f"Received: {devices} devices"
            )

    # -- the step ----------------------------------------------------------------------------------

    def custom_train_step(self, x: Tensor, y: Tensor, sample_weight: Tensor) -> Any:
        """The aggressive step where others come with a batch, an ordinary one elsewhere."""
        aggressive = isinstance(x, dict) and "others" in x
        inner_steps = ops.zeros((), "int32")
        weights, moving = self.trainable_variables, contextlib.nullcontext()
        if aggressive:
            x, others = x["x"], x["others"]
            inner_steps = self._encoder_steps(others)
            weights, moving = self._weights_of(DECODER), self._parts.only(DECODER)
        (_, (value, terms, report)), gradients = self._gradients(x, y, sample_weight, weights)
        with moving:
            self.update_weights(gradients, weights)
        self.update_trackers(terms, report, sample_weight)
        self.update_loss(value, ops.shape(data_of(self.canonical(x)))[0])
        self.aggressive_tracker.update_state(float(aggressive))
        self.inner_steps_tracker.update_state(inner_steps)
        return super().get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        """The logs; what only training has is in those of the step."""
        found = super().get_metrics_result()
        own = (self.aggressive_tracker.name, self.inner_steps_tracker.name)
        return {name: value for name, value in found.items() if name not in own}

    def _encoder_steps(self, batches):
        """The inner steps on stacked batches; how many there were."""
        weights = self._weights_of(ENCODER)

        def step(*state):
            windows = Windows(*state)
            x, y, sample_weight = keras.tree.map_structure(
                lambda leaf: None if leaf is None else ops.take(leaf, windows.steps, axis=0),
                batches,
            )
            (_, (value, _, _)), gradients = self._gradients(x, y, sample_weight, weights)
            with self._parts.only(ENCODER):
                self.update_weights(gradients, weights)
            rows = ops.cast(ops.shape(data_of(self.canonical(x)))[0], "float32")
            size = self._predicted(x, y, rows)
            return tuple(windows.after(value * rows, size, self.window))

        def goes_on(*state):
            return Windows(*state).goes_on(self.max_inner_steps)

        with self.objective.paused():
            end = while_loop(goes_on, step, tuple(Windows.start()), self.all_variables)
        return Windows(*end).steps

    def _gradients(self, x, y, sample_weight, weights):
        def loss():
            output = self(x, training=True)
            value, terms, report = self.loss_and_terms(x, y, output, sample_weight)
            return self.optimizer.scale_loss(value), (value, terms, report)

        return self.gradients_of(loss, weights)

    def _predicted(self, x, y, rows):
        count = getattr(self.likelihood, "num_predicted", None)
        if count is None:
            return rows
        return ops.sum(ops.cast(count(Batch.unpack(self.canonical(x), y).target), "float32"))

    def _weights_of(self, part):
        """Weights to differentiate by where one part moves: all where all are clipped together."""
        if self._parts.optimizer.global_clipnorm is not None:
            return self.trainable_variables
        encoder = {id(variable) for variable in self._encoder_variables()}
        return [v for v in self.trainable_variables if (id(v) in encoder) == (part == ENCODER)]

    @property
    def _parts(self):
        return getattr(self.optimizer, "inner_optimizer", self.optimizer)

    # -- data --------------------------------------------------------------------------------------

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
        """Trains as `VAE.fit` does, and ends the aggressive phase by `AggressiveTraining`.

        Adds that callback when validation data are given and none is in `callbacks`. It runs first,
        so that saved state is current.

        Args:
            x: As in `VAE.fit`. Inner steps draw rows from arrays; of other sources they choose
                among up to 512 recent batches, the first of which are read ahead.
            y: As in `VAE.fit`.
            batch_size: As in `VAE.fit`.
            epochs: As in `VAE.fit`.
            verbose: As in `VAE.fit`.
            callbacks: A callback or a list of callbacks.
            validation_split: As in `VAE.fit`.
            validation_data: As in `VAE.fit`; no generator, for it is read after each epoch.
            **kwargs: Further arguments of `VAE.fit`.

        Raises:
            TypeError: As `VAE.fit` does.
            ValueError: As `VAE.fit` does; or under several devices.
        """
        self._check_devices()
        return super().fit(
            x,
            y,
            batch_size,
            epochs,
            verbose,
            callbacks,
            validation_split,
            validation_data,
            **kwargs,
        )

    def _fit(self, data, batch_size, epochs, verbose, callbacks, validation_data, **kwargs):
        size = kwargs.get("validation_batch_size") or batch_size or 32
        callbacks = self._callbacks(callbacks, validation_data, size)
        data = self._draw_from(data, batch_size or 32)
        try:
            return super()._fit(
                data, batch_size, epochs, verbose, callbacks, validation_data, **kwargs
            )
        finally:
            self._pool, self._stacks = None, False

    def _callbacks(self, callbacks, measured, batch_size):
        from ...callbacks import AggressiveTraining

        given = [] if callbacks is None else keras.tree.flatten(callbacks)
        if any(isinstance(callback, keras.callbacks.CallbackList) for callback in given):
            raise TypeError(
                "`callbacks` must be a callback or a list of callbacks. Received: CallbackList"
            )
        own = [callback for callback in given if isinstance(callback, AggressiveTraining)]
        if not own and self.phase.active:
            if measured is None:
                warnings.warn(
                    "The aggressive phase will not end: give `fit` `validation_data`, whose mutual "
                    "information the callback `AggressiveTraining` monitors.",
                    stacklevel=6,
                )
            else:
                own = [AggressiveTraining(batch_size=batch_size)]
        for callback in own:
            callback.use(measured)
        rest = [callback for callback in given if not isinstance(callback, AggressiveTraining)]
        return [*own, *rest, _FollowsPhase(self.seed)]

    def _draw_from(self, data, batch_size):
        if not inspect.isgenerator(data.x) and not self.phase.active:
            return data
        # The generator of each epoch takes its place.
        generator = np.random.default_rng(0)
        x, self._pool = inner_batches(
            data.x, data.y, data.sample_weight, batch_size, self.max_inner_steps, generator
        )
        return data._replace(x=x)

    def train_on_batch(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """One step as in `keras.Model.train_on_batch`; its inner steps are all on this batch."""
        self._check_devices()
        self._build_for(self.canonical(x))
        generator = np.random.default_rng(0)
        self._pool = RecentBatches(None, self.max_inner_steps, generator)
        self._stacks = self.phase.active
        try:
            return super().train_on_batch(x, *args, **kwargs)
        finally:
            self._pool, self._stacks = None, False

    def make_train_function(self, force: bool = False) -> None:
        """Keras' function of a step, whose batches bring others along while aggressive."""
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        if self.built and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        run = self.train_function

        def step(*arguments):
            if not self._stacks:
                return run(*arguments)
            *state, iterator = arguments
            batches = list(itertools.islice(iterator, self.steps_per_execution))
            if not batches:
                raise StopIteration
            return run(*state, iter([self._with_others(batch) for batch in batches]))

        self.train_function = step

    def _with_others(self, batch):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        others = self._pool.stack((x, y, sample_weight))
        others = keras.tree.map_structure(
            lambda leaf: None if leaf is None else ops.convert_to_tensor(leaf), others
        )
        return {"x": x, "others": others}, y, sample_weight

    @property
    def seen_batches(self) -> Any:
        """What is known, for a checkpoint, of the batches that inner steps choose among."""
        return None if self._pool is None else self._pool.seen

    @seen_batches.setter
    def seen_batches(self, value: Any) -> None:
        if self._pool is not None and value is not None:
            self._pool.seen = value

    def pass_over_batch(self, batch: Any) -> None:
        """Goes on as in a step, for a batch that was trained on before a checkpoint."""
        if self._stacks:
            self._pool.pass_over(keras.utils.unpack_x_y_sample_weight(batch))

    def follow_phase(self, generator: np.random.Generator) -> None:
        """Looks up, between epochs, whether the steps of the next one are aggressive.

        Args:
            generator: NumPy generator that chooses the batches of its inner steps.
        """
        self._stacks = self.phase.active
        if self._stacks and self._pool is None:
            # A backup went back to the phase after `fit` had begun without it.
            self._pool = RecentBatches(None, self.max_inner_steps, generator)
        elif self._stacks:
            self._pool.begin(generator)


class _FollowsPhase(EpochNumber):
    """Tells the model that an epoch begins: the last callback, after any that restore it.

    Args:
        seed: Int of the choice of batches, or None for another one in each training.
    """

    def __init__(self, seed: int | None) -> None:
        super().__init__()
        self.seed = np.random.randint(2**31) if seed is None else seed

    def get_state(self) -> tuple[dict[str, Any], list[Any]]:
        """Returns what the choice of batches depends on, for a checkpoint."""
        return {"seed": int(self.seed), "seen": self.model.seen_batches}, []

    def set_state(self, values: dict[str, Any], arrays: Any) -> None:
        """Goes on with the choices of `get_state`."""
        self.seed, self.model.seen_batches = values["seed"], values["seen"]

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.model.follow_phase(np.random.default_rng([self.seed, epoch]))
