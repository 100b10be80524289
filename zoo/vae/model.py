"""The one model class: where encoder, head, decoder, prior, likelihood and objective meet."""

import functools
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from ...core.checks import check_choice, check_integer, check_kind, check_seed
from ...core.compile import compiled, padded, rows_to_compile, run_once
from ...core.random import StatelessSeed
from ...core.replicas import (
    batch_mean,
    check_strategy,
    num_replicas,
    num_tf_replicas,
    strategy_scope,
)
from ...core.serialization import ArgumentsConfig
from ...layers import (
    AutoregressiveDecoder,
    GaussianHead,
    IsotropicNormal,
    PosteriorHead,
    Prior,
    StandardNormal,
    awaits_initialization,
    get_likelihood,
    initialize_from_data,
)
from ...losses import ELBO, Objective, Terms
from ..recipes import (
    SQUARED_ERROR,
    dense_500,
    digits_mlp,
    digits_pixelcnn,
    mnist_mlp,
    mu_vae_cnn,
    omniglot_resnet_pixelcnn,
)
from .decoding import check_beam, draw_options, interpolate_latents
from .epochs import clocks_of, length_of_epoch, own_learning_rate, tell_clocks, warn_of_ramps
from .initialization import EXAMPLES, first_examples
from .inputs import (
    Batch,
    Reader,
    check_batch,
    check_steps,
    clear_errors,
    example_weight,
    read_codes,
    read_data,
    read_inputs,
    read_scored,
)
from .memory import explains_memory
from .scale import live_weights, watched

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

#: Draws that `log_prob` takes at once. Fixed, because the noise of a seed depends on it.
_CHUNK = 8


class Output(NamedTuple):
    """Holds the results of calling a `VAE`.

    Attributes:
        posterior: Posterior value over `(batch, D)`.
        z: Draws from it, `(batch, K, D)`.
        params: The likelihood's parameters for each draw, `(batch, K, *event)`.
        log_qz: log q(z_k|x) by coordinate, `(batch, K, D)`, or `(batch, K, 1)`.
    """

    posterior: object
    z: object
    params: object
    log_qz: object


