"""The model class: its parts, its loss, and how it is built and saved."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
from keras import ops

from ...core.checks import check_integer, check_kind, check_path, check_seed
from ...core.conditions import data_of
from ...core.files import naming
from ...core.masks import num_valid, weighed
from ...core.replicas import batch_mean, num_replicas
from ...core.serialization import ArgumentsConfig
from ...layers import (
    AutoregressiveDecoder,
    ConditionalEncoder,
    ConditionalNormal,
    GaussianHead,
    PosteriorHead,
    Prior,
    get_likelihood,
)
from ...layers.conditions import joined
from ...losses import ELBO, Objective, Regularizer, Terms
from ..recipes import (
    SQUARED_ERROR,
    dense_500,
    digits_mlp,
    digits_pixelcnn,
    mnist_mlp,
    mu_vae_cnn,
    omniglot_resnet_pixelcnn,
)
from .inference import Inference
from .initialization import EXAMPLES
from .inputs import Batch, example_weight
from .padding import Sizes
from .prior import check_same_prior, matched_prior, with_matched_prior
from .training import Training

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...core.types import Config, FilePath, Shape, Tensor
    from ...layers.likelihoods import Likelihood

PRESETS = {
    "mnist_mlp": mnist_mlp("settings of ours, HEBAE's widths"),
    "mnist_cnn": mu_vae_cnn("VAE", "mnist", likelihood=SQUARED_ERROR),
    "fashion_mnist_cnn": mu_vae_cnn("VAE", "fashion_mnist", likelihood=SQUARED_ERROR),
    "digits_mlp": digits_mlp(),
    "omniglot": omniglot_resnet_pixelcnn(
        "settings of ours: DU-VAE's run on OMNIGLOT without annealing", anneal=False
    ),
    "digits_pixelcnn": digits_pixelcnn(),
    "mnist_500": dense_500("VAE-AS, table 2, VAE; table 1, 5 layers"),
    "omniglot_500": dense_500("VAE-AS, table 3, VAE, on chardata.mat", "omniglot"),
    "mnist_500_estimation": dense_500("VAE-AS, section 5.2", decoder=3, batch_size=100, epochs=120),
}
#: Key of a file of weights.
_TAKES_TARGET = "takes_target"


class Output(NamedTuple):
    """Holds the results of calling a `VAE`.

    Attributes:
        posterior: Posterior value over `(batch, D)`.
        z: Draws from it, `(batch, K, D)`.
        params: The likelihood's parameters for each draw, `(batch, K, *event)`.
        log_qz: log q(z_k|x) per dimension, `(batch, K, D)`, or `(batch, K, 1)`.
    """

    posterior: Any
    z: Any
    params: Any
    log_qz: Any


@keras.saving.register_keras_serializable(package="vaezoo")
class VAE(Training, Inference, ArgumentsConfig, keras.Model):
    """Variational auto-encoder composed of parts.

        posterior, z = head(encoder(x))                            q(z|x), z_1..z_K
        rate         = KL(q(z|x) || p(z))                          (nats)
        distortion   = E_q[-log p(x|z)]                            (nats)
        loss         = objective(...), by default distortion + rate

    Trains by `fit` from arrays, data frames, `tf.data`, `PyDataset` or generators of `x`, `(x, y)`
    or `(x, y, sample_weight)`. A `y` of the shape of `x` is the target of the reconstruction.
    Labels, `(batch,)`, `(batch, 1)`, one-hot or attributes `(batch, C)`, of any dtype, or a dict of
    such arrays, are left out. What may be a target of a wrong shape is refused: more than two axes,
    or as many numbers as `x` has. Every batch is checked: its shape, finite numbers, and the
    support of the likelihood for what is reconstructed. Logs show `loss`, and `distortion`, `rate`
    at weight 1 whatever is optimized.

    With a `layers.ConditionalEncoder` the model is conditional, p(x|c): the encoder and the decoder
    see labels, vectors or images c. Each x is a dict then, `{"x": images, "digit": labels}`.

    What takes statistics of a batch needs a batch of some size, `min_batch_size`; the last one of
    an epoch or an evaluation may be smaller. A regularizer is then left out of the loss and of its
    own logged mean (`MaximumMeanDiscrepancy`, `MutualPosteriorDivergence`); a head normalizes by
    its running statistics, and does not feed them (`MeanBatchNorm`, `CholeskyReparam`). All other
    terms count every example.

    Args:
        encoder: Layer `(batch, *event) -> (batch, F)`; several outputs are joined.
        decoder: Layer `(batch, D) -> (batch, *params)`: the likelihood's parameters, for instance
            logits. Or an `AutoregressiveDecoder`, which sees x, too. Of a conditional model it
            takes D plus the features of the conditions.
        latent_dim: Positive int D; may be omitted when `head` is given.
        head: `PosteriorHead`; a plain `GaussianHead` by default.
        prior: `Prior`; by default that which the objective matches codes to where it has one of its
            own, as `MaximumMeanDiscrepancy(prior_variance=v)` has N(0, v I), else N(0, I).
        likelihood: `"bernoulli"`, `"continuous_bernoulli"`, `"gaussian"`, or a `Likelihood`.
        objective: `Objective`; `ELBO()` by default.
        num_samples: Positive int K, draws per example of the default head.
        seed: Optional int that fixes the noise of the default head.
        name: Model name.
        **kwargs: Keyword arguments of `keras.Model`.

    Attributes:
        initial_examples: Number of examples, 500, from which the first `fit` sets the gains and
            biases of weight-normalized layers (`layers.initialize_from_data`), with z = E[z|x] and
            without dropout.

    Raises:
        ValueError: If neither `latent_dim` nor `head` is given, if they disagree, or if the
            objective needs a density that the head does not have, or matches codes to another
            prior than the model's.
        TypeError: If a part is of the wrong kind.

    Reference: Kingma & Welling (2014), arXiv:1312.6114.
    """

    #: Whether evaluations may fill batches up, see `Terms.valid`; a class of your own must say so.
    masks_rows = True

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: keras.layers.Layer,
        *,
        latent_dim: int | None = None,
        head: PosteriorHead | None = None,
        prior: Prior | None = None,
        likelihood: str | Likelihood = "bernoulli",
        objective: Objective | None = None,
        num_samples: int = 1,
        seed: int | None = None,
        name: str = "vae",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        for part, value in (("encoder", encoder), ("decoder", decoder)):
            check_kind(part, value, keras.layers.Layer, "a Keras layer or model")
        latent_dim = check_integer("latent_dim", latent_dim, optional=True)
        num_samples = check_integer("num_samples", num_samples)
        seed = check_seed("seed", seed)
        if head is None:
            if latent_dim is None:
                raise ValueError("`latent_dim` or `head` must be given. Received: neither")
            head = GaussianHead(latent_dim, num_samples, seed=seed)
        check_kind("head", head, PosteriorHead, "a PosteriorHead")
        if latent_dim not in (None, head.latent_dim):
            raise ValueError(
                "`latent_dim` must be that of `head`. Received: "
                f"latent_dim={latent_dim}, head.latent_dim={head.latent_dim}"
            )
        self.initial_examples = EXAMPLES
        self.autoregressive = isinstance(decoder, AutoregressiveDecoder)
        codes = (None, decoder.latent_dim) if self.autoregressive else None
        codes = codes or getattr(decoder, "input_shape", None)
        self.conditional = isinstance(encoder, ConditionalEncoder)
        self.code_size = head.latent_dim + (encoder.size if self.conditional else 0)
        if isinstance(codes, tuple) and codes[1:] != (self.code_size,):
            says = "as `latent_dim` says"
            if self.conditional:
                says = f"`latent_dim`={head.latent_dim} and {encoder.size} of the conditions"
            raise ValueError(
                f"`decoder` must take codes of shape (batch, {self.code_size}), {says}. Received: "
                f"a decoder of inputs of shape {codes}"
            )
        objective = objective or ELBO()
        prior = prior or matched_prior(objective)
        for part, value, kind in (("prior", prior, Prior), ("objective", objective, Objective)):
            check_kind(part, value, kind, f"a vaezoo {kind.__name__}")
        self.encoder, self.head, self.decoder = encoder, head, decoder
        self.prior, self.objective = prior, objective
        self.likelihood = get_likelihood(likelihood)
        self.likelihood.bind_decoder(decoder)
        self._check_parts(objective, *objective.regularizers)
        self.distortion_tracker = keras.metrics.Mean("distortion")
        self.rate_tracker = keras.metrics.Mean("rate")
        self.objective.make_trackers()
        self._unreported: frozenset[str] = frozenset()
        self._takes_target = False
        self.compiled_functions: dict[str, Callable[..., Any]] = {}
        # Those of the evaluation at hand.
        self.batch_sizes = Sizes()
        self._sizes_of_predictions: dict[tuple[int, ...], set[int]] = {}
        self.prior.bind_model(self)

    @property
    def latent_dim(self) -> int:
        """D, the dimension of z."""
        return self.head.latent_dim

    @property
    def takes_target(self) -> bool:
        """Whether the model was trained to turn x into targets, so that x itself is not scored."""
        return self._takes_target

    @property
    def event_dtype(self) -> str:
        """Name of the dtype of x: that of the encoder's input where it has one."""
        inputs = getattr(self.encoder, "inputs", None)
        return inputs[0].dtype if inputs else self.input_dtype

    @property
    def uses_cudnn(self) -> bool:
        """Whether a recurrent layer of the networks asks for cuDNN's implementation."""
        return any(
            getattr(layer, "use_cudnn", None) is True
            for part in (self.encoder, self.decoder)
            for layer in part._flatten_layers()
        )

    @property
    def num_examples(self) -> int | None:
        """Number of training examples whose indices `fit` must be given, or None."""
        return self.objective.num_examples

    def add_regularizer(self, regularizer: Regularizer) -> None:
        """Adds a term to the objective, such as an `AuxiliarySoftmax` that measures.

        Args:
            regularizer: `Regularizer`.

        Raises:
            RuntimeError: If the model is compiled already.
            TypeError: If it is no regularizer.
            ValueError: If it needs a density that the head does not have, or matches codes to
                another prior than the model's.
        """
        if self.compiled:
            raise RuntimeError("`add_regularizer` must be called before `compile`.")
        check_kind("regularizer", regularizer, Regularizer, "a vaezoo regularizer")
        self._check_parts(regularizer)
        self.objective.add(regularizer)
        self.objective.make_trackers()
        if self.built:
            regularizer.prepare(self.latent_dim)

    def _check_parts(self, *parts):
        needed = next((part for part in parts if getattr(part, "needs_density", False)), None)
        if needed is not None and not self.head.has_density:
            raise ValueError(
                "`objective` must do without a rate when the head is deterministic, as "
                f"ELBO(beta=0) does. Received: objective={type(needed).__name__}, "
                f"head={type(self.head).__name__}"
            )
        for part in parts:
            check_same_prior(part, self.prior)

    @classmethod
    def from_config(cls, config: Config) -> Any:
        """Builds the model from what `get_config` returned."""
        return super().from_config(with_matched_prior(config))

    def get_config(self) -> Config:
        """Returns the parts; the head stands for the arguments that it was made from."""
        config = keras.Model.get_config(self)
        for name in ("encoder", "decoder", "head", "prior", "likelihood", "objective"):
            config[name] = keras.saving.serialize_keras_object(getattr(self, name))
        return config

    def get_build_config(self) -> Config:
        """Returns the shape of the data; a model in use is built first, so that a file holds all.

        Raises:
            ValueError: If the model has weights in use that no file could hold, because the shape
                of its data is unknown.
        """
        self._build_in_use()
        config = super().get_build_config()
        return {**config, "takes_target": True} if config and self.takes_target else config

    def build_from_config(self, config: Config) -> None:
        """Builds the model as it was when it was saved."""
        self._takes_target = config.get("takes_target", False)
        super().build_from_config({k: v for k, v in config.items() if k != "takes_target"})

    def save_own_variables(self, store: Any) -> None:
        """Adds to the model's own variables that it was trained with targets, where it was."""
        super().save_own_variables(store)
        if self.takes_target:
            store[_TAKES_TARGET] = np.array(True)

    def load_own_variables(self, store: Any) -> None:
        """Restores what `save_own_variables` saved."""
        values = {key: store[key] for key in store.keys()}
        # Files of weights do not say otherwise.
        if values.pop(_TAKES_TARGET, None) is not None:
            self._takes_target = True
        super().load_own_variables(values)

    def save(self, filepath: FilePath, overwrite: bool = True, **kwargs: Any) -> None:
        """Saves the model as `keras.Model.save` does, after building what is in use."""
        filepath = check_path("filepath", filepath)
        self._build_in_use()
        with naming(filepath):
            super().save(filepath, overwrite, **kwargs)

    def save_weights(self, filepath: FilePath, overwrite: bool = True, **kwargs: Any) -> None:
        """Saves the weights as `keras.Model.save_weights` does, after building what is in use."""
        filepath = check_path("filepath", filepath)
        self._build_in_use()
        with naming(filepath):
            super().save_weights(filepath, overwrite, **kwargs)

    def load_weights(self, filepath: FilePath, **kwargs: Any) -> None:
        """Loads weights as `keras.Model.load_weights` does."""
        filepath = check_path("filepath", filepath)
        if not os.path.exists(filepath):
            raise FileNotFoundError(f"`filepath` must name a file. Received: {filepath!r}")
        super().load_weights(filepath, **kwargs)

    def _build_in_use(self):
        """Builds a model of which parts alone are built: a file would not tell their shapes."""
        self._build_for()
        if not self.built and self.head.weights:
            raise ValueError(
                "A model must be built before it is saved: call it on a batch, as in `model(x)`. "
                "Received: an encoder without a shape of its input"
            )

    def _build_for(self, x=None):
        """Builds the model for data `x`, or without any for what the encoder takes, if it tells."""
        if self.built:
            return
        if x is None:
            shape = getattr(self.encoder, "input_shape", None)
            shape = shape or (self.encoder.get_build_config() or {}).get("input_shape")
            shape = data_of(shape)
        else:
            shape = tuple(data_of(x).shape)
        if isinstance(shape, (tuple, list)):
            self.build((None, *shape[1:]))

    def build(self, input_shape: Shape) -> None:
        if isinstance(input_shape, dict):
            # Of a call; a file keeps the shape of the data alone.
            input_shape = self.encoder.canonical(input_shape)["x"]
            self._build_shapes_dict = {"input_shape": input_shape}
        event_shape = tuple(input_shape[1:])
        x = inputs = keras.KerasTensor((None, *event_shape), self.event_dtype)
        if self.conditional:
            inputs = self.encoder.symbolic(event_shape, self.event_dtype)
        self.head(self.features(inputs))
        inputs = [keras.KerasTensor((None, self.code_size))]
        if self.autoregressive:
            self.decoder.check_event(event_shape)
            inputs.append(x)
        params = self.decoder(*inputs)
        expected = self.likelihood.params_shape(event_shape)
        if tuple(params.shape[1:]) != tuple(expected):
            raise ValueError(
                "The decoder must return the parameters of a "
                f"{type(self.likelihood).__name__} likelihood for data of shape {event_shape}, "
                f"that is (batch, {', '.join(map(str, expected))}). Received: "
                f"shape={tuple(params.shape)}"
            )
        self.prior.event_shape = event_shape
        if not self.prior.built:
            self.prior.build((None, self.head.num_samples, self.latent_dim))
        if not self.likelihood.built:
            self.likelihood.build(tuple(params.shape))
        for regularizer in self.objective.regularizers:
            regularizer.prepare(self.latent_dim)

    def call(self, x: Any, training: bool = False) -> Tensor:
        x = self.canonical(x)
        features = self.features(x, training)
        posterior, z, log_qz = self.head(features, training=training, density=True)
        return Output(posterior, z, self.params(z, x, training), log_qz)

    def canonical(self, x: Any) -> Any:
        """Returns a batch as `fit` takes it with the data under `"x"`, if it is a dict."""
        return self.encoder.canonical(x) if self.conditional else x

    def features(self, x: Any, training: bool = False) -> Tensor:
        """Returns what the head takes, `(batch, F)`: all that the encoder makes of a batch."""
        return joined(self.encoder(x, training=training))

    def params(self, z: Tensor, x: Any = None, training: bool = False) -> Tensor:
        """The likelihood's parameters for each draw.

        Args:
            z: `(batch, K, D)`.
            x: `(batch, *event)`, what an autoregressive decoder sees; nothing to others. Of a
                conditional model a dict of it and the conditions.
            training: Passed on to the decoder.

        Returns:
            `(batch, K, *params)`.
        """
        return self.params_of_codes(self.codes(z, x, training), data_of(x), training)

    def codes(self, z: Tensor, condition: Any, training: bool = False) -> Tensor:
        """Returns what the decoder takes: z, and beside it the features of the conditions.

        Args:
            z: `(batch, D)` or `(batch, K, D)`.
            condition: Dict of checked conditions, other entries of which are not read.
            training: Passed on to what makes features.
        """
        if not self.conditional:
            return z
        if not isinstance(condition, dict):
            raise ValueError(
                "`condition` must be given: the model is conditioned on "
                f"{', '.join(map(repr, self.encoder.names))}. Received: condition=None"
            )
        features = self.encoder.embed(condition, training)
        return self.codes_of_features(z, features)

    def codes_of_features(self, z: Tensor, features: Tensor) -> Tensor:
        """As `codes`, of the features of conditions, `(batch, F)`."""
        if isinstance(self.prior, ConditionalNormal):
            z = self.prior.place(z, features)
        features = ops.cast(features, z.dtype)
        if len(z.shape) == 3:
            features = features[:, None] * ops.ones_like(z[:, :, :1])
        return ops.concatenate([z, features], axis=-1)

    def params_of_codes(self, z: Tensor, x: Tensor = None, training: bool = False) -> Tensor:
        """As `params`, of what `codes` returns."""
        samples = z.shape[1]
        inputs = [ops.reshape(z, (-1, z.shape[2])) if samples > 1 else z[:, 0]]
        if self.autoregressive:
            inputs.append(x if samples == 1 else ops.repeat(x, samples, axis=0))
        params = self.decoder(*inputs, training=training)
        if samples == 1:
            return params[:, None]
        # Of sentences, the length may be known to the step alone.
        return ops.reshape(params, (-1, samples, *ops.shape(params)[1:]))

    def terms(
        self, x: Any, output: Output, index: int | None = None, training: bool = False
    ) -> Terms:
        """The densities of a batch, from what calling the model on it returned.

        Args:
            x: `(batch, *event)`, what is reconstructed; of a conditional model a dict as in `fit`.
            output: `Output`.
            index: Optional int `(batch,)`, numbers of the examples in the training set.
            training: Whether the likelihood may collect statistics of the batch.

        Returns:
            `Terms`, in nats and float32.
        """
        posterior, z, params, per_dimension = output
        likelihood = self.likelihood
        log_px = likelihood.training_log_prob if training else likelihood.log_prob
        log_pz, log_qz = self.prior.log_prob(z), ops.sum(per_dimension, axis=-1)
        kl = self.prior.kl_divergence(posterior)
        kl_per_dimension = self.prior.kl_per_dimension(posterior)
        if kl is None and per_dimension.shape[-1] == self.latent_dim:
            prior = self.prior.log_prob_per_dimension(z)
            kl_per_dimension = None if prior is None else ops.mean(per_dimension - prior, axis=1)
        return Terms(
            log_px=log_px(data_of(x), params),
            log_pz=log_pz,
            log_qz=log_qz,
            kl=ops.mean(log_qz - log_pz, axis=1) if kl is None else kl,
            kl_per_dimension=kl_per_dimension,
            posterior=posterior,
            z=z,
            index=index,
        )

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Any = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """Mean of the objective over the batch, plus the losses that layers added."""
        value, terms, report = self.loss_and_terms(x, y, y_pred, sample_weight, training)
        self.update_trackers(terms, report, sample_weight)
        return value

    def loss_and_terms(
        self,
        x: Tensor,
        y: Tensor,
        output: Output,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> tuple[Tensor, Terms, dict[str, Any]]:
        """Returns the result of `compute_loss` before any of it is logged.

        Args:
            x: `(batch, *event)`.
            y: Target, labels, or a dict with an index, as in `fit`.
            output: `Output` of the model on `x`.
            sample_weight: Optional `(batch,)`.
            training: Whether schedules advance and training-only terms apply.

        Returns:
            `(loss, terms, report)`: scalar in nats, `Terms`, and the objective's further values.
        """
        batch = Batch.unpack(self.canonical(x), y, sample_weight)
        if training and batch.target is not batch.x:
            self._takes_target = True
        if self.autoregressive and batch.target is not batch.x:
            # What is predicted is what the decoder has to see.
            output = output._replace(params=self.params(output.z, batch.observed, training))
        terms = self.terms(batch.observed, output, batch.index, training)
        terms = terms._replace(valid=batch.valid)
        loss = self.objective(terms, training=training)
        per_example = loss.per_example
        if batch.weight is not None:
            # Other numbers of weights must fail, not be broadcast.
            weight = ops.reshape(batch.weight, ops.shape(per_example))
            per_example = per_example * ops.cast(weight, per_example.dtype)
        shared = loss.batch
        for extra in self.losses:
            shared = shared + ops.sum(ops.cast(extra, "float32"))
        # Keras adds the replicas' gradients up.
        mean = batch_mean(per_example, batch.valid)
        return mean + shared / num_replicas(), terms, loss.report

    def update_trackers(
        self, terms: Terms, report: dict[str, Any], sample_weight: Tensor = None
    ) -> None:
        """Adds a batch to the logged distortion, rate and reports of the objective."""
        weight = example_weight(sample_weight)
        self.distortion_tracker.update_state(*weighed(terms.distortion, weight, terms.valid))
        self.rate_tracker.update_state(*weighed(terms.kl, weight, terms.valid))
        rows = num_valid(terms.kl, terms.valid)
        trackers = {tracker.name: tracker for tracker in self.objective.trackers}
        for name, value in report.items():
            trackers[name].add(value, rows, terms.valid)
        # Some values exist in training only.
        self._unreported = frozenset(trackers) - frozenset(report)

    def get_metrics_result(self) -> dict[str, Any]:
        """The logs: of the objective's values those that the step had."""
        found = super().get_metrics_result()
        return {name: value for name, value in found.items() if name not in self._unreported}

    def _sampled(self, x, posterior, num_samples, noise):
        z, log_qz = self.head.sample_and_log_prob(posterior, num_samples, noise)
        return Output(posterior, z, self.params(z, x), log_qz)
