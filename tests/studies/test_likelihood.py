"""The likelihood in parts is that of the whole, and goes on where it was stopped."""

import json
import time

import keras
import numpy as np
import pytest

from vaezoo import zoo
from vaezoo.studies import likelihood

pytestmark = pytest.mark.one_backend


@pytest.mark.large
def test_parts_are_kept_and_make_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(likelihood, "PART", 8)
    keras.utils.set_random_seed(0)
    encoder = keras.layers.Dense(4)
    decoder = keras.layers.Dense(6)
    model = zoo.VAE(encoder, decoder, latent_dim=2)
    model.build((None, 6))
    x = np.random.default_rng(0).integers(0, 2, (20, 6)).astype("float32")
    file = tmp_path / "parts.json"
    given = (model, x, 16, None, file, "this")
    assert likelihood.measured_in_parts(*given, deadline=time.monotonic() - 1) is None
    assert len(json.loads(file.read_text())["parts"]) == 1
    said = []
    found = likelihood.measured_in_parts(*given, say=said.append)
    assert said[-1] == "likelihood of 20 of 20 examples"
    assert len(said) == 2
    parts = json.loads(file.read_text())["parts"]
    values = np.concatenate([part["values"] for part in parts])
    nll = found["negative_log_likelihood"]
    assert nll["value"] == pytest.approx(values.mean())
    assert nll["standard_error"] == pytest.approx(values.std(ddof=1) / np.sqrt(20))
    total = found["distortion"]["value"] + found["rate"]["value"]
    assert -found["elbo"]["value"] == pytest.approx(total, rel=1e-4)
    assert -found["elbo"]["value"] > nll["value"]
    # Parts of something else do not count.
    assert likelihood._kept(file, "other") == []
    few = likelihood.measured_in_parts(model, x, 16, 5, tmp_path / "few.json", "this")
    assert few["rate"]["count"] == 5
