import json
import sys

import keras
import numpy as np
import pytest
from rich.console import Console

from vaezoo import data, metrics, zoo
from vaezoo.layers import GaussianHead


@pytest.fixture(scope="module")
def digits():
    x, y = data.load_arrays("digits", split="test", binarize="fixed")
    return x.reshape(len(x), -1)[:150], y[:150]


@pytest.fixture(scope="module")
def model(digits):
    encoder, decoder = zoo.networks.make("mlp", (64,), 4, hidden_units=(16,))
    vae = zoo.VAE(encoder, decoder, latent_dim=4, seed=0)
    vae.compile(keras.optimizers.Adam(1e-2))
    vae.fit(digits[0], batch_size=50, epochs=60, verbose=0)
    return vae


@pytest.fixture(scope="module")
def evaluation(model, digits):
    return metrics.evaluate(model, digits[0], num_samples=20, seed=3, source="digits[test]")


def test_standard_quantities_agree_with_each_other(evaluation, model, digits):
    found = evaluation.results
    expected = {*metrics.STANDARD, "elbo", "distortion", "rate", "marginal_divergence"}
    expected |= {"aggregate_variance", "variance_of_means", "posterior_divergence_deviation"}
    assert set(found) == expected
    pairs = found["mutual_posterior_divergence"].extra
    assert found["posterior_divergence_deviation"].value == pairs["standard_deviation"]
    # Signal and noise add up to the aggregate.
    noise = np.exp(model.encode(digits[0], batch_size=50).log_var).mean()
    assert found["aggregate_variance"].value == pytest.approx(
        found["variance_of_means"].value + noise, rel=1e-5
    )
    assert found["elbo"].value == pytest.approx(
        -found["distortion"].value - found["rate"].value, rel=1e-5
    )
    # The bound that 20 draws give is the tighter one.
    assert found["negative_log_likelihood"].value < -found["elbo"].value
    information, divergence = found["mutual_information"], found["marginal_divergence"]
    # Both rates estimate the one in closed form, by 150 and by 3,000 draws.
    closed = found["rate_per_dimension"].value
    assert information.value + divergence.value == pytest.approx(closed, abs=0.6)
    assert found["rate"].value == pytest.approx(closed, abs=0.2)
    assert found["active_units"].value == float(metrics.active_units(model, digits[0]))


def test_provenance_names_data_weights_and_versions(evaluation, model, digits):
    told = evaluation.provenance
    assert told["data"]["shape"] == [150, 64]
    assert told["source"] == "digits[test]"
    assert told["seed"] == 3
    assert {"vaezoo", "keras", "backend"} <= set(told["versions"])
    again = metrics.evaluate(model, digits[0], metrics="active_units").provenance
    assert again["weights_sha256"] == told["weights_sha256"]
    other = metrics.evaluate(model, digits[0][:-1], metrics="active_units").provenance
    assert other["data"]["sha256"] != told["data"]["sha256"]


def test_file_holds_the_results_and_is_not_overwritten(evaluation, tmp_path):
    path = tmp_path / "new" / "evaluation.json"
    evaluation.save(path)
    read = json.loads(path.read_text())
    nll = evaluation["negative_log_likelihood"]
    assert read["results"]["negative_log_likelihood"]["value"] == nll.value
    assert read["results"]["negative_log_likelihood"]["standard_error"] == nll.standard_error
    assert "per_example" not in read["results"]["negative_log_likelihood"]
    assert read["provenance"] == evaluation.provenance
    with pytest.raises(FileExistsError, match="`path` must not exist unless overwrite=True"):
        evaluation.save(path)
    evaluation.save(path, overwrite=True)
    assert [entry.name for entry in path.parent.iterdir()] == ["evaluation.json"]


