"""Whether XLA compiles the steps where nobody says so."""

import pytest

from vaezoo import zoo
from vaezoo.zoo import networks
from vaezoo.zoo.vae import xla

TEXT = {"vocabulary_size": 7, "embedding_dim": 3, "units": 4}


def make(kind, model="VAE", **options):
    """A compiled model on networks of a kind."""
    shape = {"lstm": (None,), "mlp": (6,)}.get(kind, (8, 8, 1))
    parts = networks.make(kind, shape, 2, **options)
    found = getattr(zoo, model)(*parts, latent_dim=2)
    found.compile()
    return found


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("mlp", {"hidden_units": (4,)}, True),
        ("resnet", {}, True),
        ("pixelcnn", {}, False),
        ("conv", {"filters": (4,)}, False),
        ("lstm", {"model": "TextVAE", **TEXT}, False),
        # Its inner loop was not measured.
        ("lstm", {"model": "AggVAE", **TEXT}, True),
    ],
)
def test_xla_is_left_out_on_tensorflows_cpu_where_it_costs_time(kind, options, expected):
    assert make(kind, **options).jit_compile is expected


@pytest.mark.one_backend
def test_accelerators_always_have_xla_and_one_may_ask_for_it(monkeypatch):
    model = make("lstm", "TextVAE", **TEXT)
    model.compile(jit_compile=True)
    assert model.jit_compile
    monkeypatch.setattr(xla, "accelerators", lambda: 1)
    assert make("lstm", "TextVAE", **TEXT).jit_compile


def test_jax_has_no_choice(monkeypatch):
    monkeypatch.setattr(xla.keras.backend, "backend", lambda: "jax")
    assert not xla.slower_with_xla(None)
