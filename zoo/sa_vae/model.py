"""SA-VAE: the encoder makes a first guess, gradient steps on the ELBO refine it."""

from __future__ import annotations

import functools
import math
import warnings
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ...core.checks import check_choice, check_integer, check_real
from ...core.conditions import data_of
from ...core.gradients import value_and_gradients, value_and_gradients_at
from ...core.masks import weighed
from ...core.replicas import num_tf_replicas
from ...layers import GaussianHead
from ...layers.reparameterization import DiagonalReparam
from ...losses import ELBO, DiagonalGaussian, LinearSchedule, log_prob_per_dimension, reparameterize
from ..recipes import EPSILON, _images, _uniform, digits_mlp, digits_pixelcnn, text_lstm, text_tiny
from ..vae.custom_step import CustomStepVAE
from ..vae.inputs import Batch, example_weight, read_inputs
from ..vae.memory import explains_memory
from ..vae.model import Output
from .refinement import PRODUCTS, Descent, clip_each, clip_rows, clipping, descend, follow_back

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import Config, Posterior, Tensor, Weighting
    from ...layers.likelihoods import Likelihood
    from ...layers.priors import Prior
    from ...losses.objective import Objective

#: Half the widths of the uniform distributions that all weights start from.
_UNIFORM = {"scale": 0.1, "embedding_scale": 0.1}

PRESETS = {
    "digits_mlp": digits_mlp(),
    "omniglot": {
        "networks": {"kind": "gated_pixelcnn", "input_shape": (28, 28, 1)},
        # The weight rises from 0.1 by 1 / (10 epochs) in each step.
        "model": {"latent_dim": 32, "beta": LinearSchedule(9, start=0.1, unit="epochs")},
        "training": {
            "epochs": 100,
            "learning_rate": 1e-3,
            "epsilon": EPSILON,
            "global_clipnorm": 5.0,
        },
        "data": _images("omniglot", 50),
        "source": "settings of ours: Kim et al. (2018), with DU-VAE's residual encoder",
    },
    "digits_pixelcnn": digits_pixelcnn("weight"),
    **{
        corpus: text_lstm(
            corpus,
            "SA-VAE (by Kim et al., 2018)",
            epochs=30,
            plateau={
                "patience": 1,
                "compare_with": "best",
                "repeat": True,
                "max_decays": None,
                "min_relative_rate": 0.03,
                "restore_best": False,
                "reset_optimizer": False,
            },
            networks={
                "encoder": _UNIFORM,
                "head": {"use_bias": True, "kernel_initializer": _uniform(0.1)},
                "decoder": {**_UNIFORM, "initial_state": "hidden"},
            },
            beta=LinearSchedule(9, start=0.1, unit="epochs"),
        )
        for corpus in ("yahoo", "yelp")
    },
    "text_tiny": text_tiny(beta=LinearSchedule(3, start=0.1, unit="epochs"), refine_steps=5),
}

#: Examples that an untrained model takes its training batches to have: Keras' default.
_BATCH = 32
#: Seed of the noise of refinements outside of training.
_SEED = 1


def SAVAE(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 32,
    refine_steps: int = 20,
    refine_learning_rate: float = 1.0,
    momentum: float = 0.5,
    refine_clipnorm: float | None = 5.0,
    svi_backward: str = "exact",
    beta: Weighting = 1.0,
    prior: Prior | None = None,
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "sa_vae",
) -> SemiAmortizedVAE:
    """VAE whose posteriors are refined by gradient steps, through which the networks learn.

        lambda_0 = (mean, log_var) = head(encoder(x))
        lambda_k = lambda_{k-1} + refine_learning_rate v_k
        v_k      = momentum v_{k-1} - clip(dL/dlambda (lambda_{k-1}))
        L        = E_q[-log p(x|z)] + beta * KL(q(z; lambda) || p(z))    (nats, mean over the batch)
        loss     = L(lambda_K)

    See `SemiAmortizedVAE` for what is differentiated how and for evaluation.

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters, or an
            `AutoregressiveDecoder`.
        latent_dim: Positive int D.
        refine_steps: Non-negative int K; 0 is the plain VAE.
        refine_learning_rate: Positive float.
        momentum: Float in [0, 1).
        refine_clipnorm: Positive float, largest norm of a batch's gradient by the means and of
            that by the log-variances; or None.
        svi_backward: `"exact"` or `"finite_differences"` products with second derivatives.
        beta: Non-negative float or schedule, weight of the rate.
        prior: Optional `Prior`; N(0, I) by default.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int, draws per example in each step and in the loss.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `SemiAmortizedVAE`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Kim et al. (2018), algorithm 1, arXiv:1802.02550.
    """
    return SemiAmortizedVAE(
        encoder,
        decoder,
        latent_dim=latent_dim,
        prior=prior,
        likelihood=likelihood,
        objective=ELBO(beta),
        num_samples=num_samples,
        seed=seed,
        refine_steps=refine_steps,
        refine_learning_rate=refine_learning_rate,
        momentum=momentum,
        refine_clipnorm=refine_clipnorm,
        svi_backward=svi_backward,
        name=name,
    )


