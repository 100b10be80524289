"""Models of the zoo for the exam, small and trained in a few seconds."""

import keras
import numpy as np

from vaezoo import layers, losses, zoo


def build(case):
    """Builds the model of a case, and says how many epochs and which step it takes."""
    options = dict(case.recipe)
    constructor = getattr(zoo, options.pop("model"))
    latent_dim = options.pop("latent_dim", 4)
    text = options.pop("text", None)
    scale, ramp = options.pop("scale", None), options.pop("ramp", None)
    decoder, skip = options.pop("decoder", None), options.pop("skip", None)
    keras.utils.set_random_seed(0)
    if case.data == "sentences":
        dropout = {"embedding_dropout": 0.0, "output_dropout": 0.0}
        units = 64 if text == "strong" else 24
        networks = zoo.networks.make(
            "lstm", (None,), latent_dim, vocabulary_size=28, units=units, embedding_dim=8,
            decoder=dropout,
        )  # fmt: skip
        options["likelihood"] = "tokens"
    elif decoder == "pixelcnn":
        networks = zoo.networks.make(
            "mlp", (8, 8, 1), latent_dim, encoder={"hidden_units": (64,)},
            decoder={"kind": "pixelcnn", "filters": 16, "kernels": (5, 3, 3)},
        )  # fmt: skip
    else:
        more = {"decoder": {"hidden_units": (64, 64), "skip": True}} if skip else {}
        networks = zoo.networks.make("mlp", (8, 8, 1), latent_dim, hidden_units=(64,), **more)
    if scale is not None:
        options["likelihood"] = layers.Gaussian(scale)
    if ramp is not None:
        options["objective"] = losses.ELBO(losses.LinearSchedule(ramp))
        constructor = zoo.VAE
    seeded = {} if constructor is zoo.AE else {"seed": 0}
    return constructor(*networks, latent_dim=latent_dim, **options, **seeded)


def train(case, x):
    """Trains the model of a case.

    Returns:
        The `VAE`.
    """
    model = build(case)
    sentences = case.data == "sentences"
    rate, epochs = (5e-3, 10) if sentences else (4e-3, 30)
    if case.recipe.get("decoder") == "pixelcnn":
        rate, epochs = 3e-3, 5
    model.compile(keras.optimizers.Adam(rate), jit_compile=False, steps_per_execution=20)
    model.fit(**given(case, x), batch_size=50, epochs=epochs, verbose=0)
    return model


def given(case, x):
    """What `fit` is given: VAE-AS is told which examples they are."""
    return (
        {"x": x, "y": {"index": np.arange(len(x))}} if "num_examples" in case.recipe else {"x": x}
    )
