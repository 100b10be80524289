"""The callbacks on a model of sentences."""

import keras
import numpy as np
import pytest

from vaezoo import zoo
from vaezoo.callbacks import CollapseWarning, LatentMonitor
from vaezoo.data import Vocabulary, to_text

pytest.importorskip("tensorflow", reason="event files are written through TensorFlow")

VOCABULARY = Vocabulary([*"abcdefghijklmno", "|"])


def text(ids):
    return to_text(ids, VOCABULARY)


@pytest.mark.large
@pytest.mark.one_backend
def test_sentences_are_watched_and_written_as_text(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    rng = np.random.default_rng(0)
    x = np.pad(rng.integers(4, 20, (32, 3)), ((0, 0), (1, 1))).astype("int32")
    x[:, 0], x[:, -1], x[0, 1] = 1, 2, 19
    encoder, decoder = zoo.networks.make(
        "lstm", (None,), 3, vocabulary_size=20, units=8, embedding_dim=6, decoder={"max_length": 6}
    )
    model = zoo.BNVAE(encoder, decoder, latent_dim=3, gamma=0.7, likelihood="tokens", seed=1)
    model.compile(keras.optimizers.SGD(0.1))
    warning = CollapseWarning(x, start_epoch=1)
    monitor = LatentMonitor(x, log_dir=tmp_path, num_images=2, to_text=text)
    model.fit(x, batch_size=16, epochs=1, verbose=0, callbacks=[warning, monitor])

    events = EventAccumulator(str(tmp_path)).Reload()
    written = {
        tag: tensor_util.make_ndarray(events.Tensors(tag)[0].tensor_proto)
        for tag in events.Tags()["tensors"]
    }
    assert {"latent/rate", "information/mutual_information", "latent/means"} <= written.keys()
    assert "traversals" not in written
    assert written["latent/active_units"] == warning.history[0]["active_units"]
    lines = written["reconstructions"].item().decode().splitlines()
    decoded = text(model.reconstruct(x[:2], batch_size=2))
    assert lines[0] == "| data | reconstruction |"
    words = text(x[:2])[0].replace("|", "\\|")
    assert lines[2] == f"| {words} | {decoded[0]} |".replace("| |", "|  |")
    samples = text(model.generate(2, seed=0, batch_size=2))
    written_samples = written["samples"].item().decode().splitlines()[2:]
    assert written_samples == [f"| {sample.replace('|', chr(92) + '|')} |" for sample in samples]


@pytest.mark.one_backend
def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match=r"`to_text` must be a function or None. Received: Voca"):
        LatentMonitor(np.ones((2, 4), "int32"), to_text=VOCABULARY)
