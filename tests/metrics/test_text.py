"""The metrics on models of sentences."""

import keras
import numpy as np
import pytest

from vaezoo import metrics, zoo
from vaezoo.metrics.diagnosis import remedies as advice
from vaezoo.metrics.diagnosis import rules
from vaezoo.metrics.diagnosis.measure import Measurements
from vaezoo.metrics.estimate import Estimate
from vaezoo.metrics.negative_log_likelihood import draws_at_once
from vaezoo.metrics.subject import as_subject

V, UNITS, D = 20, 8, 3
PADDING = ((0, 0), (0, 3))


def sentences(count, seed):
    """Sentences of 1 to 6 words of one half of the vocabulary, and which half it is."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=count)
    x = np.zeros((count, 8), "int32")
    for row, label in zip(x, labels, strict=True):
        words = rng.integers(1, 7)
        row[0], row[1 + words] = 1, 2
        row[1 : 1 + words] = 4 + 8 * label + rng.integers(8, size=words)
    return x, labels


def trained(x, epochs=8):
    keras.utils.set_random_seed(0)
    options = {"vocabulary_size": V, "units": UNITS, "embedding_dim": 6}
    dropout = {"embedding_dropout": 0.0, "output_dropout": 0.0}
    networks = zoo.networks.make("lstm", (None,), D, decoder=dropout, **options)
    model = zoo.BNVAE(*networks, latent_dim=D, gamma=0.7, likelihood="tokens", seed=1)
    model.build((None, None))
    model.compile(keras.optimizers.SGD(1.0, global_clipnorm=5.0))
    history = model.fit(x, batch_size=16, epochs=epochs, shuffle=False, verbose=0).history
    return model, history


@pytest.fixture(scope="module")
def corpus():
    return sentences(64, 0)


@pytest.fixture(scope="module")
def fitted(corpus):
    return trained(corpus[0])


@pytest.fixture(scope="module")
def evaluations(fitted, corpus):
    """What is measured on the sentences, and on the same with more padding."""
    model, _ = fitted
    x, _ = corpus
    names = (*metrics.STANDARD, "latent_dependence", "frechet_distance")
    return [
        metrics.evaluate(model, array, corpus[1], names, num_samples=10)
        for array in (x, np.pad(x, PADDING))
    ]


# -- perplexity --------------------------------------------------------------------------------


@pytest.mark.large
def test_perplexity_counts_words_and_ends_but_no_starts(evaluations, corpus):
    x, _ = corpus
    found = evaluations[0]["perplexity"]
    counts = np.sum(x >= 4, axis=1) + 1
    nll = evaluations[0]["negative_log_likelihood"].per_example
    assert found.value == pytest.approx(np.exp(nll.sum() / counts.sum()))
    assert found.extra["num_tokens"] == counts.sum()
    assert found.extra["bits_per_token"] == pytest.approx(np.log2(found.value))
    assert 1.0 < found.value < V


@pytest.mark.large
def test_error_of_the_perplexity_is_that_of_leaving_sentences_out(evaluations, corpus):
    x, _ = corpus
    nll = evaluations[0]["negative_log_likelihood"].per_example
    counts = np.sum(x >= 4, axis=1) + 1
    without = np.exp((nll.sum() - nll) / (counts.sum() - counts))
    jackknife = np.sqrt((len(x) - 1) / len(x) * np.sum((without - without.mean()) ** 2))
    assert evaluations[0]["perplexity"].standard_error == pytest.approx(jackknife, rel=0.05)


@pytest.mark.large
def test_perplexity_alone_is_the_same(fitted, corpus, evaluations):
    found = metrics.perplexity(fitted[0], corpus[0], num_samples=10)
    assert found.value == evaluations[0]["perplexity"].value
    assert found.unit == ""


@pytest.mark.one_backend
def test_perplexity_of_images_is_refused():
    encoder, decoder = zoo.networks.make("mlp", (4,), 2, hidden_units=(3,))
    model = zoo.VAE(encoder, decoder, latent_dim=2)
    model.build((None, 4))
    with pytest.raises(ValueError, match=r"`model` must be one of sentences.*Bernoulli"):
        metrics.perplexity(model, np.zeros((4, 4), "float32"))


# -- padding -----------------------------------------------------------------------------------


@pytest.mark.large
def test_padding_changes_no_metric(evaluations):
    plain, wide = evaluations
    assert plain.results.keys() == wide.results.keys()
    assert {"perplexity", "mutual_information", "active_units"} <= plain.results.keys()
    for name, result in plain.results.items():
        # Sums of logits in another order.
        expected = pytest.approx(result.value, rel=1e-4, abs=1e-5)
        assert wide[name].value == expected, name
        for key, value in result.extra.items():
            if isinstance(value, float):
                found = wide[name].extra[key]
                assert found == pytest.approx(value, rel=1e-3, abs=1e-5), key
    assert plain["active_units"].value == D


@pytest.mark.large
def test_padding_changes_no_training_step(corpus):
    # Twelve steps differ by rounding alone: 4e-7 in the weights, and tenfold with each epoch from
    # the fifth on.
    model, history = trained(corpus[0], 3)
    wide, wide_history = trained(np.pad(corpus[0], PADDING), 3)
    for name, values in history.items():
        np.testing.assert_allclose(wide_history[name], values, rtol=1e-6)
    for one, other in zip(model.weights, wide.weights, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(one),
            keras.ops.convert_to_numpy(other),
            rtol=1e-6,
            atol=1e-6,
        )


@pytest.mark.large
def test_distances_of_images_are_skipped(evaluations):
    assert evaluations[0].skipped == {
        "frechet_distance": "a distance between images; these are sentences"
    }


# -- what else takes sentences -------------------------------------------------------------------


@pytest.mark.large
def test_mutual_information_within_batches(fitted, corpus):
    found = metrics.mutual_information(fitted[0], corpus[0], estimator="batch", batch_size=16)
    assert 0.0 < found.value < np.log(16)


@pytest.mark.large
def test_few_labels_are_learned_from_sentences(fitted):
    model = fitted[0]
    texts = [sentences(80, seed)[0] for seed in (1, 2, 3)]
    codes = [model.encode(x, batch_size=80).mean for x in texts]
    # What the code says, so that a linear head can learn it.
    labels = [(code[:, 0] > np.median(codes[0][:, 0])).astype("int32") for code in codes]
    parts = list(zip(texts, labels, strict=True))
    settings = {"num_labels": 40, "epochs": 30, "balanced": True}
    found = metrics.few_label_probe(*parts, model=model, **settings)
    assert found.value > 0.85 > found.extra["chance"]
    encoded = zip(codes, labels, strict=True)
    assert metrics.few_label_probe(*encoded, **settings).value == found.value
    wide = [(np.pad(x, PADDING), y) for x, y in parts]
    again = metrics.few_label_probe(*wide, model=model, **settings)
    assert again.value == pytest.approx(found.value, abs=0.02)


@pytest.mark.large
def test_draws_fit_into_the_memory(fitted, corpus):
    subject, x = as_subject(fitted[0]), corpus[0]
    for array in (x, np.pad(x, PADDING)):
        logits = 4 * (array.shape[1] - 1) * V
        draws = draws_at_once(subject, array, memory=10**6)
        # Three or four copies of the logits, and the gates of the LSTM beside them.
        assert 4 * logits * draws <= 10**6 <= 10 * logits * draws


@pytest.mark.large
@pytest.mark.one_backend
def test_a_diagnosis_is_made(fitted, corpus):
    found = metrics.diagnose(fitted[0], corpus[0], refinement_steps=2)
    own, prior = (found.measurements[f"log_px_{kind}"].value for kind in ("own", "prior"))
    assert -V < prior - own < V
    assert found.measurements["mutual_information"].value > rules.EMPTY_INFORMATION
    assert found.measurements["refinement_gain"].count == 64
    assert "use" in found.arrays
    assert not found.pictures


@pytest.mark.one_backend
@pytest.mark.parametrize("fault", sorted(advice._REMEDIES))
def test_remedies_suit_sentences(fault):
    arrays = {name: np.zeros(4) for name in ("capacity", "variance_of_means", "reach")}
    found = Measurements(
        estimates={"sensitivity": Estimate(3.0)},
        arrays=arrays,
        traits=frozenset({"text", "autoregressive"}),
    )
    codes = [remedy.code for remedy in advice.remedies((rules.Finding(fault, ()),), found)]
    assert codes
    for code in codes:
        assert not any(name in code for name in ("PixelCNN", "mlp", "VampPrior", "Skip")), code
        assert ('likelihood="tokens"' in code) == code.startswith("zoo."), code
