"""VAEs in plain Keras, as people write them, with a place for each mistake that they make."""

import dataclasses

import keras
import numpy as np
from keras import layers, ops

from .data import VOCABULARY, WORDS


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a VAE is written, and what is wrong with it.

    Attributes:
        data: `"binary"`, `"gray"` or `"text"`.
        style: `"add_loss"`, `"train_step"`, `"compute_loss"` or `"call"`, the way of its loss.
        network: `"dense"`, `"deep"`, `"conv"` or `"normalized"`.
        latent_dim: D.
        outputs: What the encoder returns: `"pair"`, `"triple"` with a draw, or `"dict"`.
        probabilities: Whether the decoder ends in a sigmoid.
        from_logits: What the loss takes the decoder's outputs for; None for what they are.
        kl_weight: Factor of the KL.
        kl_epochs: Epochs over which that factor rises from 0, None for none.
        kl: `"sum"`, `"mean"` over dimensions, `"no_means"` or `"no_variances"`.
        reconstruction: `"sum"` or `"mean"` over the values of an example.
        scale: Standard deviation of the Gaussian likelihood of gray images.
        sample: Whether codes are drawn.
        on_mean: Activation of the means.
        on_log_var: Activation of the second output.
        second: `"log_var"`, `"deviation"` or `"variance"`: what that is.
        dropout: Rate of dropout in the encoder.
        dropout_stays: Whether dropout is on in inference, too.
        noise_stays: Standard deviation of noise on the means, in inference, too.
        momentum: Momentum of batch normalization.
        blind: `"encoder"` or `"decoder"`: does not look at its input.
        frozen: `"encoder"` or `"decoder"`: is not trained.
        frozen_after: Epochs after which that is so.
        epochs: Epochs of training.
        learning_rate: Of Adam.
        optimizer: `"adam"` or `"sgd"`.
    """

    data: str = "binary"
    style: str = "add_loss"
    network: str = "dense"
    latent_dim: int = 4
    outputs: str = "pair"
    probabilities: bool = False
    from_logits: bool | None = None
    kl_weight: float = 1.0
    kl_epochs: int | None = None
    kl: str = "sum"
    reconstruction: str = "sum"
    scale: float = 0.15
    sample: bool = True
    on_mean: str | None = None
    on_log_var: str | None = None
    second: str = "log_var"
    dropout: float = 0.0
    dropout_stays: bool = False
    noise_stays: float = 0.0
    momentum: float = 0.9
    blind: str | None = None
    frozen: str | None = None
    frozen_after: int = 0
    epochs: int = 25
    learning_rate: float = 4e-3
    optimizer: str = "adam"


class Sampling(layers.Layer):
    """Draws z from N(mean, exp(log_var)), or from what else the second output may be."""

    def __init__(self, second="log_var", sample=True, **kwargs):
        super().__init__(**kwargs)
        self.second, self.sample = second, sample
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs):
        mean, second = inputs
        if not self.sample:
            return mean
        deviation = {
            "log_var": lambda: ops.exp(0.5 * second),
            "deviation": lambda: second,
            "variance": lambda: ops.sqrt(second),
        }[self.second]()
        return mean + deviation * keras.random.normal(ops.shape(mean), seed=self.seed_generator)


def kl_of(recipe, mean, second):
    """KL by example, as the recipe has it."""
    variance = {
        "log_var": lambda: ops.exp(second),
        "deviation": lambda: ops.square(second),
        "variance": lambda: second,
    }[recipe.second]()
    log_variance = second if recipe.second == "log_var" else ops.log(variance + 1e-8)
    of_means, of_variances = ops.square(mean), variance - log_variance - 1.0
    terms = 0.5 * {
        "no_means": of_variances,
        "no_variances": of_means,
    }.get(recipe.kl, of_means + of_variances)
    return ops.mean(terms, axis=-1) if recipe.kl == "mean" else ops.sum(terms, axis=-1)


def reconstruction_of(recipe, x, y):
    """Loss of the reconstruction by example, as the recipe has it."""
    if recipe.data == "text":
        values = keras.losses.sparse_categorical_crossentropy(x, y, from_logits=True)
    elif recipe.data == "gray":
        # A mean squared error as it stands in most tutorials, or the Gaussian with its scale.
        factor = 1.0 if recipe.reconstruction == "mean" else 0.5 / recipe.scale**2
        values = factor * ops.square(x - y)
    else:
        logits = not recipe.probabilities if recipe.from_logits is None else recipe.from_logits
        if logits:
            values = ops.softplus(y) - x * y
        else:
            y = ops.clip(y, 1e-6, 1.0 - 1e-6)
            values = -x * ops.log(y) - (1.0 - x) * ops.log(1.0 - y)
    values = ops.reshape(values, (ops.shape(values)[0], -1))
    return ops.mean(values, axis=1) if recipe.reconstruction == "mean" else ops.sum(values, axis=1)


class _Vae(keras.Model):
    """What the styles share."""

    def __init__(self, recipe, encoder, decoder):
        super().__init__(name="vae")
        self.recipe, self.encoder, self.decoder = recipe, encoder, decoder
        self.sampling = Sampling(recipe.second, recipe.sample)
        # Changed by a callback between epochs, and read in the compiled step.
        self.weight = self.add_weight(name="weight", initializer="ones", trainable=False)
        self.weight.assign(0.0 if recipe.kl_epochs else recipe.kl_weight)

    def call(self, x, training=None):
        mean, second = _pair(self.encoder(x, training=training))
        return self.decoder(self.sampling([mean, second]), training=training)

    def loss_of(self, x, training=True):
        mean, second = _pair(self.encoder(x, training=training))
        y = self.decoder(self.sampling([mean, second]), training=training)
        kl = self.weight * kl_of(self.recipe, mean, second)
        return ops.mean(reconstruction_of(self.recipe, x, y) + kl)


class ComputesLoss(_Vae):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.loss_of(x, training)


class TrainsByStep(_Vae):
    """The example of Keras' own pages: a `train_step` with a gradient tape."""

    def train_step(self, x):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = self.loss_of(x, True)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return {"loss": loss}


