"""Trains the dense VAE 784-800-800-20 in one of our ways: `python worker.py KIND [OPTION]`."""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))

import keras  # noqa: E402
import numpy as np  # noqa: E402
from protocol import (  # noqa: E402
    BATCH_SIZE,
    EXAMPLES,
    HIDDEN,
    LATENT_DIM,
    PIXELS,
    STEP_FLOP,
    STEPS,
    serve,
)


def images():
    rng = np.random.default_rng(0)
    return (rng.random((EXAMPLES, PIXELS)) < 0.13).astype("float32")


def zoo_burst(name, option=None):
    """One epoch of `fit`; option `monitored`, or a number of steps per execution."""
    from vaezoo import callbacks, zoo

    encoder, decoder = zoo.networks.make(
        "mlp", (PIXELS,), LATENT_DIM, hidden_units=(HIDDEN, HIDDEN)
    )
    model = getattr(zoo, name)(encoder, decoder, latent_dim=LATENT_DIM)
    monitored = option == "monitored"
    model.compile("adam", steps_per_execution=int(option) if option and not monitored else "auto")
    x = images()
    monitors = []
    if monitored:
        monitors = [
            callbacks.LatentMonitor(x[:1000], None, tempfile.mkdtemp(), image_frequency=None)
        ]

    def burst():
        model.fit(x, batch_size=BATCH_SIZE, epochs=1, verbose=0, callbacks=monitors)
        return STEPS

    return burst


def dense_stacks():
    layers = keras.layers
    encoder = keras.Sequential(
        [keras.Input((PIXELS,))]
        + [layers.Dense(HIDDEN, activation="relu") for _ in range(2)]
        + [layers.Dense(2 * LATENT_DIM)]
    )
    decoder = keras.Sequential(
        [keras.Input((LATENT_DIM,))]
        + [layers.Dense(HIDDEN, activation="relu") for _ in range(2)]
        + [layers.Dense(PIXELS)]
    )
    return encoder, decoder


def tensorflow_loop():
    """What an expert writes: one compiled step, a lean input pipeline, Adam."""
    import tensorflow as tf

    encoder, decoder = dense_stacks()
    optimizer = keras.optimizers.Adam(1e-3)
    weights = encoder.trainable_variables + decoder.trainable_variables
    optimizer.build(weights)

    @tf.function(jit_compile=True)
    def step(x):
        with tf.GradientTape() as tape:
            mean, log_var = tf.split(encoder(x), 2, axis=-1)
            z = mean + tf.exp(0.5 * log_var) * tf.random.normal(tf.shape(mean))
            logits = decoder(z)
            distortion = tf.reduce_sum(
                tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits), axis=-1
            )
            rate = 0.5 * tf.reduce_sum(tf.square(mean) + tf.exp(log_var) - log_var - 1.0, axis=-1)
            loss = tf.reduce_mean(distortion + rate)
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    x = tf.constant(images())
    order = tf.data.Dataset.range(EXAMPLES).shuffle(EXAMPLES).batch(BATCH_SIZE, True)
    dataset = order.map(lambda index: tf.gather(x, index)).prefetch(tf.data.AUTOTUNE)

    def burst():
        losses = [step(batch) for batch in dataset]
        float(losses[-1])
        return len(losses)

    return burst


def jax_loop():
    """What an expert writes: one jitted step on parameter trees, Adam written out."""
    import jax
    import jax.numpy as jnp

    def dense(key, inputs, outputs):
        limit = (6.0 / (inputs + outputs)) ** 0.5
        kernel = jax.random.uniform(key, (inputs, outputs), minval=-limit, maxval=limit)
        return kernel, jnp.zeros(outputs)

    widths = [
        (PIXELS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 2 * LATENT_DIM),
        (LATENT_DIM, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, PIXELS),
    ]  # fmt: skip
    keys = jax.random.split(jax.random.key(0), len(widths))
    parameters = [dense(key, *width) for key, width in zip(keys, widths, strict=True)]
    # Two trees of moments, since each buffer is donated to the step once.
    first, second = (jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
    state = (parameters, first, second, jnp.zeros((), "int32"), jax.random.key(1))

    def stack(x, layers):
        for number, (kernel, bias) in enumerate(layers):
            x = x @ kernel + bias
            if number < len(layers) - 1:
                x = jax.nn.relu(x)
        return x

    def loss_of(parameters, x, key):
        mean, log_var = jnp.split(stack(x, parameters[:3]), 2, axis=-1)
        z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
        logits = stack(z, parameters[3:])
        distortion = jnp.sum(jax.nn.softplus(logits) - x * logits, axis=-1)
        rate = 0.5 * jnp.sum(mean**2 + jnp.exp(log_var) - log_var - 1.0, axis=-1)
        return jnp.mean(distortion + rate)

    def step(state, x):
        parameters, first, second, count, key = state
        key, noise = jax.random.split(key)
        loss, gradients = jax.value_and_grad(loss_of)(parameters, x, noise)
        count = count + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
        scale = 1e-3 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        parameters = jax.tree.map(
            lambda p, m, v: p - scale * m / (jnp.sqrt(v) + 1e-7), parameters, first, second
        )
        return (parameters, first, second, count, key), loss

    compiled = jax.jit(step, donate_argnums=0)
    x, rng = images(), np.random.default_rng(2)

    def burst():
        nonlocal state
        order = rng.permutation(EXAMPLES).reshape(STEPS, BATCH_SIZE)
        for index in order:
            state, loss = compiled(state, x[index])
        float(loss)
        return STEPS

    return burst


def ceiling():
    """No training: the fastest large matrix product, as steps/s of a step's products alone."""
    import jax

    size = 2048
    factor = jax.numpy.asarray(np.random.default_rng(0).random((size, size), "float32"))
    product = jax.jit(jax.numpy.matmul)

    def once():
        start = time.perf_counter()
        product(factor, factor).block_until_ready()
        return time.perf_counter() - start

    def burst():
        start = time.perf_counter()
        fastest = min(once() for _ in range(20))
        # `serve` divides by the seconds that this call took.
        return (time.perf_counter() - start) * 2 * size**3 / fastest / STEP_FLOP

    return burst


if __name__ == "__main__":
    kind, *option = sys.argv[1:]
    bursts = {"tensorflow_loop": tensorflow_loop, "jax_loop": jax_loop, "ceiling": ceiling}
    serve(bursts[kind]() if kind in bursts else zoo_burst(kind, *option))