@keras.saving.register_keras_serializable(package="vaezoo")
class VAE(ArgumentsConfig, keras.Model):
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
    at weight 1 whatever is optimised.

    What takes statistics of a batch needs a batch of some size, `min_batch_size`; the last one of
    an epoch or an evaluation may be smaller. A regulariser is then left out of the loss and of its
    own logged mean (`MaximumMeanDiscrepancy`, `MutualPosteriorDivergence`); a head normalises by
    its running statistics, and does not feed them (`MeanBatchNorm`, `CholeskyReparam`). All other
    terms count every example.

    Args:
        encoder: Layer `(batch, *event) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, *params)`: the likelihood's parameters, for instance
            logits. Or an `AutoregressiveDecoder`, which sees x, too.
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
            biases of weight-normalised layers (`layers.initialize_from_data`), with z = E[z|x] and
            without dropout.

    Raises:
        ValueError: If neither `latent_dim` nor `head` is given, if they disagree, or if the
            objective needs a density that the head does not have, or matches codes to another
            prior than the model's.
        TypeError: If a part is of the wrong kind.

    Reference: Kingma & Welling (2014), arXiv:1312.6114.
    """

    def __init__(
        self,
        encoder,
        decoder,
        *,
        latent_dim=None,
        head=None,
        prior=None,
        likelihood="bernoulli",
        objective=None,
        num_samples=1,
        seed=None,
        name="vae",
        **kwargs,
    ):
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
        if isinstance(codes, tuple) and codes[1:] != (head.latent_dim,):
            raise ValueError(
                f"`decoder` must take codes of shape (batch, {head.latent_dim}), as `latent_dim` "
                f"says. Received: a decoder of inputs of shape {codes}"
            )
        objective = objective or ELBO()
        prior = prior or _matched_prior(objective)
        for part, value, kind in (("prior", prior, Prior), ("objective", objective, Objective)):
            check_kind(part, value, kind, f"a vaezoo {kind.__name__}")
        self.encoder, self.head, self.decoder = encoder, head, decoder
        self.prior, self.objective = prior, objective
        self.likelihood = get_likelihood(likelihood)
        self.likelihood.adopt(decoder)
        self._check_parts(objective, *objective.regularizers)
        self.distortion_tracker = keras.metrics.Mean("distortion")
        self.rate_tracker = keras.metrics.Mean("rate")
        self.objective.make_trackers()
        self._unreported = frozenset()
        self._takes_target = False
        self._functions = {}
        self.prior.attach(self)

    @property
    def latent_dim(self):
        """D, the dimension of z."""
        return self.head.latent_dim

    @property
    def takes_target(self):
        """Whether the model was trained to turn x into targets, so that x itself is not scored."""
        return self._takes_target

    @property
    def event_dtype(self):
        """Name of the dtype of x: that of the encoder's input where it has one."""
        inputs = getattr(self.encoder, "inputs", None)
        return inputs[0].dtype if inputs else self.input_dtype

    @property
    def uses_cudnn(self):
        """Whether a recurrent layer of the networks asks for cuDNN's implementation."""
        return any(
            getattr(layer, "use_cudnn", None) is True
            for part in (self.encoder, self.decoder)
            for layer in part._flatten_layers()
        )

    @property
    def num_examples(self):
        """Number of training examples whose indices `fit` must be given, or None."""
        return self.objective.num_examples

    def add_regularizer(self, regularizer):
        """Adds a term to the objective, such as an `AuxiliarySoftmax` that measures.

        Args:
            regularizer: `Regularizer`.

        Raises:
            RuntimeError: If the model is compiled already.
            TypeError: If it is no regulariser.
            ValueError: If it needs a density that the head does not have, or matches codes to
                another prior than the model's.
        """
        if self.compiled:
            raise RuntimeError("`add_regularizer` must be called before `compile`.")
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
            _check_same_prior(part, self.prior)

    @classmethod
    def from_config(cls, config):
        """Builds the model from what `get_config` returned."""
        return super().from_config(_with_matched_prior(config))

    def get_config(self):
        """Returns the parts; the head stands for the arguments that it was made from."""
        config = keras.Model.get_config(self)
        for name in ("encoder", "decoder", "head", "prior", "likelihood", "objective"):
            config[name] = keras.saving.serialize_keras_object(getattr(self, name))
        return config

    def get_build_config(self):
        """Returns the shape of the data; a model in use is built first, so that a file holds all.

        Raises:
            ValueError: If the model has weights in use that no file could hold, because the shape
                of its data is unknown.
        """
        self._build_in_use()
        config = super().get_build_config()
        return {**config, "takes_target": True} if config and self.takes_target else config

    def build_from_config(self, config):
        """Builds the model as it was when it was saved."""
        self._takes_target = config.get("takes_target", False)
        super().build_from_config({k: v for k, v in config.items() if k != "takes_target"})

    def save(self, filepath, overwrite=True, **kwargs):
        """Saves the model as `keras.Model.save` does, after building what is in use."""
        self._build_in_use()
        super().save(filepath, overwrite, **kwargs)

    def save_weights(self, filepath, overwrite=True, **kwargs):
        """Saves the weights as `keras.Model.save_weights` does, after building what is in use."""
        self._build_in_use()
        super().save_weights(filepath, overwrite, **kwargs)

    def _build_in_use(self):
        """Builds a model of which parts alone are built: a file would not tell their shapes."""
        self._build_for()
        if not self.built and self.head.weights:
            raise ValueError(
                "A model can be saved when it knows its data: call it on a batch first, as in "
                "`model(x)`. Received: an encoder that does not tell the shape of its input"
            )

    def _build_for(self, x=None):
        """Builds the model for data `x`, or without any for what the encoder takes, if it tells."""
        if self.built:
            return
        if x is None:
            shape = getattr(self.encoder, "input_shape", None)
            shape = shape or (self.encoder.get_build_config() or {}).get("input_shape")
        else:
            shape = tuple(x.shape)
        if isinstance(shape, (tuple, list)):
            self.build((None, *shape[1:]))

    def build(self, input_shape):
        event_shape = tuple(input_shape[1:])
        x = keras.KerasTensor((None, *event_shape), self.event_dtype)
        features = self.encoder(x)
        self.head(features)
        inputs = [keras.KerasTensor((None, self.latent_dim))]
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

    # -- training --------------------------------------------------------------------------------

    def call(self, x, training=False):
        features = self.encoder(x, training=training)
        posterior, z, log_qz = self.head.draw(features, training=training)
        return Output(posterior, z, self.params(z, x, training), log_qz)

    def params(self, z, x=None, training=False):
        """The likelihood's parameters for each draw.

        Args:
            z: `(batch, K, D)`.
            x: `(batch, *event)`, what an autoregressive decoder sees; nothing to others.
            training: Passed on to the decoder.

        Returns:
            `(batch, K, *params)`.
        """
        samples = z.shape[1]
        inputs = [ops.reshape(z, (-1, z.shape[2])) if samples > 1 else z[:, 0]]
        if self.autoregressive:
            inputs.append(x if samples == 1 else ops.repeat(x, samples, axis=0))
        params = self.decoder(*inputs, training=training)
        if samples == 1:
            return params[:, None]
        # Of sentences, the length may be known to the step alone.
        return ops.reshape(params, (-1, samples, *ops.shape(params)[1:]))

    def terms(self, x, output, index=None, training=False):
        """The densities of a batch, from what calling the model on it returned.

        Args:
            x: `(batch, *event)`, what is reconstructed.
            output: `Output`.
            index: Optional int `(batch,)`, numbers of the examples in the training set.
            training: Whether the likelihood may collect statistics of the batch.

        Returns:
            `Terms`, in nats and float32.
        """
        posterior, z, params, by_coordinate = output
        likelihood = self.likelihood
        log_px = likelihood.training_log_prob if training else likelihood.log_prob
        log_pz, log_qz = self.prior.log_prob(z), ops.sum(by_coordinate, axis=-1)
        kl = self.prior.kl_divergence(posterior)
        kl_per_dim = self.prior.kl_per_dimension(posterior)
        if kl is None and by_coordinate.shape[-1] == self.latent_dim:
            prior = self.prior.log_prob_per_dimension(z)
            kl_per_dim = None if prior is None else ops.mean(by_coordinate - prior, axis=1)
        return Terms(
            log_px=log_px(x, params),
            log_pz=log_pz,
            log_qz=log_qz,
            kl=ops.mean(log_qz - log_pz, axis=1) if kl is None else kl,
            kl_per_dim=kl_per_dim,
            posterior=posterior,
            z=z,
            index=index,
        )

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean of the objective over the batch, plus the losses that layers added."""
        value, terms, report = self.loss_and_terms(x, y, y_pred, sample_weight, training)
        self.update_trackers(terms, report, sample_weight)
        return value

    def loss_and_terms(self, x, y, output, sample_weight=None, training=True):
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
        batch = Batch.unpack(x, y, sample_weight)
        if training and batch.target is not x:
            self._takes_target = True
        if self.autoregressive and batch.target is not x:
            # What is predicted is what the decoder has to see.
            output = output._replace(params=self.params(output.z, batch.target, training))
        terms = self.terms(batch.target, output, batch.index, training)
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
        return batch_mean(per_example) + shared / num_replicas(), terms, loss.report

    def update_trackers(self, terms, report, sample_weight=None):
        """Adds a batch to the logged distortion, rate and reports of the objective."""
        sample_weight = example_weight(sample_weight)
        self.distortion_tracker.update_state(terms.distortion, sample_weight)
        self.rate_tracker.update_state(terms.kl, sample_weight)
        trackers = {tracker.name: tracker for tracker in self.objective.trackers}
        for name, value in report.items():
            trackers[name].add(value, ops.shape(terms.kl)[0])
        # Some values exist in training only.
        self._unreported = frozenset(trackers) - frozenset(report)

    def get_metrics_result(self):
        """The logs: of the objective's values those that the step had."""
        found = super().get_metrics_result()
        return {name: value for name, value in found.items() if name not in self._unreported}

    def compile(self, optimizer="adam", *, jit_compile="auto", run_eagerly=False, **kwargs):
        """Configures training; the objective is the model's own.

        Args:
            optimizer: Keras optimiser or its name.
            jit_compile: Whether XLA compiles the steps. `"auto"` means yes, on CPUs too, except
                for eager runs and under several `tf.distribute` replicas, which XLA cannot
                compile, and on TensorFlow with LSTMs of cuDNN, which it cannot either.
                `model.jit_compile` holds the outcome; a saved model decides anew where it is
                loaded.
            run_eagerly: Whether to run step by step in Python.
            **kwargs: Further arguments of `keras.Model.compile` such as `steps_per_execution`.

        Raises:
            ValueError: If losses or metrics are given, XLA asked for where it cannot work, or the
                model made under a `tf.distribute` strategy of several machines.
        """
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f"`{name}` must not be given: a VAE minimises its `objective` and logs its "
                    f"terms. Received: {name}={kwargs[name]!r}"
                )
        check_strategy(self)
        self._asked_jit_compile = jit_compile
        replicas = num_tf_replicas(self)
        cudnn = keras.backend.backend() == "tensorflow" and self.uses_cudnn
        if jit_compile == "auto":
            jit_compile = not run_eagerly and replicas == 1 and not cudnn
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
            optimizer=optimizer, jit_compile=jit_compile, run_eagerly=run_eagerly, **kwargs
        )
        own_learning_rate(self.optimizer)

    def get_compile_config(self):
        """Returns the arguments of `compile` as they were given."""
        config = super().get_compile_config()
        return {**config, "jit_compile": self._asked_jit_compile} if config else config

    def compile_from_config(self, config):
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
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        **kwargs,
    ):
        """Trains as `keras.Model.fit` does, after checking the data.

        Args:
            x: Inputs: array, `tf.data.Dataset`, `PyDataset` or generator.
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
        check_steps(kwargs)
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
            validation = read_data(
                self,
                *keras.utils.unpack_x_y_sample_weight(validation_data),
                batch_size=kwargs.get("validation_batch_size") or batch_size,
            ).packed
        data = self._initialize_from(data)
        length = length_of_epoch(data.x, batch_size, kwargs.get("steps_per_epoch"))
        self._count_epochs(length, epochs, kwargs.get("initial_epoch", 0), callbacks)
        if hasattr(data.x, "element_spec"):
            # Keras warns of its own default, that a `tf.data.Dataset` is not shuffled again.
            kwargs.setdefault("shuffle", False)
        callbacks = watched(self, data.observed, callbacks)
        with clear_errors(self), live_weights(self):
            return self._fit(data, batch_size, epochs, verbose, callbacks, validation, **kwargs)

    def _fit(self, data, batch_size, epochs, verbose, callbacks, validation_data, **kwargs):
        """Trains on `Data`."""
        return super().fit(
            data.x,
            data.y,
            batch_size,
            epochs,
            verbose,
            callbacks,
            validation_data=validation_data,
            sample_weight=data.sample_weight,
            **kwargs,
        )

    def _count_epochs(self, length, epochs, initial_epoch, callbacks):
        if not self.compiled:
            # Keras has its own words for that.
            return
        if length is not None:
            self.set_steps_per_epoch(length)
            warn_of_ramps(self, length, epochs, initial_epoch, callbacks)
        elif clocks_of(self):
            raise ValueError(
                "`steps_per_epoch` must be given, because a schedule counts in epochs and `x` does "
                "not say how many batches it has; or tell a `tf.data.Dataset` its length by "
                "`dataset.apply(tf.data.experimental.assert_cardinality(n))`. Received: "
                "steps_per_epoch=None"
            )

    def set_steps_per_epoch(self, steps_per_epoch):
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
        """Initialises weight-normalised layers that have seen no data yet, see `fit`.

        Returns:
            `Data`, with nothing consumed.
        """
        if data.first is None:
            return data
        with strategy_scope(self):
            if not self.built:
                self.build((None, *data.first.shape[1:]))
            if not awaits_initialization(self):
                return data
            data, examples, target = first_examples(data, self.initial_examples)

            def see(examples, target):
                with initialize_from_data():
                    features = self.encoder(examples, training=False)
                    # In batch statistics, which inference does not have yet, there is no dropout.
                    statistics = self.head.min_batch_size > 1
                    z = self.head.posterior(features, training=statistics).mean[:, None]
                    self.params(z, target)
                    self.prior.log_prob(z)

            run_once(self, see, *(ops.cast(v, self.event_dtype) for v in (examples, target)))
        return data

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

    def jax_state_sync(self):
        """Puts back the variables that Keras took out of the model for compiled steps on JAX."""
        values = keras.tree.flatten(getattr(self, "_jax_state", None) or {})
        # Those that a failed step has used up are gone.
        if not any(value.is_deleted() for value in values):
            super().jax_state_sync()

    @explains_memory
    def evaluate(
        self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, **kwargs
    ):
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
            check_steps(kwargs)
            data = read_data(self, x, y, sample_weight, batch_size=batch_size)
            x, y, sample_weight = data.x, data.y, data.sample_weight
        with clear_errors(self):
            return super().evaluate(x, y, batch_size, verbose, sample_weight, **kwargs)

    @explains_memory
    def predict(self, x, batch_size=None, verbose="auto", **kwargs):
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
        check_steps(kwargs)
        data = read_data(self, x, batch_size=batch_size, observed=False)
        with clear_errors(self):
            return super().predict(data.x, batch_size, verbose, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """Takes a step as `keras.Model.train_on_batch` does, after checking the batch as `fit`."""
        reader = Reader(self, training=True, class_weight=class_weight)
        batch = check_batch(self, reader, x, y, sample_weight)
        return super().train_on_batch(*batch, return_dict=return_dict)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Evaluates as `keras.Model.test_on_batch` does, after checking the batch."""
        batch = check_batch(self, Reader(self), x, y, sample_weight)
        return super().test_on_batch(*batch, return_dict=return_dict)

    def predict_on_batch(self, x):
        """Runs the model as `keras.Model.predict_on_batch` does, after checking the batch."""
        x, _, _ = check_batch(self, Reader(self, observed=False), x)
        return super().predict_on_batch(x)

    # -- use -------------------------------------------------------------------------------------

    @explains_memory
    def encode(self, x, batch_size=None):
        """The posterior q(z|x) in inference mode; takes no random draw.

        Args:
            x: `(batch, *event)`.
            batch_size: If given, arrays are worked through in compiled batches of this size and
                NumPy comes back; otherwise the whole of `x` is encoded at once, differentiably.

        Returns:
            Posterior value: `.mean (batch, D)` and its other parameters.
        """
        x = read_inputs(self, x)
        self._build_for(x)
        if batch_size is not None:
            return self._in_batches("encode", self.encode, x, batch_size)
        return self.head.posterior(self.encoder(x, training=False))

    @explains_memory
    def decode(self, z, batch_size=None, beam_size=None, length_penalty=0.0, return_log_prob=False):
        """The likelihood's mean E[x|z]; `model.decoder` gives its parameters.

        An autoregressive decoder has no such mean at hand: it decodes greedily, every value being
        the likelihood's mode given those before it. One of text can look for a more probable
        sentence among several at once.

        Args:
            z: `(batch, D)` or `(batch, K, D)`.
            batch_size: As in `encode`.
            beam_size: Positive int, sentences under consideration; None decodes greedily.
            length_penalty: Non-negative float, how much a longer sentence may be less probable:
                see `LSTMDecoder.beam_search`.
            return_log_prob: Whether a search returns log p(x|z), too.

        Returns:
            `(batch, *event)` or `(batch, K, *event)`; `(x, log_prob)` under `return_log_prob`, in
            nats, `(batch,)` or `(batch, K)`.

        Raises:
            ValueError: If the last axis of `z` is not `latent_dim`, an option of the search is out
                of range, or the decoder has no search.
        """
        z = read_codes(self, z)
        self._build_for()
        if beam_size is not None or return_log_prob:
            found = self._searched(z, batch_size, beam_size, length_penalty)
            return found if return_log_prob else found[0]
        if batch_size is not None:
            return self._in_batches("decode", self.decode, z, batch_size)
        if self.autoregressive:
            x = self._greedy(ops.reshape(z, (-1, self.latent_dim)))
            return x if len(z.shape) == 2 else ops.reshape(x, (-1, *z.shape[1:2], *x.shape[1:]))
        if len(z.shape) == 2:
            return self.likelihood.mean(self.decoder(z, training=False))
        return self.likelihood.mean(self.params(z))

    def _searched(self, z, batch_size, beam_size, length_penalty):
        if beam_size is None:
            raise ValueError("`return_log_prob` needs a `beam_size`. Received: beam_size=None")
        check_beam(self.decoder, beam_size, length_penalty)
        codes = ops.reshape(z, (-1, self.latent_dim))

        def search(codes, length_penalty):
            return self.decoder.beam_search(codes, beam_size, length_penalty)

        length_penalty = np.float32(length_penalty)
        if batch_size is None:
            x, log_prob = search(codes, length_penalty)
        else:
            name, options = f"beam_{beam_size}", (length_penalty,)
            x, log_prob = self._in_batches(name, search, codes, batch_size, options=options)
        if len(z.shape) == 2:
            return x, log_prob
        reshape = ops.reshape if batch_size is None else np.reshape
        return tuple(reshape(v, (-1, *z.shape[1:2], *v.shape[1:])) for v in (x, log_prob))

    def _greedy(self, z):
        nothing = ops.zeros((ops.shape(z)[0], *self.decoder.grid, 1), "float32")
        return self.decoder.generate(z, lambda params, _: self.likelihood.mode(params), nothing)

    @explains_memory
    def reconstruct(self, x, batch_size=256):
        """Decodes the posterior mean: NumPy `(batch, *event)`.

        Args:
            x: `(batch, *event)`.
            batch_size: Examples at once.
        """
        x = read_inputs(self, x)
        self._build_for(x)
        return self._in_batches("reconstruct", self._reconstruct, x, batch_size)

    def _reconstruct(self, x):
        return self.decode(self.encode(x).mean)

    @explains_memory
    def interpolate(self, a, b, steps=8, batch_size=256, path="linear"):
        """Decodes codes between the posterior means of two examples.

            z_t = (1 - t) E[z|a] + t E[z|b],   t = 0, 1 / (steps - 1), ..., 1

        The first and the last are the reconstructions of a and b.

        Args:
            a: `(batch, *event)`.
            b: `(batch, *event)`, their counterparts; sentences may have another length.
            steps: Int of at least 2, points on each way, both ends included.
            batch_size: Examples at once.
            path: `"linear"`, or `"spherical"`: along the arc of the angle between the two codes,
                where the codes of N(0, I) lie.

        Returns:
            NumPy `(batch, steps, *event)`.

        Raises:
            ValueError: If an argument is out of range, or the data do not fit.

        Reference: White (2016), section 2.1, arXiv:1609.04468 (`"spherical"`).
        """
        steps = check_integer("steps", steps)
        if steps < 2:
            raise ValueError(f"`steps` must be at least 2. Received: steps={steps}")
        check_choice("path", path, ("linear", "spherical"))
        batch_size = check_integer("batch_size", batch_size)
        a, b = read_inputs(self, a, "a"), read_inputs(self, b, "b")
        if len(a) != len(b):
            raise ValueError(
                "`a` and `b` must hold as many examples as each other. Received: "
                f"{len(a)} and {len(b)}"
            )
        ends = [self.encode(x, batch_size).mean for x in (a, b)]
        ends = padded(ends, rows_to_compile(len(a)))
        codes = ops.convert_to_numpy(interpolate_latents(*ends, steps, path))[: len(a)]
        x = self.decode(codes.reshape(-1, self.latent_dim), batch_size)
        return x.reshape(len(a), steps, *x.shape[1:])

    @explains_memory
    def generate(
        self,
        num,
        seed=None,
        mean=True,
        batch_size=256,
        temperature=None,
        top_k=None,
        top_p=None,
    ):
        """New data from the prior.

            z ~ p(z),   x = E[x|z]   or   x ~ p(x|z)

        An autoregressive decoder draws x, value by value, in one compiled loop; its mean is that of
        each value given the drawn ones before it. Text has no mean and is always drawn.

        Args:
            num: Positive int, how many.
            seed: Optional int; equal seeds give equal data, here and in the exported `sample`.
            mean: Whether to return the likelihood's mean or a draw from it.
            batch_size: Codes decoded at once.
            temperature: Positive float: classes (tokens, grey levels of `Categorical`) are drawn
                with logits divided by it; below 1 the probable ones more often.
            top_k: Positive int: each class is drawn among the `top_k` most probable ones; None or
                0 keeps all.
            top_p: Float in (0, 1]: each class is drawn among the most probable ones that together
                hold the probability `top_p`.

        Returns:
            NumPy `(num, *event)`.

        Raises:
            ValueError: If `num` or `batch_size` is below 1, `seed` or another option out of range,
                one is given where no classes are drawn, or the model not built.
        """
        num = check_integer("num", num)
        batch_size = check_integer("batch_size", batch_size)
        self._require_built("generate")
        seed = _seed(seed)
        mean = mean and self.likelihood.has_mean
        options = draw_options(self.likelihood, temperature, top_k, top_p, drawn=not mean)
        rows = rows_to_compile(int(num), noise=True) if self.prior.nested_draws else int(num)
        z = ops.convert_to_numpy(self.prior.sample(rows, StatelessSeed(seed)))[:num]
        if mean and not self.autoregressive:
            return self._in_batches("decode", self.decode, z, batch_size)
        values = self._drawn(z, seed, batch_size, options)
        if mean:
            means = self._compiled("means", self._means)
            return self._over_batches(
                lambda z, values, start: means(z, values), (z, values), batch_size
            )
        return values

    def _drawn(self, z, seed, batch_size, options=()):
        """Draws from p(x|z), in NumPy."""
        # Tensors, so that no value of an option needs another function.
        options = [ops.convert_to_tensor(option) for option in options]
        if not self.autoregressive:
            draw = self._compiled("draw", self._draw)
            return self._over_batches(
                lambda batch, start: draw(batch, np.uint32(seed), np.uint32(1 + start), *options),
                (z,),
                batch_size,
                noise=True,
            )
        # Outside of XLA, whose random numbers differ from a SavedModel's.
        (codes,) = padded((z,), rows_to_compile(len(z), noise=True))
        uniform = self._compiled("noise", self.draw_noise)(codes, np.uint32(seed))
        uniform = ops.convert_to_numpy(uniform)[: len(z)]
        draw = self._compiled("ancestral", self.draw_from_noise, xla=True)
        return self._over_batches(
            lambda z, uniform, start: draw(z, uniform, *options), (z, uniform), batch_size, xla=True
        )

    def _draw(self, z, seed, stream, *options):
        params = self.decoder(z, training=False)
        return self.likelihood.sample(params, StatelessSeed(seed, stream), *options)

    def draw_noise(self, z, seed):
        """The noise of `draw_from_noise` for codes `z (batch, D)`, `(batch, *grid, N)`."""
        numbers = self.likelihood.num_uniforms(self.decoder.channels)
        shape = (ops.shape(z)[0], *self.decoder.grid, numbers)
        # Away from the ends, where quantiles are infinite.
        return keras.random.uniform(
            shape, 1e-6, 1.0 - 1e-6, dtype="float32", seed=StatelessSeed(seed, 1)
        )

    def draw_from_noise(self, z, uniform, *options):
        """An autoregressive decoder's draw from p(x|z) as a function of uniform noise.

        Args:
            z: `(batch, D)`.
            uniform: `draw_noise`.
            *options: What `likelihood.from_uniform` takes beside noise.
        """

        def draw(params, uniform):
            return self.likelihood.from_uniform(params, uniform, *options)

        return self.decoder.generate(z, draw, uniform)

    def _means(self, z, x):
        return self.likelihood.mean(self.params(z[:, None], x)[:, 0])

    @explains_memory
    def log_terms(self, x, num_samples=1, seed=None, batch_size=None, target=None):
        """The densities of `x` under K posterior draws in inference mode.

        Args:
            x: `(batch, *event)`.
            num_samples: Positive int K.
            seed: Optional int.
            batch_size: As in `encode`; the data are then checked, too.
            target: As in `log_prob`.

        Returns:
            `Terms`, in nats.

        Raises:
            ValueError: If `num_samples` is below 1 or `seed` out of range.
        """
        num_samples = check_integer("num_samples", num_samples)
        seed = _seed(seed)
        if batch_size is None:
            arrays = (x,) if target is None else (x, target)
            return self._log_terms(*arrays, seed, 0, num_samples=num_samples)
        batch_size = check_integer("batch_size", batch_size)
        arrays = read_scored(self, x, target)
        self._build_for(arrays[0])
        function = functools.partial(self._log_terms, num_samples=num_samples)
        terms = self._compiled(f"log_terms_{num_samples}_{len(arrays)}", function)
        return self._over_batches(
            lambda *inputs: terms(*inputs[:-1], np.uint32(seed), np.uint32(inputs[-1])),
            arrays,
            batch_size,
            noise=True,
        )

    def _log_terms(self, x, *arguments, num_samples):
        *target, seed, stream = arguments
        observed = target[0] if target else x
        posterior = self.encode(x)
        noise = StatelessSeed(seed, stream)
        return self.terms(observed, self._sampled(observed, posterior, num_samples, noise))

    def _sampled(self, x, posterior, num_samples, noise):
        z, log_qz = self.head.sample_and_log_prob(posterior, num_samples, noise)
        return Output(posterior, z, self.params(z, x), log_qz)

    @explains_memory
    def log_prob(self, x, num_samples=100, seed=0, batch_size=64, target=None):
        """Importance-weighted estimate of the log-likelihood of each example.

            log p(x) ~ logsumexp_k [ log p(x|z_k) + log p(z_k) - log q(z_k|x) ] - log K    (nats)

        In expectation a lower bound that rises with K. Examples are encoded once; draws are taken
        a few at a time, so memory does not depend on K.

        Args:
            x: `(batch, *event)`.
            num_samples: Positive int K.
            seed: Int that fixes the draws.
            batch_size: Examples at once.
            target: Optional array of the shape of `x`: what x is to be turned into, such as clean
                images from noisy ones. Its likelihood is estimated then, with q(z|x) of `x`.

        Returns:
            NumPy float32 `(batch,)`.

        Raises:
            ValueError: If `num_samples` is below 1, `seed` out of range, the data do not fit, or
                the posterior is deterministic.

        Reference: Burda et al. (2016), eq. 8, arXiv:1509.00519.
        """
        num_samples = check_integer("num_samples", num_samples)
        batch_size = check_integer("batch_size", batch_size)
        seed = _seed(seed)
        self.check_density()
        arrays = read_scored(self, x, target)
        self._build_for(arrays[0])

        def of_target(x, target, *numbers):
            return self.score(x, *numbers, target=target)

        function = self.score if target is None else of_target
        score = self._compiled(f"score_{len(arrays)}", function)
        numbers = np.int32(num_samples), np.int32(seed)
        return self._over_batches(
            lambda *inputs: score(*inputs[:-1], *numbers, np.int32(inputs[-1])),
            arrays,
            batch_size,
            noise=True,
        )

    def check_density(self):
        """Raises a `ValueError` if the posterior is deterministic and x has no estimate."""
        if not self.head.has_density:
            raise ValueError(
                "`log_prob` needs a posterior with a density; a deterministic encoder has none. "
                f"Received: head={type(self.head).__name__}"
            )

    def score(self, x, num_samples, seed, offset=0, target=None):
        """The computation behind `log_prob`, on tensors, for one batch.

        Args:
            x: `(batch, *event)`.
            num_samples: Int scalar K.
            seed: Int scalar.
            offset: Int scalar, number of the first example; separates the noise of batches.
            target: As in `log_prob`.

        Returns:
            Float32 tensor `(batch,)`.
        """
        posterior = self.encode(x)
        x = x if target is None else target
        num_samples = ops.cast(num_samples, "int32")

        def add_chunk(index, total):
            stream = ops.cast(offset, "int32") * 64 + index
            terms = self.terms(x, self._sampled(x, posterior, _CHUNK, StatelessSeed(seed, stream)))
            log_weights = terms.log_px + terms.log_pz - terms.log_qz
            number = index * _CHUNK + ops.arange(_CHUNK, dtype="int32")
            log_weights = ops.where(number < num_samples, log_weights, -float("inf"))
            return ops.logaddexp(total, ops.logsumexp(log_weights, axis=1))

        start = ops.full_like(posterior.mean[:, 0], -float("inf"))
        chunks = (num_samples + _CHUNK - 1) // _CHUNK
        total = ops.fori_loop(0, chunks, add_chunk, start)
        return total - ops.log(ops.cast(num_samples, "float32"))

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """Writes a SavedModel that serves without vaezoo; see `export_saved_model`."""
        from .export import export_saved_model

        export_saved_model(self, filepath, format, **kwargs)

    def _compiled(self, name, function, xla=False):
        if name not in self._functions:
            self._functions[name] = compiled(self, function, xla)
        return self._functions[name]

    def _in_batches(self, name, function, values, batch_size, seed=None, options=()):
        batch_size = check_integer("batch_size", batch_size)
        if len(values) == 0:
            raise ValueError("There must be at least one example to work on. Received: none")
        # Pixel by pixel in one loop, whose caches XLA updates in place.
        xla = self.autoregressive and name.startswith(("decode", "reconstruct", "beam"))
        run = self._compiled(name, function, xla)
        options = [ops.convert_to_tensor(option) for option in options]

        def call(batch, start):
            noise = () if seed is None else (np.uint32(seed), np.uint32(start))
            return run(batch, *noise, *options)

        return self._over_batches(call, (values,), batch_size, xla, noise=seed is not None)

    def _over_batches(self, function, arrays, batch_size, xla=False, noise=False):
        """Applies a compiled function to arrays in batches of few sizes, and returns NumPy.

        Args:
            function: Function of a tensor of each array and of the number of the batch's first
                row, which keeps the noise of batches apart. Returns a structure of tensors, batch
                first, or of None.
            arrays: Arrays or tensors of equal lengths.
            batch_size: Positive int.
            xla: As in `rows_to_compile`.
            noise: As in `rows_to_compile`.
        """
        length, parts = len(arrays[0]), []
        for start in range(0, length, batch_size):
            batch = [array[start : start + batch_size] for array in arrays]
            rows = len(batch[0])
            size = rows_to_compile(rows, batch_size, xla, noise)
            # A batch of this size has been compiled for by now.
            batch = padded(batch, batch_size if start and size > rows else size)
            result = function(*map(ops.convert_to_tensor, batch), start)
            parts.append(keras.tree.map_structure(lambda v, n=rows: _to_numpy(v, n), result))
        return keras.tree.map_structure(
            lambda *leaves: None if leaves[0] is None else np.concatenate(leaves), *parts
        )

    def _require_built(self, method):
        if not self.built:
            raise ValueError(
                f"`{method}` needs a model that knows its data: fit it, load it, or call it on a "
                "batch first."
            )


