"""A preset's `source` is a row of a table that exists, with its settings, or says it is ours."""

import re

import pytest

from vaezoo import zoo

PRESETS = zoo.presets()
OWN = ("our own", "settings of ours")

#: Rows of the published tables that a preset may claim: what sets each apart, as `model` has it.
DU_VAE = {
    "VAE": {},
    "AE": {},
    "beta-VAE (0.4)": {"beta": 0.4},
    "beta-VAE (0.8)": {"beta": 0.8},
    "SA-VAE": {},
    "Agg-VAE": {},
    "FB (0.1)": {"free_bits": 0.1},
    "delta-VAE (0.1)": {"delta": 0.1},
    "BN-VAE (0.5)": {"gamma": 0.5},
    "BN-VAE (0.6)": {"gamma": 0.6},
    "MAE (1, 0.2)": {"diversity": 1.0, "smoothness": 0.2, "prior": "standard_normal"},
    "MAE (2, 0.2)": {"diversity": 2.0, "smoothness": 0.2, "prior": "standard_normal"},
    "DU-VAE (0.5, 0.9)": {"gamma": 0.5, "keep_prob": 0.9},
    "DU-VAE (0.5, 0.8)": {"gamma": 0.5, "keep_prob": 0.8},
    "DU-VAE (0.6, 0.8)": {"gamma": 0.6, "keep_prob": 0.8},
    "IAF+FB (0.15)": {"free_bits": 0.15},
    "IAF+FB (0.25)": {"free_bits": 0.25},
    "IAF+BN (0.5)": {"gamma": 0.5},
    "IAF+BN (0.6)": {"gamma": 0.6},
    "IAF+BN (0.7)": {"gamma": 0.7},
    "DU-IAF (0.5, 0.85)": {"gamma": 0.5, "keep_prob": 0.85},
    "DU-IAF (0.6, 0.7)": {"gamma": 0.6, "keep_prob": 0.7},
    "DU-IAF (0.7, 0.7)": {"gamma": 0.7, "keep_prob": 0.7},
}
#: Those that are printed for all data sets of DU-VAE's table 1, and the others of each.
EVERYWHERE = {"VAE", "SA-VAE", "Agg-VAE", "FB (0.1)", "delta-VAE (0.1)"}
EVERYWHERE |= {"DU-VAE (0.5, 0.9)", "DU-VAE (0.5, 0.8)", "DU-VAE (0.6, 0.8)"}
TABLE_1 = {
    "yahoo": {"beta-VAE (0.4)", "BN-VAE (0.6)", "MAE (1, 0.2)", "IAF+FB (0.15)", "IAF+BN (0.6)"}
    | {"DU-IAF (0.7, 0.7)"},
    "yelp": {"beta-VAE (0.4)", "BN-VAE (0.6)", "MAE (2, 0.2)", "IAF+FB (0.25)", "IAF+BN (0.7)"}
    | {"DU-IAF (0.6, 0.7)"},
    "omniglot": {"beta-VAE (0.8)", "BN-VAE (0.5)", "IAF+FB (0.15)", "IAF+BN (0.5)"}
    | {"DU-IAF (0.5, 0.85)"},
}
TABLE_2 = {"AE", "VAE", "delta-VAE (0.1)", "Agg-VAE", "FB (0.1)", "BN-VAE (0.6)", "MAE (2, 0.2)"}
TABLE_2 |= {"DU-VAE (0.5, 0.8)", "IAF+FB (0.25)", "IAF+BN (0.7)", "DU-IAF (0.6, 0.7)"}


def weights(diversity, smoothness):
    return {"diversity": diversity, "smoothness": smoothness, "reduction": "softplus_of_mean"}