@pytest.mark.large_on_jax
def test_full_collapse_looks_collapsed(digits):
    encoder, decoder = zoo.networks.make("mlp", (64,), 4, hidden_units=(16,))
    head = GaussianHead(4, kernel_initializer="zeros")
    collapsed = zoo.VAE(encoder, decoder, head=head)
    collapsed(digits[0])
    evaluation = metrics.evaluate(collapsed, digits[0], metrics="aggregate_divergence")
    assert evaluation["aggregate_divergence"].value == 0.0
    total, means = (evaluation[name] for name in ("aggregate_variance", "variance_of_means"))
    assert (total.value, means.value) == (1.0, 0.0)
    assert total.extra == {"eigenvalues": [1.0] * 4, "mean_absolute_correlation": 0.0}
    assert means.extra["eigenvalues"] == [0.0] * 4
    read = evaluation.to_dict()["results"]["aggregate_divergence"]["extra"]
    assert read["eigenvalues"] == [1.0] * 4
    assert read["eigenvalues_of_means"] == [0.0] * 4
    assert read["mean_absolute_correlation"] == 0.0
    assert read["mean_absolute_correlation_of_means"] is None
    assert means.estimator.endswith("eigenvalues 0 to 0, mean |correlation| none")


def test_a_line_in_the_table_adds_a_metric(model, digits, monkeypatch):
    def spread(model, data, num_samples=500, *, seed=0, batch_size=None):
        means = model.encode(data).mean
        return metrics.Estimate(np.std(means), settings={"seed": seed, "batch_size": batch_size})

    def size(posterior, data=None, batch_size=256):
        return metrics.Estimate(len(posterior.posterior.mean), settings={"batch_size": batch_size})

    module = sys.modules["vaezoo.metrics.evaluate"]
    for function in (spread, size):
        monkeypatch.setitem(module.FUNCTIONS, function.__name__, function)
    monkeypatch.setattr(module, "FURTHER", (*module.FURTHER, "spread", "size"))
    found = metrics.evaluate(model, digits[0], metrics=["spread", "size"], seed=3, batch_size=50)
    expected = np.std(model.encode(digits[0]).mean)
    np.testing.assert_allclose(found["spread"].value, expected, rtol=1e-6)
    assert found["spread"].settings == {"seed": 3, "batch_size": None}
    assert found["size"].value == len(digits[0])
    assert found["size"].settings == {"batch_size": 50}


def test_every_metric_of_the_table_can_be_named():
    table = set(sys.modules["vaezoo.metrics.evaluate"].FUNCTIONS)
    assert table == {*metrics.STANDARD, *metrics.FURTHER}
    assert len(table) == len(metrics.STANDARD) + len(metrics.FURTHER)


def test_table_has_a_row_for_each(evaluation):
    text = str(evaluation)
    for name, result in evaluation.results.items():
        assert name in text
        assert f"{result.value:.4g}" in text


def test_probes_learn_from_the_training_data(model, digits):
    train = data.load_arrays("digits", split="train", binarize="fixed", limit=300)
    train = (train[0].reshape(300, -1), train[1])
    found = metrics.evaluate(model, *digits, ["knn_probe", "linear_probe"], train=train)
    assert found["knn_probe"].value > 0.3
    assert found["linear_probe"].value > 0.3
    assert found["linear_probe"].count >= 1


def test_options_reach_the_metric(model, digits):
    found = metrics.evaluate(
        model,
        digits[0],
        metrics=["mutual_information", "active_units"],
        options={"mutual_information": {"estimator": "code"}, "active_units": {"threshold": 1e9}},
    )
    assert found["mutual_information"].estimator == "code"
    assert found["active_units"].value == 0.0