def _own_variance(objective):
    """Variance of the normal prior that an objective, or the first of its terms, has of its own."""
    parts = (objective, *getattr(objective, "regularizers", ()))
    return next(filter(None, (getattr(part, "prior_variance", None) for part in parts)), None)


def _matched_prior(objective):
    variance = _own_variance(objective)
    return StandardNormal() if variance in (None, 1) else IsotropicNormal(variance**0.5)


def _check_same_prior(part, prior):
    variance = getattr(part, "prior_variance", None)
    if variance is None:
        return
    scales = (prior.scale, prior.sampling_scale) if isinstance(prior, IsotropicNormal) else ()
    if not scales or any(abs(scale**2 / variance - 1.0) > 1e-5 for scale in scales):
        drawn = f", draws of sd {scales[1]:g}" if scales else ""
        known = f" of sd {scales[0]:g}{drawn}" if scales else ""
        raise ValueError(
            f"`prior` must be N(0, {variance:g} I), which {type(part).__name__} matches the codes "
            f"to: leave it out, or give IsotropicNormal({variance**0.5:.6g}). Received: "
            f"prior={type(prior).__name__}{known}"
        )


def _with_matched_prior(config):
    """The configuration of a model, with the prior of a file from before it followed the objective.

    Such a file says N(0, I) beside an objective that matches codes to another normal.
    """
    config = dict(config)
    for name in ("prior", "objective"):
        if isinstance(config.get(name), dict):
            config[name] = keras.saving.deserialize_keras_object(config[name])
    prior, variance = config.get("prior"), _own_variance(config.get("objective"))
    if type(prior) is StandardNormal and prior.sampling_scale == 1 and variance not in (None, 1):
        config["prior"] = None
    return config


def _to_numpy(value, rows):
    # Terms without a closed form are None.
    return None if value is None else ops.convert_to_numpy(value)[:rows]


def _seed(seed):
    """The user's seed, or one at random."""
    seed = check_seed("seed", seed)
    return np.random.randint(2**31) if seed is None else seed