MAE_GRID = {
    (eta, gamma): weights(eta, gamma)
    for eta, gamma in [(1.0, 0.1), (1.0, 0.5), (2.0, 0.5), (1.0, 1.0), (0.5, 0.1), (0.5, 0.5)]
    + [(0.25, 1.0), (0.5, 1.0)]
}
FULL, LARGE = {"use_ema": True, "learning_rate": 1e-3}, {"learning_rate": 1e-3}
TEXT = {"optimizer": "sgd", "learning_rate": 1.0, "global_clipnorm": 5.0}

#: By paper and table: data sets, the rows of each, kind of networks, dimensions, batch size,
#: epochs, and what the optimizer is told.
TABLES = {
    ("DU-VAE", "table 1", "yahoo"): (EVERYWHERE | TABLE_1["yahoo"], "lstm", 32, 32, 100, TEXT),
    ("DU-VAE", "table 1", "yelp"): (EVERYWHERE | TABLE_1["yelp"], "lstm", 32, 32, 150, TEXT),
    ("DU-VAE", "table 2", "yelp_sentences"): (TABLE_2, "lstm", 32, 32, 100, TEXT),
    ("DU-VAE", "table 1", "omniglot"): (
        EVERYWHERE | TABLE_1["omniglot"],
        "pixelcnn",
        32,
        50,
        500,
        {"learning_rate": 1e-3, "epsilon": 1e-8, "global_clipnorm": 5.0},
    ),
    ("MAE", "table 1a", "mnist"): (
        {"VLAE (re-implementation)", "MAE (1.0, 0.1)", "MAE (1.0, 0.5)", "MAE (2.0, 0.5)"}
        | {"MAE (1.0, 1.0)"},
        "pixelcnn",
        32,
        100,
        1000,
        FULL,
    ),
    ("MAE", "table 1b", "omniglot"): (
        {"VLAE (re-implementation)", "MAE (0.5, 0.1)", "MAE (0.5, 0.5)", "MAE (1.0, 0.5)"},
        "pixelcnn",
        32,
        100,
        1000,
        FULL,
    ),
    ("MAE", "table 3", "cifar10"): (
        {"VLAE (re-implementation)", "MAE (0.25, 1.0)", "MAE (0.5, 1.0)", "MAE (1.0, 1.0)"},
        "pixelcnn_pp",
        1024,
        64,
        1000,
        {**FULL, "beta_1": 0.95, "beta_2": 0.9995},
    ),
    ("MAE", "table 4", "mnist"): ({"ResNet VAE with AF"}, "resnet", 32, 100, 1000, FULL),
    ("VAE-AS", "table 2", "mnist"): ({"VAE", "VAE-AS (1.0, 1.0)"}, "mlp", 40, 128, 300, LARGE),
    ("VAE-AS", "table 3", "omniglot"): ({"VAE", "VAE-AS (1.0, 1.0)"}, "mlp", 40, 128, 300, LARGE),
    ("VAE-AS", "section 5.2", "mnist"): ({""}, "mlp", 40, 100, 120, LARGE),
    **{
        ("mu-VAE", "table 1", data): (
            {"VAE", "beta-VAE (4)", "mu-VAE #1 (c = 3)", "mu-VAE #2 (c = 6)"},
            "mu_vae",
            10,
            64,
            100,
            {"learning_rate": 1e-4, "validation": "none"},
        )
        for data in ("mnist", "fashion_mnist")
    },
    # No tables: what its appendix and its code say of a run.
    ("HEBAE", "appendix", "mnist"): (
        {"MNIST (k = 20)", "MNIST (k = 20), WAE-MMD"},
        "mlp",
        20,
        128,
        100,
        {"validation": "none"},
    ),
    ("HEBAE", "official code", "celeb_a"): ({"CelebA (k = 64)"}, "wae", 64, 100, 100, {}),
}
MODEL = {
    **{("DU-VAE", row): model for row, model in DU_VAE.items()},
    **{("MAE", f"MAE {pair}"): model for pair, model in MAE_GRID.items()},
    ("VAE-AS", "VAE-AS (1.0, 1.0)"): {"num_examples"},
    ("mu-VAE", "beta-VAE (4)"): {"beta": 4.0},
    ("mu-VAE", "mu-VAE #1 (c = 3)"): {"clip_factor": 3.0},
    ("mu-VAE", "mu-VAE #2 (c = 6)"): {"clip_factor": 6.0},
}
CLAIM = re.compile(
    r"(?:[A-Z][\w ]+ et al\. \(\d{4}\), )?(DU-VAE|MAE|VAE-AS|mu-VAE|HEBAE), "
    r"(table \d[ab]?|section [\d.]+|appendix|official code)(?:, (.*))?"
)
#: What may follow a row.
ASIDES = re.compile(
    r"(, on chardata\.mat( with num_examples=24345)?|, by the official code's decoder"
    r"| \(by Kim et al\., 2018\)|; table 1, 5 layers"
    # Which form of the variance term gave the row, the paper leaves open.
    r"|, with the raw log-variance, as eq\. 6 prints it"
    r"|, with the variance term of the KL, which the text says can be kept)$"
)


