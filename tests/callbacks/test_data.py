import numpy as np
import pytest

from helpers.sources import Batches, in_batches
from vaezoo.callbacks import CollapseWarning, LatentMonitor
from vaezoo.callbacks._data import watched_data

pytestmark = pytest.mark.one_backend


def test_every_kind_of_validation_data_is_read(images):
    tf = pytest.importorskip("tensorflow")
    x, labels = images
    noisy = x + 2.0
    sources = [
        (noisy, x),
        (noisy, x, np.ones(40)),
        Batches(in_batches(20, noisy, x)),
        tf.data.Dataset.from_tensor_slices((noisy, x)).batch(15),
    ]
    for source in sources:
        found = watched_data(source)
        np.testing.assert_array_equal(found.x, noisy)
        np.testing.assert_array_equal(found.target, x)
        assert found.labels is None
    # As in `fit`, numbers of examples may stand beside a target, or beside labels.
    numbers = np.arange(40)
    np.testing.assert_array_equal(watched_data((noisy, {"index": numbers, "y": x})).target, x)
    found = watched_data((x, {"index": numbers, "y": labels}))
    assert found.target is None
    np.testing.assert_array_equal(found.labels, labels)
    assert watched_data((x, {"color": labels})).labels is None
    for source in ((x, labels), Batches(in_batches(20, x, labels))):
        found = watched_data(source)
        np.testing.assert_array_equal(found.labels, labels)
        assert found.target is None
    assert watched_data(x).labels is None


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ((np.zeros((4, 2)) for _ in range(1)), TypeError, "`data` must be held fixed.*generator"),
        ((np.zeros((4, 2)), np.zeros(3)), ValueError, "row of y for each of x, 4. Received: 3"),
        ([np.zeros((4, 2)), np.zeros(4)], TypeError, "`data` must be an array.*Received: list"),
        (
            (np.zeros((4, 2)), np.array([["a", "b"]] * 4)),
            TypeError,
            "`data` must hold real numbers.*<U1",
        ),
    ],
)
def test_what_cannot_be_watched_is_one_sentence(data, error, message):
    with pytest.raises(error, match=message):
        CollapseWarning(data)


@pytest.mark.large
def test_targets_are_what_is_scored(make_vae, images, tmp_path):
    pytest.importorskip("tensorboard")
    x, noisy = images[0], images[0] + 2.0
    model = make_vae()
    monitor = LatentMonitor((noisy, x), log_dir=tmp_path, seed=3)
    monitor.set_model(model)
    terms = model.log_terms(noisy, seed=3, batch_size=256, target=x)
    np.testing.assert_array_equal(monitor._terms().log_px, terms.log_px)
    warning = CollapseWarning((noisy, x))
    model.fit(noisy, x, epochs=1, batch_size=20, verbose=0, callbacks=[monitor, warning])
    assert warning.history[0]["rate"] == pytest.approx(
        np.mean(model.log_terms(noisy, target=x).kl), rel=1e-4
    )
