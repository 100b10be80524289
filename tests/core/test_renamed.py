"""Former names of arguments."""

import inspect

import numpy as np
import pytest

from vaezoo import losses, metrics, zoo
from vaezoo.core.renamed import renamed_arguments, with_names_of_today

pytestmark = pytest.mark.one_backend


@renamed_arguments(old=("new", {"bad": "good"}))
def function(first, new="some", *, other=2):
    """Says what it does."""
    return first, new, other


def test_former_names_and_values_are_replaced_with_a_warning():
    with pytest.warns(FutureWarning, match="`old` of function is now `new`"):
        assert function(1, old="bad", other=3) == (1, "good", 3)
    with pytest.warns(FutureWarning):
        assert function(1, old=[2]) == (1, [2], 2)


def test_names_of_today_pass_untouched(recwarn):
    assert function(1, "bad") == function(1, new="bad") == (1, "bad", 2)
    assert not recwarn
    assert list(inspect.signature(function).parameters) == ["first", "new", "other"]
    assert function.__doc__ == "Says what it does."
    assert with_names_of_today(len, {"old": 1}) == {"old": 1}


def test_both_names_are_refused():
    with pytest.raises(ValueError, match="`old` is the former name of `new`: give one"):
        function(1, old=2, new=3)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_constructors_and_presets_take_former_names():
    networks = zoo.networks.make("mlp", (4,), 3, hidden_units=(4,))
    model = zoo.DUVAE(*networks, latent_dim=3, gamma_norm="per_dim")
    assert model.head.mean_norm.mode == "fixed"
    model = zoo.HEBAE(*networks, latent_dim=3, sigma="scalar")
    assert model.head.scale == "scalar"
    run = zoo.load("du_vae_digits_mlp", model={"gamma_norm": "per_dim"})
    assert run.settings["model"]["gamma_mode"] == "fixed"


def test_former_spellings_of_modes_are_read():
    assert losses.MuELBO.from_config({"mean_mode": "per_dim"}).mean_mode == "per_dimension"
    assert losses.log_prob_by_coordinate is losses.log_prob_per_dimension
    pairs = (np.float32([[0.0], [1.0]]), np.array([0, 1]))
    with pytest.warns(FutureWarning, match="`labelling` of kmeans_probe is now `labeling`"):
        result = metrics.kmeans_probe(pairs, pairs, num_clusters=2, runs=1, labelling="majority")
    assert result.value == 1.0
