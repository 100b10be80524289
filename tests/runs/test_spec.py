import json

import numpy as np
import pytest

from vaezoo import data, zoo
from vaezoo.layers import GaussianHead, LatentClip
from vaezoo.losses import LinearSchedule
from vaezoo.runs import RunSpec

pytestmark = pytest.mark.one_backend
PRESET = "vae_digits_mlp"


def read_back(spec):
    return RunSpec.from_dict(json.loads(json.dumps(spec.to_dict(), allow_nan=False)))


@pytest.mark.parametrize(
    "spec",
    [
        RunSpec(PRESET),
        RunSpec(PRESET, seed=np.int64(3), precision="mixed_bfloat16", xla=False, monitor=False),
        RunSpec("beta_vae_digits_mlp", model={"beta": LinearSchedule(5)}),
        RunSpec(PRESET, model={"head": GaussianHead(2, clip=LatentClip(3.0))}),
        RunSpec(PRESET, networks={"hidden_units": (8,)}, data={"limit": 64, "image_size": (8, 8)}),
        RunSpec(PRESET, data=data.DataSpec("digits", limit=64), validation="none"),
        RunSpec(PRESET, regularizers=[zoo.auxiliary_softmax(64)], data={"with_index": True}),
        RunSpec(
            constructor="BNVAE",
            model={"latent_dim": 2, "gamma": 0.5},
            networks={"kind": "mlp", "hidden_units": (4,)},
            training={"epochs": 2, "optimizer": "sgd", "learning_rate": 0.1},
            data={"name_or_path": "digits"},
        ),
    ],
)
def test_a_spec_survives_json_resolved_or_not(spec):
    assert read_back(spec) == spec
    resolved = spec.resolve()
    assert read_back(resolved) == resolved
    assert resolved != spec
    assert resolved.resolve() == resolved
    assert read_back(resolved).resolve() == resolved
    assert hash(resolved) == hash(read_back(resolved))


def test_resolving_spells_out_the_preset_for_the_data(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((30, 6, 5), "uint8"))
    spec = RunSpec(
        "vae_as_digits_mlp",
        data={"name_or_path": str(tmp_path / "x.npy"), "batch_size": 5},
        training={"epochs": 3},
        seed=7,
    ).resolve()
    _, preset = zoo.presets()["vae_as_digits_mlp"]
    assert spec.constructor == "VAEAS"
    assert spec.networks["input_shape"] == (6, 5, 1)
    assert spec.networks["kind"] == preset["networks"]["kind"]
    assert spec.training == {**preset["training"], "epochs": 3}
    # A twelfth of 30, rounded, is held out; the others are told apart.
    assert spec.model["num_examples"] == 28
    assert spec.data.with_index
    assert (spec.data.seed, spec.validation) == (7, "auto")


def test_paths_are_found_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((30, 6, 5), "uint8"))
    assert RunSpec(PRESET, data={"name_or_path": "x.npy"}).resolve().data.name_or_path == str(
        tmp_path / "x.npy"
    )


def test_a_preset_says_what_is_held_out_unless_the_run_does():
    name = "hebae_mnist_mlp"
    digits = {"name_or_path": "digits"}
    assert RunSpec(name, data=digits).resolve().validation == "none"
    assert RunSpec(name, data=digits, validation="auto").resolve().validation == "auto"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Either `preset` or `constructor` must be given"),
        ({"preset": "vae_digit_mlp"}, "`preset` must be .*vae_digits_mlp"),
        ({"constructor": "DUVEA"}, "`constructor` must be a model of the zoo.*'DUVEA'"),
        ({"preset": PRESET, "constructor": "DUVAE"}, "`constructor` must be that of the preset"),
        ({"preset": PRESET, "model": 3}, "`model` must be a dict of settings"),
        ({"preset": PRESET, "data": "digits"}, "`data` must be a DataSpec or a dict"),
        ({"preset": PRESET, "data": {"binarze": 1}}, "did you mean binarize"),
        ({"preset": PRESET, "data": {"batch_size": 0}}, "`batch_size` must be a positive integer"),
        ({"preset": PRESET, "model": {"latent_dims": 3}}, "did you mean latent_dim"),
        ({"preset": PRESET, "seed": -1}, "`seed` must be an integer"),
        ({"preset": PRESET, "seed": None}, "`seed` must be an integer"),
        ({"preset": PRESET, "precision": "float16"}, "`precision` must be one of"),
        ({"preset": PRESET, "xla": "yes"}, "`xla` must be True or False"),
        ({"preset": PRESET, "validation": 3}, "validation must be a split, 'auto' or 'none'"),
        ({"preset": PRESET, "networks": {"input_shape": (9, 9, 1)}}, "must be the shape of"),
        ({"preset": "text_vae_text_tiny"}, "is trained on text"),
        ({"constructor": "DUVAE"}, "`networks` must have 'kind' where there is no preset"),
        (
            {"constructor": "DUVAE", "networks": {"kind": "mlp"}},
            "`training` must have 'epochs' where there is no preset",
        ),
    ],
)
def test_what_is_no_run_is_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        RunSpec(**arguments).resolve()


def test_a_file_of_settings_that_cannot_be_read_is_refused():
    config = RunSpec(PRESET).to_dict()
    config["settings"]["model"]["beta"] = {"class_name": "Nothing", "config": {}, "module": "x"}
    with pytest.raises(ValueError, match="settings that cannot be read"):
        RunSpec.from_dict(config)
