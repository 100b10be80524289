"""Trains in steps of a model's own: `steps_worker.py KIND SIZE`.

KIND is `plain`, `aggressive` or `host`; SIZE is `small` or `dense`. The last two do the same: 99
steps of the encoder on batches of their own, then one of the decoder, by the zoo's compiled step or
by a loop on the host over a compiled step. A burst returns its number of outer steps.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import ops  # noqa: E402
from protocol import AGGRESSIVE, INNER, serve  # noqa: E402

from vaezoo import zoo  # noqa: E402
from vaezoo.zoo.agg_vae.model import WINDOW  # noqa: E402

#: Plain steps for each aggressive one, so that bursts last alike.
PLAIN = 50


def make(constructor, size, **options):
    """A compiled model that has been built, and its data."""
    keras.utils.set_random_seed(0)
    pixels, hidden, latent_dim, batch_size, steps = AGGRESSIVE[size]
    encoder, decoder = zoo.networks.make(
        "mlp", (pixels,), latent_dim, hidden_units=(hidden, hidden)
    )
    model = constructor(encoder, decoder, latent_dim=latent_dim, **options)
    model.build((None, pixels))
    model.compile("adam", jit_compile=True)
    rng = np.random.default_rng(0)
    x = (rng.random((batch_size * steps * PLAIN, pixels)) < 0.3).astype("float32")
    return model, x, batch_size, steps


def plain(size):
    model, x, batch_size, steps = make(zoo.VAE, size)

    def burst():
        model.fit(x, batch_size=batch_size, verbose=0)
        return steps * PLAIN

    return burst


def aggressive(size):
    # No window is ever full, so no loop ends early.
    model, x, batch_size, steps = make(zoo.AggVAE, size, window=INNER + 1, max_inner_steps=INNER)

    def burst():
        log = model.fit(x, batch_size=batch_size, steps_per_epoch=steps, verbose=0).history
        if log["inner_steps"] != [INNER]:
            raise RuntimeError(f"{log['inner_steps']} inner steps")
        return steps

    return burst


def host(size):
    """What one writes without loops in the graph: its average goes to the host once a window."""
    model, x, batch_size, steps = make(zoo.AggVAE, size, max_inner_steps=INNER)
    model.optimizer.build(model.trainable_variables)
    encoder = [*model.encoder.trainable_variables, *model.head.trainable_variables]
    decoder = model.decoder.trainable_variables
    rng = np.random.default_rng(0)

    def step_of(weights):
        def step(x):
            def loss():
                value, _, _ = model.loss_and_terms(x, None, model(x, training=True))
                return value, value

            (value, _), gradients = model.gradients_of(loss, weights)
            model.update_weights(gradients, weights)
            return value

        return step

    encoder_step, decoder_step = compiled(model, step_of(encoder), step_of(decoder))

    def draw():
        return ops.convert_to_tensor(x[rng.choice(len(x), batch_size)])

    def burst():
        for _ in range(steps):
            batch = first = draw()
            total = 0.0
            for number in range(1, INNER + 1):
                total = total + encoder_step(batch)
                if number % WINDOW == 0:
                    float(total)
                    total = 0.0
                batch = draw()
            float(decoder_step(first))
        return steps

    return burst


def compiled(model, *functions):
    """Functions of a batch that change the model's variables, compiled to run one by one."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return [tf.function(function, jit_compile=True) for function in functions]
    import jax

    variables = model.all_variables
    # Copies: each value is donated once.
    state = [ops.copy(variable.value) for variable in variables]

    def of(function):
        def step(values, x):
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                value = function(x)
            return value, [scope.get_current_value(variable) for variable in variables]

        step = jax.jit(step, donate_argnums=0)

        def call(x):
            value, state[:] = step(list(state), x)
            return value

        return call

    return [of(function) for function in functions]


if __name__ == "__main__":
    kind, size = sys.argv[1:]
    serve({"plain": plain, "aggressive": aggressive, "host": host}[kind](size))