def test_what_a_deterministic_encoder_lacks_is_skipped(digits):
    encoder, decoder = zoo.networks.make("mlp", (64,), 4, hidden_units=(16,))
    wae = zoo.WAE(encoder, decoder, latent_dim=4)
    wae(digits[0])
    found = metrics.evaluate(wae, digits[0])
    assert set(found.results) == {"active_units"}
    assert found.skipped["mutual_information"] == "a deterministic encoder has no density"
    assert "has no density" in str(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": "beauty"}, "`metrics` must be among .* Received: beauty"),
        ({"metrics": ()}, "`metrics` must name at least one metric"),
        ({"options": {"beauty": {}}}, "`options` must be among .* Received: beauty"),
        ({"metrics": "knn_probe"}, "`labels` and `train` must be given for 'knn_probe'"),
        ({"metrics": "frechet_distance"}, "`labels` must be given for 'frechet_distance'"),
        ({"labels": np.zeros(3)}, r"`labels` must have shape \(150,\)"),
        ({"num_samples": 0}, "`num_samples` must be a positive integer"),
    ],
)
def test_errors_before_anything_is_measured(model, digits, arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(model, digits[0], **arguments)


def test_options_are_checked_before_anything_is_measured(model, digits):
    x, y = digits
    options = {"metrics": ["few_label_probe"], "train": (x, y), "validation": (x, y)}
    for changes, message in (
        ({}, "`options` of 'few_label_probe' must have `num_labels`"),
        ({"validation": None}, "`validation` must be given for 'few_label_probe'"),
        ({"options": {"few_label_probe": {"num_label": 3}}}, "did you mean num_labels"),
        ({"options": {"few_label_probe": 3}}, "must be a dict of arguments, or a list of such"),
        ({"num_images": 1}, "`num_images` must be an integer of at least 2"),
        ({"metrics": ["alphabet_probe"]}, r"`labels` must have shape \(N, 2\), alphabet and"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.evaluate(model, x, y, **{**options, **changes})
    pairs = np.stack([y, y], axis=1)
    with pytest.raises(ValueError, match=r"`labels` must have shape \(N,\) for 'knn_probe'"):
        metrics.evaluate(model, x, pairs, ["knn_probe"], train=(x, pairs))


@pytest.mark.large_on_jax
def test_targets_are_scored_and_inputs_encoded(model, digits):
    x, y = digits
    noisy = x + np.random.default_rng(0).normal(0.0, 0.3, x.shape).astype("float32")
    options = {"frechet_distance": {"features": "pixels", "num_samples": 100}}
    names = ("negative_log_likelihood", "active_units", "knn_probe", "frechet_distance")
    model._takes_target = True
    try:
        found = metrics.evaluate(
            model, noisy, y, names, target=x, train=(noisy, y), num_samples=8, options=options
        )
        alone = metrics.knn_probe((noisy, y), (noisy, y), model=model)
    finally:
        model._takes_target = False
    nll = metrics.negative_log_likelihood(model, noisy, 8, target=x)
    assert found["negative_log_likelihood"].value == nll.value
    means = model.encode(noisy).mean
    assert found["active_units"].value == float(metrics.active_units(means))
    assert found["knn_probe"].value == alone.value
    # Images are generated, and compared with clean ones.
    clean = metrics.evaluate(model, x, y, "frechet_distance", options=options)
    assert found["frechet_distance"].value == clean["frechet_distance"].value
    assert found.provenance["target"]["sha256"] == clean.provenance["data"]["sha256"]
    assert clean.provenance["target"] is None
    with pytest.raises(ValueError, match=r"`target` must have the shape of `data`, \(150, 64\)"):
        metrics.evaluate(model, noisy, target=x[:-1])
    with pytest.raises(ValueError, match="`data` must lie in|`x` must lie in"):
        metrics.evaluate(model, noisy, names[:2])


def test_classes_are_numbered_from_zero(model, digits):
    x, y = digits
    with pytest.raises(ValueError, match="`labels` must number classes from 0 on.*down to -7"):
        metrics.evaluate(model, x, y - 7, "knn_probe", train=(x, y))
    with pytest.raises(ValueError, match="`train` must number classes from 0 on.*down to -7"):
        metrics.knn_probe((x, y - 7), (x, y))
    with pytest.raises(ValueError, match="`labels` must number classes from 0 on.*down to -7"):
        metrics.classifier_features(x.reshape(-1, 8, 8, 1), y - 7)


@pytest.mark.one_backend
@pytest.mark.parametrize("terminal", [True, False])
def test_metrics_without_a_bar_of_their_own_have_one(model, digits, monkeypatch, capsys, terminal):
    console = Console(force_terminal=terminal, width=80)
    for place in ("rich.get_console", "rich.progress.get_console"):
        monkeypatch.setattr(place, lambda: console)
    wanted = ["active_units", "mutual_information", "knn_probe"]
    metrics.evaluate(model, *digits, wanted, train=digits, progress=True)
    shown = capsys.readouterr().out
    assert ("knn_probe" in shown) == ("Pairs" in shown) == ("active_units" in shown) == terminal
    assert bool(shown) == terminal