class AddsLossInCall(_Vae):
    def call(self, x, training=None):
        mean, second = _pair(self.encoder(x, training=training))
        self.add_loss(ops.mean(self.weight * kl_of(self.recipe, mean, second)))
        return self.decoder(self.sampling([mean, second]), training=training)


class KLLayer(layers.Layer):
    """Adds the KL to the loss of a functional model."""

    def __init__(self, recipe, weight, **kwargs):
        super().__init__(**kwargs)
        self.recipe, self.weight = recipe, weight

    def call(self, inputs):
        self.add_loss(ops.mean(self.weight * kl_of(self.recipe, *inputs)))
        return inputs[0]


def _pair(outputs):
    if isinstance(outputs, dict):
        return outputs["z_mean"], outputs["z_log_var"]
    return outputs[0], outputs[1]


def networks(recipe):
    """Encoder and decoder of a recipe."""
    text = recipe.data == "text"
    shape = (WORDS,) if text else (8, 8, 1)
    inputs = keras.Input(shape, dtype="int32" if text else "float32")
    h = layers.Embedding(VOCABULARY, 8)(inputs) if text else inputs
    if recipe.blind == "encoder":
        h = ops.zeros_like(h)
    if recipe.network == "conv":
        h = layers.Conv2D(8, 3, 2, "same", activation="relu")(h)
        h = layers.Conv2D(16, 3, 2, "same", activation="relu")(h)
    h = layers.Flatten()(h)
    for _ in range(2 if recipe.network == "deep" else 1):
        h = _hidden(recipe, h)
    if recipe.dropout:
        h = layers.Dropout(recipe.dropout, seed=3)(
            h, **({"training": True} if recipe.dropout_stays else {})
        )
    mean = layers.Dense(recipe.latent_dim, recipe.on_mean, name="z_mean")(h)
    if recipe.noise_stays:
        mean = layers.GaussianNoise(recipe.noise_stays, seed=4)(mean, training=True)
    activation = recipe.on_log_var or {"log_var": None}.get(recipe.second, "softplus")
    second = layers.Dense(recipe.latent_dim, activation, name="z_log_var")(h)
    outputs = [mean, second]
    if recipe.outputs == "triple":
        outputs = [mean, second, Sampling(recipe.second)([mean, second])]
    elif recipe.outputs == "dict":
        outputs = {"z_mean": mean, "z_log_var": second}
    encoder = keras.Model(inputs, outputs, name="encoder")

    codes = keras.Input((recipe.latent_dim,))
    h = ops.zeros_like(codes) if recipe.blind == "decoder" else codes
    for _ in range(2 if recipe.network == "deep" else 1):
        h = _hidden(recipe, h)
    if text:
        y = layers.Reshape((WORDS, VOCABULARY))(layers.Dense(WORDS * VOCABULARY)(h))
    elif recipe.network == "conv":
        h = layers.Reshape((2, 2, 16))(layers.Dense(64, "relu")(h))
        h = layers.Conv2DTranspose(16, 3, 2, "same", activation="relu")(h)
        y = layers.Conv2DTranspose(1, 3, 2, "same")(h)
    else:
        y = layers.Reshape((8, 8, 1))(layers.Dense(64)(h))
    if recipe.probabilities:
        y = ops.sigmoid(y)
    decoder = keras.Model(codes, y, name="decoder")
    return encoder, decoder