@keras.saving.register_keras_serializable(package="vaezoo")
class SemiAmortizedVAE(CustomStepVAE):
    """`VAE` whose diagonal Gaussian posteriors are refined by momentum descent on the ELBO.

    A training step takes the gradient of the loss at the refined posterior: by the decoder's
    weights directly and through the K steps, by the encoder's through the K steps. Each step has
    noise and dropout masks of its own, which the way back draws again; memory does not grow with K
    but by the K posteriors. Logs show `refinement_gain`, the ELBO (nats, rate at weight 1) at the
    refined posterior minus that at the encoder's.

    Everything outside of training uses refined posteriors as well: `evaluate`, `encode`,
    `reconstruct`, `log_terms`, `log_prob`, the instruments and the exported signatures. These
    refinements run without dropout and with the rate at weight 1, on fixed noise that all examples
    share, and clip by example, so that what an example is encoded to depends on nothing else.
    Posteriors are those of x, also where `fit` is given another target to reconstruct.

    Finite differences change the parameters by 1e-4 (root mean square). The official code's change,
    1e-5 times the direction, is below what float32 resolves.

    Args:
        encoder: As in `VAE`.
        decoder: As in `VAE`.
        latent_dim: As in `VAE`.
        head: Optional `GaussianHead` without further layers.
        prior: As in `VAE`.
        likelihood: As in `VAE`.
        objective: As in `VAE`. Regularizers are charged at the refined posterior alone.
        num_samples: As in `VAE`.
        seed: As in `VAE`.
        refine_steps: As in `SAVAE`.
        refine_learning_rate: As in `SAVAE`.
        momentum: As in `SAVAE`.
        refine_clipnorm: As in `SAVAE`. Following the steps back, it also limits the norm of the
            gradient by the posteriors, and of what each step adds to that by the weights.
        svi_backward: As in `SAVAE`.
        name: Model name.
        **kwargs: Keyword arguments of `keras.Model`.

    Raises:
        ValueError: If an argument is out of range, or the posterior is no plain diagonal Gaussian.

    Reference: Kim et al. (2018), algorithms 1 and 2, arXiv:1802.02550.

    Note:
        The paper's steps follow the mean over the batch, so their length depends on its size. Here
        it is the sum divided by the largest training batch so far, which is the same for batches
        of one size, and keeps the steps of a smaller last batch, or of a single example that is
        served, as short as they were in training.
        On TensorFlow, exact products are wrong with Keras' `BatchNormalization`: `tf.nn.moments`
        stops a gradient, which biases encoder gradients by several percent. Use finite differences,
        or JAX.
    """

    masks_rows = True

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: keras.layers.Layer,
        *,
        latent_dim: int | None = None,
        head: GaussianHead | None = None,
        prior: Prior | None = None,
        likelihood: str | Likelihood = "bernoulli",
        objective: Objective | None = None,
        num_samples: int = 1,
        seed: int | None = None,
        refine_steps: int = 20,
        refine_learning_rate: float = 1.0,
        momentum: float = 0.5,
        refine_clipnorm: float | None = 5.0,
        svi_backward: str = "exact",
        name: str = "sa_vae",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            encoder,
            decoder,
            latent_dim=latent_dim,
            head=head,
            prior=prior,
            likelihood=likelihood,
            objective=objective,
            num_samples=num_samples,
            seed=seed,
            name=name,
            **kwargs,
        )
        self.refine_steps = check_integer("refine_steps", refine_steps, least=0)
        self.refine_learning_rate = float(
            check_real("refine_learning_rate", refine_learning_rate, "(0, inf)")
        )
        self.momentum = float(check_real("momentum", momentum, "[0, 1)"))
        refine_clipnorm = check_real("refine_clipnorm", refine_clipnorm, "(0, inf)", optional=True)
        self.refine_clipnorm = None if refine_clipnorm is None else float(refine_clipnorm)
        check_choice("svi_backward", svi_backward, tuple(PRODUCTS))
        if not _is_plain(self.head):
            raise ValueError(
                "`head` must be a GaussianHead without further layers: refinement changes the mean "
                f"and log-variance of a diagonal Gaussian. Received: {type(self.head).__name__}"
                + (" with further layers" if type(self.head) is GaussianHead else "")
            )
        self.svi_backward = svi_backward
        self.gain_tracker = keras.metrics.Mean("refinement_gain")
        self._largest_batch = self.add_weight(
            name="largest_batch", initializer="zeros", dtype="int32", trainable=False
        )

    def get_config(self) -> Config:
        """Returns the parts and how posteriors are refined."""
        names = (
            "refine_steps",
            "refine_learning_rate",
            "momentum",
            "refine_clipnorm",
            "svi_backward",
        )
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training, see `VAE.compile`.

        Raises:
            ValueError: Under several `tf.distribute` replicas, too: a gradient is clipped over the
                whole batch within a loop, where they cannot talk to each other.
        """
        replicas = num_tf_replicas(self)
        if replicas > 1:
            raise ValueError(
                "A model that refines its posteriors must train on one `tf.distribute` replica; "
                "on JAX `keras.distribution` takes several devices. Received: "
                f"replicas={replicas}"
            )
        inexact = keras.backend.backend() == "tensorflow" and self.svi_backward == "exact"
        if inexact and any(
            isinstance(layer, keras.layers.BatchNormalization)
            for layer in self.decoder._flatten_layers()
        ):
            warnings.warn(
                "The decoder's BatchNormalization has no exact second derivatives on TensorFlow: "
                "gradients of the encoder will be off by some percent. Use other layers, or "
                "`svi_backward='finite_differences'`.",
                stacklevel=2,
            )
        super().compile(*args, **kwargs)

    # -- training --------------------------------------------------------------------------------

    def custom_train_step(self, x: Tensor, y: Tensor, sample_weight: Tensor) -> Any:
        x = self.canonical(x)
        size = ops.shape(data_of(x))[0]
        rows = ops.maximum(ops.convert_to_tensor(self._largest_batch), size)
        self._largest_batch.assign(rows)
        scale = self.optimizer.scale_loss(ops.ones((), "float32"))
        amortized = [*self.encoder.trainable_variables, *self.head.trainable_variables]

        def first_guess():
            # All steps depend on the guess alone, and are followed back to it here.
            start = self.head.posterior(self.features(x, training=True), training=True)
            added = sum(ops.cast(ops.sum(extra), "float32") for extra in _added_losses(self))
            loss, by_start, *rest = self._refined_loss(
                x, y, sample_weight, [ops.stop_gradient(part) for part in start], rows, scale
            )
            parts = zip(start, by_start, strict=True)
            linear = sum(ops.sum(part * ops.stop_gradient(by_part)) for part, by_part in parts)
            if keras.backend.backend() == "jax":
                # On TensorFlow the last pass has found them among the losses of the model.
                loss = loss + added
            return linear + scale * added, (loss, *rest)

        (_, (loss, found, terms, report, gain)), by_guess = self.gradients_of(
            first_guess, amortized
        )
        by_guess = {id(v): g for v, g in zip(amortized, by_guess, strict=True)}
        found = [
            g + by_guess[id(v)] if id(v) in by_guess else g
            for v, g in zip(self.trainable_variables, found, strict=True)
        ]
        self.update_weights(found, self.trainable_variables)
        self.update_loss(loss, size)
        self.update_trackers(terms, report, sample_weight)
        self.gain_tracker.update_state(gain, example_weight(sample_weight))
        return self.get_metrics_result()

    def _refined_loss(self, x, y, sample_weight, start, rows, scale):
        """The loss at the refined posterior and its gradients.

        Args:
            x: Batch of inputs.
            y: As in `fit`.
            sample_weight: Optional `(batch,)`.
            start: `[mean, log_var]`, as constants.
            rows: What the sum over the batch is divided by in each step.
            scale: Factor on all gradients.

        Returns:
            `(loss, by start, by trainable variables, terms, report, gain by example)`.
        """
        learned = self.trainable_variables
        weights = [ops.stop_gradient(ops.convert_to_tensor(v.value)) for v in learned]
        chosen = {id(variable) for variable in learned}
        # Read here: a scope hides the values that an outer one holds.
        rest = [
            (v, ops.stop_gradient(ops.convert_to_tensor(v.value)))
            for v in self.variables
            if id(v) not in chosen
        ]
        noise = self.head.reparam.noise

        def scope(weights, number=None):
            """Nothing outside changes in it; noise and masks are those of a step."""
            state = [*zip(learned, weights, strict=True), *rest]
            if number is not None:
                state = self._with_noise(state, number)
            return keras.StatelessScope(state_mapping=state, collect_losses=True)

        def step_loss(here, weights, number):
            with scope(weights, number), self.objective.paused():
                output = self._output(here, x, noise, training=True)
                terms = self.terms(x, output, training=True)
                loss = self.objective.bound(terms, training=True)
            return ops.sum(loss.per_example + loss.batch) / ops.cast(rows, "float32")

        def last_loss(*here):
            output = self._output(here, x, noise, training=True)
            loss, terms, report = self.loss_and_terms(x, y, output, sample_weight)
            return scale * loss, (loss, terms, report)

        here, path = start, None
        descent = Descent(self.refine_steps, self.refine_learning_rate, self.momentum)
        factors = clipping(clip_each, self.refine_clipnorm)
        if self.refine_steps:

            def gradient(here, number):
                return value_and_gradients_at(
                    lambda here: (step_loss(here, weights, number), ()), here
                )[1]

            here, path = descend(gradient, start, descent, factors)
        # Its updates are the step's, those of all other passes are lost in their scopes.
        others = [v for v in self.all_variables if id(v) not in chosen]
        (_, (loss, terms, report)), found = value_and_gradients(last_loss, learned, others, here)
        found, by_weights = found[:2], found[2:]
        gain = ops.zeros_like(terms.kl)
        if self.refine_steps:
            limit = None if self.refine_clipnorm is None else self.refine_clipnorm * scale
            product = PRODUCTS[self.svi_backward](step_loss, weights, factors)
            found, through = follow_back(product, path, found, weights, descent, limit)
            by_weights = [a + b for a, b in zip(by_weights, through, strict=True)]
            target = Batch.unpack(x, y).observed
            with scope(weights):
                output = self._output(start, target, noise, training=True)
                first = self.terms(target, output, training=True)
            gain = first.distortion + first.kl - terms.distortion - terms.kl
        return loss, found, by_weights, terms, report, gain

    def _with_noise(self, state, number):
        """The variables' values with all seed generators moved to noise of a step's own."""
        generators = {
            id(generator.state)
            for layer in self._flatten_layers()
            for generator in layer._seed_generators
        }
        # Golden-ratio steps keep the seeds apart from those of neighboring user seeds.
        shift = ops.cast(number + 1, "uint32") * ops.cast(0x9E3779B9, "uint32")
        shift = ops.stack([shift, ops.zeros_like(shift)])
        return [
            (v, value + ops.cast(shift, value.dtype)) if id(v) in generators else (v, value)
            for v, value in state
        ]

    def _output(self, parameters, x, noise, training=False):
        posterior = DiagonalGaussian(*parameters)
        z, log_qz = self.head.sample_and_log_prob(posterior, self.head.num_samples, noise)
        return Output(posterior, z, self.params(z, x, training), log_qz)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Any = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """As in `VAE`; evaluations log what refinement gained."""
        value, terms, report = self.loss_and_terms(x, y, y_pred, sample_weight, training)
        self.update_trackers(terms, report, sample_weight)
        if not training:
            guess = self.encode(x, refine_steps=0)
            # With the noise that the refined draws were made from.
            mean, log_var = (ops.expand_dims(part, 1) for part in y_pred.posterior)
            noise = (y_pred.z - mean) * ops.exp(-0.5 * log_var)
            first = self._terms_at(Batch.unpack(self.canonical(x), y).observed, guess, noise)
            gain = first.distortion + first.kl - terms.distortion - terms.kl
            weight = example_weight(sample_weight)
            self.gain_tracker.update_state(*weighed(gain, weight, terms.valid))
        return value

    # -- use -------------------------------------------------------------------------------------

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        # The symbolic build and a data-dependent initialization ask for no refinement.
        if training:
            return super().call(x, training=True)
        x = self.canonical(x)
        return self._output(self.encode(x), x, self.head.reparam.noise)

    @explains_memory
    def encode(
        self, x: Tensor, batch_size: int | None = None, refine_steps: int | None = None
    ) -> Posterior:
        """The refined posterior in inference mode; equal calls give equal results.

        Args:
            x: `(batch, *event)`.
            batch_size: As in `VAE.encode`.
            refine_steps: Optional non-negative int; the model's by default, 0 for the encoder's
                own posterior.

        Returns:
            `DiagonalGaussian`.

        Raises:
            ValueError: If `refine_steps` is negative.
        """
        steps = self.refine_steps if refine_steps is None else refine_steps
        steps = check_integer("refine_steps", steps, least=0)
        x = read_inputs(self, x)
        self._build_for(x)
        if batch_size is not None:
            function = functools.partial(self.encode, refine_steps=steps)
            return self._in_batches(f"encode_{steps}", function, x, batch_size)
        guess = super().encode(x)
        return guess if steps == 0 else self._refined(x, guess, steps)

    def _refined(self, x, guess, steps):
        shape = (math.ceil(steps / 2), self.head.num_samples, self.latent_dim)
        half = np.random.default_rng(_SEED).standard_normal(shape).astype("float32")
        # In pairs of opposites, lest noise that all examples share push them all in one direction.
        noise = ops.convert_to_tensor(np.stack([half, -half], axis=1).reshape(-1, *shape[1:]))
        largest = ops.convert_to_tensor(self._largest_batch)
        rows = ops.cast(ops.where(largest > 0, largest, _BATCH), "float32")

        def gradient(here, number):
            def bound(here):
                eps = ops.take(noise, number, axis=0)[None]
                terms = self._terms_at(x, DiagonalGaussian(*here), eps)
                return ops.sum(terms.distortion + terms.kl) / rows, ()

            return value_and_gradients_at(bound, here)[1]

        limit = self.refine_clipnorm
        # A batch's limit as one example's share of it.
        factors = clipping(clip_rows, None if limit is None else limit / ops.sqrt(rows))
        descent = Descent(steps, self.refine_learning_rate, self.momentum)
        return DiagonalGaussian(*descend(gradient, list(guess), descent, factors)[0])

    def _terms_at(self, x, posterior, noise):
        z = reparameterize(posterior, noise)
        log_qz = log_prob_per_dimension(posterior, z)
        return self.terms(x, Output(posterior, z, self.params(z, x), log_qz))


def _added_losses(model):
    """Returns the losses that the encoder's layers added, without those of weights."""
    found = []
    for part in (model.encoder, model.head):
        of_weights = sum(v.regularizer is not None for v in part.trainable_variables)
        losses = part.losses
        found.extend(losses[: len(losses) - of_weights])
    return found


def _is_plain(head):
    layers = ("mean_norm", "clip", "variance_dropout", "min_log_var")
    return (
        type(head) is GaussianHead
        and type(head.reparam) is DiagonalReparam
        and head.scale == "vector"
        and all(getattr(head, name) is None for name in layers)
    )
