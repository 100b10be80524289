"""Trains the LSTM VAE of short Yelp with vaezoo: `python text_worker.py`."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))

import keras  # noqa: E402
from protocol import TEXT, serve, text_batches  # noqa: E402


def make_burst():
    """An epoch of `fit` on sentences of one length."""
    from vaezoo import zoo

    encoder, decoder = zoo.networks.make(
        "lstm",
        (None,),
        TEXT.latent_dim,
        vocabulary_size=TEXT.vocabulary_size,
        embedding_dim=TEXT.embedding_dim,
        units=TEXT.units,
    )
    model = zoo.TextVAE(encoder, decoder, latent_dim=TEXT.latent_dim)
    model.compile(keras.optimizers.SGD(1.0, global_clipnorm=5.0))
    x = text_batches().reshape(-1, TEXT.length)

    def burst():
        model.fit(x, batch_size=TEXT.batch_size, epochs=1, verbose=0)
        return TEXT.tokens

    return burst


if __name__ == "__main__":
    serve(make_burst())