def claim_of(source):
    """Paper, table and row that a source line claims, or None where it claims none."""
    if source.startswith(OWN):
        return None
    found = CLAIM.fullmatch(source)
    assert found, f"neither a row nor settings of ours: {source}"
    return found[1], found[2], ASIDES.sub("", found[3] or "")


def check(settings):
    """Raises an `AssertionError` for a row that does not exist, or whose settings are others."""
    claim = claim_of(settings["source"])
    if claim is None:
        return
    paper, table, row = claim
    data, model = settings["data"], settings["model"]
    known = TABLES.get((paper, table, data["name_or_path"]))
    assert known, f"{paper} has no {table} of {data['name_or_path']}"
    rows, kind, latent_dim, batch_size, epochs, training = known
    assert row in rows, f"{paper}, {table} has no row {row}"
    wanted = MODEL.get((paper, row), {})
    assert all(name in model for name in wanted)
    if isinstance(wanted, dict):
        assert {name: model[name] for name in wanted} == wanted
        # Nothing else sets a row of DU-VAE apart but the warm-up that all have.
        others = set(model) - set(wanted) - {"latent_dim", "likelihood", "beta"}
        assert paper != "DU-VAE" or not others
    if row == "SA-VAE":
        epochs = 30
    kinds = {kind, "gated_pixelcnn"} if row == "SA-VAE" else {kind}
    assert settings["networks"]["kind"] in kinds
    assert (model["latent_dim"], data["batch_size"]) == (latent_dim, batch_size)
    assert settings["training"]["epochs"] == epochs
    told = {name: settings["training"].get(name) for name in training}
    assert told == training
    if data["name_or_path"] == "omniglot":
        # What tensorflow-datasets has under the name are other images.
        assert "on chardata.mat" in settings["source"]


@pytest.mark.one_backend
@pytest.mark.parametrize("name", PRESETS)
def test_a_source_is_a_row_or_says_that_it_is_ours(name):
    check(PRESETS[name][1])


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bn_vae_digits_mlp", {"source": "DU-VAE, table 1, BN-VAE (0.5)"}, "no table 1 of digits"),
        ("vae_mnist_500", {"source": "VAE-AS, table 2, IWAE"}, "no row IWAE"),
        ("vae_mnist_500", {"source": "VAE-AS, table 9, VAE"}, "no table 9"),
        ("vae_mnist_500", {"source": "Kingma & Welling (2014), section 5"}, "neither a row"),
        ("mae_mnist", {"model": {"latent_dim": 32, **weights(1.0, 0.1)}}, "smoothness"),
        ("vae_mnist_500", {"training": {"epochs": 299, "learning_rate": 1e-3}}, "299"),
    ],
)
def test_a_claim_that_does_not_hold_fails(name, change, message):
    with pytest.raises(AssertionError, match=message):
        check({**PRESETS[name][1], **change})
