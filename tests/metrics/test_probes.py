import math

import numpy as np
import pytest

from vaezoo.data import load_arrays
from vaezoo.losses import DiagonalGaussian
from vaezoo.metrics.probes import (
    alphabet_probe,
    api,
    classifier_probe,
    few_label_probe,
    kmeans_probe,
    knn_probe,
    latent_classifier,
    linear_probe,
    posterior_means,
)
from vaezoo.metrics.probes import heads as trained


def clusters(count, num_classes=3, spread=0.1, seed=0):
    """Codes around the corners of a simplex, and their labels 10, 11, ..."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    noise = spread * rng.normal(size=(count, num_classes))
    return (np.eye(num_classes)[labels] + noise).astype("float32"), labels + 10


TRAIN, TEST = clusters(150), clusters(60, seed=1)
NOISE = np.random.default_rng(2).normal(size=(3000, 4)), np.arange(3000) % 3
ALPHABETS = (
    clusters(180, 6)[0],
    np.stack([np.arange(180) % 6 // 4, np.arange(180) % 6], axis=1),
)


@pytest.mark.parametrize("labeling", ["nearest_sample", "majority"])
def test_separated_clusters_are_labeled_without_fault(labeling):
    result = kmeans_probe(TRAIN, TEST, num_clusters=6, labeling=labeling)
    assert result.value == 1.0
    assert result.extra["runs"] == [1.0] * 5
    assert result.standard_error == 0.0


def test_cluster_labels_come_from_the_nearest_sample_or_the_majority():
    # One cluster whose centroid, 0.2, is nearest to the only code of class 1.
    codes = np.array([-1.0, 0.2, 0.9, 0.9, 0.0])[:, None]
    labels = np.array([0, 1, 0, 0, 0])
    test = np.zeros((4, 1)), np.array([0, 0, 0, 1])
    nearest = kmeans_probe((codes, labels), test, num_clusters=1)
    majority = kmeans_probe((codes, labels), test, num_clusters=1, labeling="majority")
    assert nearest.value == 0.25
    assert majority.value == 0.75
    assert nearest.extra["chance"] == 0.75


def test_collapsed_codes_are_at_chance_without_a_warning(recwarn):
    collapsed = np.zeros((30, 2)), np.arange(30) % 3
    result = kmeans_probe(collapsed, collapsed)
    assert result.value == pytest.approx(1 / 3)
    assert not [str(warning.message) for warning in recwarn if "clusters" in str(warning.message)]


def test_runs_have_their_own_starts_and_give_the_standard_error():
    train, test = clusters(120, 6, spread=0.5), clusters(120, 6, spread=0.5, seed=1)
    result = kmeans_probe(train, test, num_clusters=6, runs=4, seed=3)
    runs = np.array(result.extra["runs"])
    assert len(set(runs)) > 1
    assert result.value == pytest.approx(runs.mean())
    assert result.standard_error == pytest.approx(runs.std(ddof=1) / 2)
    single = kmeans_probe(train, test, num_clusters=6, runs=1, seed=4)
    assert single.value == runs[1]
    assert math.isnan(single.standard_error)
    expected = math.sqrt(single.value * (1 - single.value) / 120)
    assert single.extra["test_standard_error"] == pytest.approx(expected)


PROBES = [
    (kmeans_probe, {}),
    (knn_probe, {"num_labels": 60}),
    (linear_probe, {"num_labels": 30}),
    (linear_probe, {"regularization": 10.0}),
    (classifier_probe, {"hidden_units": (32,), "epochs": 20, "learning_rate": 1e-2}),
]


@pytest.mark.large
@pytest.mark.parametrize(("probe", "arguments"), PROBES)
def test_separated_classes_are_read_off(probe, arguments):
    result = probe(TRAIN, TEST, **arguments)
    assert result.value == 1.0
    assert result.count == 60
    assert result.estimator == probe.__name__
    assert result.extra["chance"] == pytest.approx(1 / 3)
    assert math.isnan(result.standard_error) == (len(result.extra["runs"]) == 1)


@pytest.mark.parametrize("probe", [kmeans_probe, knn_probe, linear_probe])
def test_results_repeat_by_seed(probe):
    train, test = clusters(150, spread=0.6), clusters(60, spread=0.6, seed=1)
    arguments = {} if probe is kmeans_probe else {"num_labels": 15}
    result = probe(train, test, seed=1, **arguments)
    assert result == probe(train, test, seed=1, **arguments)
    assert result.extra["runs"] != probe(train, test, seed=9, **arguments).extra["runs"]


def test_few_labels_by_sgd():
    validation = clusters(60, seed=2)
    result = few_label_probe(TRAIN, validation, TEST, num_labels=60)
    assert result.value == 1.0
    assert result.settings["seed"] == 783435
    assert few_label_probe(TRAIN, validation, TEST, num_labels=30, balanced=True).value == 1.0


def test_noise_is_at_chance():
    train, test = (tuple(part[rows] for part in NOISE) for rows in (slice(1500), slice(1500, None)))
    for result in (
        knn_probe(train, test, num_labels=300),
        linear_probe(train, test),
        few_label_probe(train, test, test, num_labels=300, epochs=5),
    ):
        assert abs(result.value - 1 / 3) < 4 * result.extra["test_standard_error"]


def test_subsets_are_balanced_and_redrawn():
    seen = []

    class Classifier:
        def fit(self, x, y):
            seen.append((x, y))
            return self

        def predict(self, x):
            return np.full(len(x), 10)

    def run(num_labels, runs):
        seen.clear()
        return api._subset_probe(
            "probe", Classifier, TRAIN, TEST, None, num_labels, runs, 0, 256, {}
        )

    assert len(run(31, 3).extra["runs"]) == 3
    counts = [sorted(np.unique(y, return_counts=True)[1]) for _, y in seen]
    assert counts == [[10, 10, 11]] * 3
    assert not np.array_equal(seen[0][0], seen[1][0])
    assert len(np.unique(seen[0][0], axis=0)) == 31
    # All labels: nothing is drawn, one run.
    assert len(run(None, 3).extra["runs"]) == 1
    assert len(seen[0][1]) == 150


def test_linear_probe_minimizes_its_objective():
    from sklearn.linear_model import LogisticRegression

    codes, labels = clusters(90, 3, spread=0.6)
    test = clusters(3000, 3, spread=0.6, seed=5)
    strong = linear_probe((codes, labels), test, regularization=1e-6)
    assert 1 / 3 <= strong.value
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit(codes, labels)
    assert linear_probe((codes, labels), test).value == fitted.score(*test)


def test_alphabets_have_a_head_each():
    codes, labels = ALPHABETS
    result = alphabet_probe(
        (codes, labels), (codes, labels), num_drawings=5, epochs=300, learning_rate=1e-2
    )
    assert result.value == 1.0
    assert result.extra["per_alphabet"] == {0: 1.0, 1: 1.0}
    # 4 and 2 characters.
    assert result.extra["chance"] == pytest.approx((1 / 4 + 1 / 2) / 2)


def test_alphabets_are_averaged_plainly_and_by_characters():
    codes, labels = ALPHABETS
    # The characters of the second alphabet cannot be told apart.
    codes = np.where(labels[:, :1] == 1, 0.0, codes)
    result = alphabet_probe(
        (codes, labels), (codes, labels), num_drawings=10, epochs=300, learning_rate=1e-2
    )
    assert result.extra["per_alphabet"] == {0: 1.0, 1: 0.5}
    assert result.value == 0.75
    assert result.extra["weighted"] == pytest.approx((4 * 1.0 + 2 * 0.5) / 6)


def test_missing_drawings_are_drawn_again():
    rng = np.random.default_rng(0)
    characters = np.array([7, 7, 7, 8, 8, 8, 8, 8, 9])
    rows = np.array([0, 1, 2, 3, 4, 5, 6, 7])
    chosen = api._drawings(rows, characters, 4, rng)
    # The first four in order; of the character with three, one of these once more.
    assert chosen[:3].tolist() == [0, 1, 2]
    assert chosen[3] in (0, 1, 2)
    assert chosen[4:].tolist() == [3, 4, 5, 6]


def test_adam_head_takes_steps_of_the_learning_rate():
    # From zero moments, each of Adam's steps is at most about the learning rate.
    x, y = TRAIN
    one = trained.adam_head(x[:50], y[:50], 1, 1e-3, seed=0).__self__
    two = trained.adam_head(x[:50], y[:50], 2, 1e-3, seed=0).__self__
    step = np.abs(two.coefs_[0] - one.coefs_[0])
    assert 0.5e-3 < step.max() < 1.5e-3
    assert (one.coefs_[0].shape, one.n_layers_) == ((3, 3), 2)


def test_sgd_step_follows_the_gradient_and_clips_it():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)), rng.integers(0, 4, 8)
    head = rng.normal(size=(3, 4)), rng.normal(size=4)
    moved = trained.sgd_step(head, x, y, 1e-3)
    for part in range(2):
        change = np.zeros_like(head[part])
        for index in np.ndindex(change.shape):
            shifted = [[array.copy() for array in head] for _ in range(2)]
            shifted[0][part][index] += 1e-5
            shifted[1][part][index] -= 1e-5
            above, below = (trained.mean_cross_entropy(h, x, y) for h in shifted)
            change[index] = (above - below) / 2e-5
        np.testing.assert_allclose(head[part] - moved[part], 1e-3 * change, atol=1e-9)
    moved = trained.sgd_step(head, 1000.0 * x, y, 1.0)
    length = math.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(head, moved, strict=True)))
    assert length == pytest.approx(5.0)


def test_rate_is_halved_after_two_epochs_without_gain_and_ends_after_five(monkeypatch):
    rates = []

    def step(head, x, y, learning_rate):
        rates.append(learning_rate)
        return head

    monkeypatch.setattr(trained, "sgd_step", step)
    x, y = np.ones((16, 2)), np.zeros(16, int)
    trained.sgd_head(x, y, x, y, 2, 1.0, 100, np.random.default_rng(0))
    # The first epoch is a gain over nothing.
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625]


def test_heads_are_compared_with_the_best_since_the_last_halving(monkeypatch):
    # Halved after the third; then 1.25 and 1.24 are gains over 1.3, and 1.26, 1.27 are none.
    losses = iter([1.0, 1.2, 1.3, 1.25, 1.24, 1.26, 1.27, 1.1, 1.2, 0.9, *[2.0] * 90])
    heads, rates = [], []

    def step(head, x, y, learning_rate):
        rates.append(learning_rate)
        heads.append((np.full((2, 2), float(len(heads))), np.zeros(2)))
        return heads[-1]

    monkeypatch.setattr(trained, "sgd_step", step)
    monkeypatch.setattr(trained, "mean_cross_entropy", lambda *_: next(losses))
    x, y = np.ones((16, 2)), np.zeros(16, int)
    best = trained.sgd_head(x, y, x, y, 2, 1.0, 12, np.random.default_rng(0))
    assert rates == [1.0] * 3 + [0.5] * 4 + [0.25] * 5
    # The best of all epochs is what is tested.
    np.testing.assert_array_equal(best[0], np.full((2, 2), 9.0))


@pytest.mark.large_on_jax
def test_classifier_is_that_of_the_paper():
    network = latent_classifier(10)
    assert network.count_params() == 2_120_714
    kernels = [weight for weight in network.get_weights() if weight.ndim == 2]
    assert [kernel.shape for kernel in kernels] == [
        (10, 1024),
        (1024, 1024),
        (1024, 1024),
        (1024, 10),
    ]
    for kernel in kernels:
        scale = math.sqrt(2 / kernel.shape[0])
        assert kernel.std() == pytest.approx(scale, abs=4 * scale / math.sqrt(2 * kernel.size))
    # Not the default slope of Keras' layer, 0.3.
    layer = network.layers[1]
    out = layer(np.array([np.eye(10)[0], -np.eye(10)[0]], "float32"))
    above, below = np.sort(np.array(out), axis=0)[::-1]
    np.testing.assert_allclose(below, -0.2 * above, rtol=1e-5)


class Encoder:
    """A model, as far as probes look."""

    def encode(self, x, batch_size):
        self.batch_size = batch_size
        return DiagonalGaussian(x[:, :, 0, 0], 0.0 * x[:, :, 0, 0])


def test_a_model_encodes_both_sets_to_posterior_means():
    model = Encoder()
    train, test = ((codes[:, :, None, None], labels) for codes, labels in (TRAIN, TEST))
    assert linear_probe(train, test, model=model, batch_size=50).value == 1.0
    assert model.batch_size == 50
    np.testing.assert_array_equal(posterior_means(model, train[0]), TRAIN[0].astype("float64"))


@pytest.mark.large_on_jax
def test_codes_of_a_vae_and_of_the_same_data():
    from vaezoo.zoo import VAE, networks

    x, y = load_arrays("digits", "test")
    encoder, decoder = networks.make("mlp", latent_dim=4, input_shape=(8, 8, 1), hidden_units=(8,))
    model = VAE(encoder, decoder, latent_dim=4, seed=0)
    model(x[:2])
    codes = posterior_means(model, x)
    assert codes.shape == (360, 4)
    through_model = knn_probe((x[:200], y[:200]), (x[200:], y[200:]), model=model)
    assert through_model.value == knn_probe((codes[:200], y[:200]), (codes[200:], y[200:])).value


GOOD = {"train": TRAIN, "test": TEST}


@pytest.mark.parametrize(
    ("probe", "arguments", "error", "message"),
    [
        (kmeans_probe, {"train": TRAIN[0]}, TypeError, r"`train` must be a pair \(codes, labels\)"),
        (kmeans_probe, {"test": ([0], [0])}, TypeError, "an array of codes.* Received: list"),
        (kmeans_probe, {"test": (TEST[0], TEST[1][:5])}, ValueError, r"`test` .* shape \(60,\)"),
        (kmeans_probe, {"test": (TEST[0], TEST[1] / 1)}, ValueError, "dtype=float64"),
        (kmeans_probe, {"test": (TEST[0][:, :2], TEST[1])}, ValueError, "codes of 3 dimensions"),
        (kmeans_probe, {"train": (TRAIN[0] + np.nan, TRAIN[1])}, ValueError, "must be finite"),
        (kmeans_probe, {"train": (TRAIN[0], 0 * TRAIN[1])}, ValueError, "at least 2 classes"),
        (kmeans_probe, {"labeling": "best"}, ValueError, "labeling='best'"),
        (kmeans_probe, {"num_clusters": 0}, ValueError, "num_clusters=0"),
        (kmeans_probe, {"num_clusters": 151}, ValueError, "num_clusters=151, 150 examples"),
        (kmeans_probe, {"runs": 0}, ValueError, "runs=0"),
        (kmeans_probe, {"seed": -1}, ValueError, "seed=-1"),
        (knn_probe, {"num_neighbors": 0}, ValueError, "num_neighbors=0"),
        (knn_probe, {"num_labels": 6}, ValueError, "num_neighbors=10, 6 labeled examples"),
        (linear_probe, {"num_labels": 2}, ValueError, "num_labels=2, 3 classes"),
        (linear_probe, {"num_labels": 1}, ValueError, "num_labels=1"),
        (linear_probe, {"num_labels": 151}, ValueError, "num_labels=151, 150 examples"),
        (linear_probe, {"regularization": 0.0}, ValueError, "regularization=0.0"),
        (classifier_probe, {"hidden_units": (0,)}, ValueError, r"hidden_units=\(0,\)"),
        (classifier_probe, {"epochs": 0}, ValueError, "epochs=0"),
        (classifier_probe, {"learning_rate": 0.0}, ValueError, "learning_rate=0.0"),
        (alphabet_probe, {}, ValueError, r"integer labels of shape \(150, 2\)"),
        (alphabet_probe, {"num_drawings": 0}, ValueError, "num_drawings=0"),
        (alphabet_probe, {"learning_rate": -1}, ValueError, "learning_rate=-1"),
    ],
)
def test_errors_say_what_came(probe, arguments, error, message):
    with pytest.raises(error, match=message):
        probe(**{**GOOD, **arguments})


def test_a_class_too_small_for_its_share():
    labels = np.where(np.arange(150) < 3, 10, 11)
    with pytest.raises(ValueError, match="num_labels=20, 3 examples of class 10"):
        linear_probe((TRAIN[0], labels), TEST, num_labels=20)


def test_alphabet_errors():
    codes, labels = ALPHABETS
    with pytest.raises(ValueError, match="6 characters in train, 5 in test"):
        alphabet_probe((codes, labels), (codes[:5], labels[:5]))
    lonely = labels * [1, 0] + [0, 3]
    with pytest.raises(ValueError, match="1 in alphabet 0"):
        alphabet_probe((codes, lonely), (codes, lonely))


def test_few_label_errors():
    with pytest.raises(ValueError, match="`validation` must have the labels of `train`"):
        few_label_probe(TRAIN, (TEST[0], TEST[1] + 5), TEST, num_labels=10)
    with pytest.raises(ValueError, match="num_labels=1"):
        few_label_probe(TRAIN, TEST, TEST, num_labels=1)
    with pytest.raises(ValueError, match="epochs=0"):
        few_label_probe(TRAIN, TEST, TEST, num_labels=10, epochs=0)