def _hidden(recipe, h):
    h = layers.Dense(64)(h)
    if recipe.network == "normalized":
        h = layers.BatchNormalization(momentum=recipe.momentum)(h)
    return layers.Activation("relu")(h)


class _EveryEpoch(keras.callbacks.Callback):
    """Raises the KL's weight, and freezes a network."""

    def __init__(self, recipe, weight):
        super().__init__()
        self.recipe, self.kl_weight = recipe, weight

    def on_epoch_begin(self, epoch, logs=None):
        if self.recipe.kl_epochs:
            share = min(1.0, epoch / self.recipe.kl_epochs)
            self.kl_weight.assign(share * self.recipe.kl_weight)


def written(recipe, encoder, decoder):
    """The VAE of two networks as a recipe writes it, uncompiled.

    Returns:
        `(model, loss, weight)`: what `compile` is to have, and the variable that weighs the KL.
    """
    on_tensorflow = keras.backend.backend() == "tensorflow"
    loss = None
    if recipe.style == "add_loss":
        start = 0.0 if recipe.kl_epochs else recipe.kl_weight
        weight = keras.Variable(start, trainable=False, dtype="float32")
        mean, second = _pair(encoder.output)
        z = Sampling(recipe.second, recipe.sample)([mean, second])
        z = z + 0.0 * KLLayer(recipe, weight)([mean, second])
        model = keras.Model(encoder.input, decoder(z), name="vae")
        loss = _Reconstruction(recipe)
    else:
        kinds = {"train_step": TrainsByStep, "compute_loss": ComputesLoss, "call": AddsLossInCall}
        kind = kinds[recipe.style]
        if kind is TrainsByStep and not on_tensorflow:
            kind = ComputesLoss
        model = kind(recipe, encoder, decoder)
        weight = model.weight
        loss = _Reconstruction(recipe) if kind is AddsLossInCall else None
    return model, loss, weight


def compiled(recipe, encoder, decoder):
    """The same, compiled to be trained."""
    model, loss, _ = written(recipe, encoder, decoder)
    model.compile(
        keras.optimizers.Adam(recipe.learning_rate), loss, jit_compile=False,
        steps_per_execution=10,
    )  # fmt: skip
    return model


def train(recipe, x):
    """Trains what a recipe says on `x`.

    Returns:
        `(encoder, decoder)`.
    """
    keras.utils.set_random_seed(0)
    encoder, decoder = networks(recipe)
    model, loss, weight = written(recipe, encoder, decoder)
    if recipe.frozen and not recipe.frozen_after:
        {"encoder": encoder, "decoder": decoder}[recipe.frozen].trainable = False

    def fit(epochs, first=0):
        make = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}[recipe.optimizer]
        model.compile(
            make(recipe.learning_rate), loss=loss, jit_compile=False, steps_per_execution=20
        )
        targets = {} if loss is None else {"y": x}
        model.fit(
            x,
            **targets,
            batch_size=50,
            epochs=epochs,
            initial_epoch=first,
            verbose=0,
            callbacks=[_EveryEpoch(recipe, weight)],
        )

    if recipe.frozen and recipe.frozen_after:
        fit(recipe.frozen_after)
        {"encoder": encoder, "decoder": decoder}[recipe.frozen].trainable = False
        fit(recipe.epochs, recipe.frozen_after)
    else:
        fit(recipe.epochs)
    return encoder, decoder


class _Reconstruction(keras.losses.Loss):
    def __init__(self, recipe):
        super().__init__(name="reconstruction", reduction=None)
        self.recipe = recipe

    def __call__(self, y_true, y_pred, sample_weight=None):
        return ops.mean(reconstruction_of(self.recipe, y_true, y_pred))


def set_values(parts, values):
    """Gives the networks the values that `values_of` took from them."""
    for variable, value in zip(_variables(parts), values, strict=True):
        variable.assign(value)


def values_of(parts):
    """Values of all variables but the states of random draws."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in _variables(parts)]


def _variables(parts):
    return [variable for part in parts for variable in part.weights]
