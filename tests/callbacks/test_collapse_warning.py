import warnings

import numpy as np
import pytest

from vaezoo import layers, zoo
from vaezoo.callbacks.collapse_warning import CollapseWarning, PosteriorCollapse
from vaezoo.losses import ELBO, FreeBits, LinearSchedule


def fit(model, images, callback, epochs=3, **kwargs):
    return model.fit(
        images, batch_size=20, epochs=epochs, verbose=0, callbacks=[callback], **kwargs
    )


def empty_head(model):
    """Plants a collapse: the posterior no longer depends on x."""
    model.head.projection.kernel.assign(0.0 * model.head.projection.kernel)
    return model


@pytest.mark.large
def test_a_collapsed_model_is_named_once(make_vae, images):
    model, callback = empty_head(make_vae(learning_rate=1e-9)), CollapseWarning(images[0])
    with pytest.warns(PosteriorCollapse) as caught:
        history = fit(model, images[0], callback)
    # JAX may warn of its own affairs besides.
    caught = [warning for warning in caught if warning.category is PosteriorCollapse]
    assert len(caught) == 1
    message = str(caught[0].message)
    assert message.startswith("After epoch 1 the posterior has collapsed: 0 of 3 units are active")
    assert "The decoder models the data without z" in message
    assert "FreeBits(1.3)" in message
    assert history.history["active_units"] == [0, 0, 0]
    assert [record["reason"] for record in callback.history] == ["collapsed"] * 3
    # The planted collapse, by the rule of the diagnosis, and its remedy.
    assert [record["cause"] for record in callback.history] == ["encoder_constant"] * 3
    assert "The encoder does not look at x: Its outputs are equal for every x" in message
    assert "What helps: look at how x comes into the encoder" in message


@pytest.mark.large
def test_a_healthy_model_is_left_alone(make_vae, images):
    model, callback = make_vae(zoo.DUVAE, gamma=1.0, keep_prob=1.0), CollapseWarning(images[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", PosteriorCollapse)
        logs = fit(model, images[0], callback, epochs=4).history
    assert logs["active_units"][-1] == 3
    assert [record["reason"] for record in callback.history] == [""] * 4


@pytest.mark.large
@pytest.mark.one_backend
def test_rate_is_to_the_prior_that_the_model_has(make_vae, images):
    prior = layers.GaussianMixturePrior(1)
    model = make_vae(prior=prior, learning_rate=1e-9)
    # Far from every code.
    prior.means.assign(np.full((1, 3), 10.0))
    callback = CollapseWarning(images[0])
    fit(model, images[0], callback, epochs=1)
    kl = float(np.mean(model.log_terms(images[0], 64, seed=1).kl))
    assert callback.history[0]["rate"] == pytest.approx(kl, rel=0.05)
    assert callback.history[0]["rate"] > 100.0


@pytest.mark.large
@pytest.mark.one_backend
def test_flow_that_collapsed_is_named(make_vae, images):
    head = layers.FlowHead(3, layers.InverseAutoregressiveFlow(1, (8,)))
    model = empty_head(make_vae(head=head, learning_rate=1e-9))
    callback = CollapseWarning(images[0], start_epoch=0)
    with pytest.warns(PosteriorCollapse, match="0 of 3 units are active"):
        fit(model, images[0], callback, epochs=1)
    # Not at the prior: N(0, softplus(0)^2) with gates of 0.88.
    exact = float(np.mean(model.log_terms(images[0], 500, seed=1).kl))
    assert callback.history[0]["rate"] == pytest.approx(exact, abs=0.2)


def test_a_fall_is_seen_before_the_end(make_vae, images):
    callback = CollapseWarning(images[0], patience=2, min_share=1.0)
    callback.set_model(make_vae())
    readings = iter([(3, 9.0), (3, 9.0), (3, 8.0), (2, 7.0), (3, 7.5)])
    callback._measure = lambda: next(readings)
    callback.on_train_begin()
    for epoch in range(2):
        callback.on_epoch_end(epoch)
    with pytest.warns(PosteriorCollapse, match="being lost: 3 -> 2 of 3 units active, rate 9 -> 7"):
        callback.on_epoch_end(2)
    callback.on_epoch_end(3)
    assert [record["reason"] for record in callback.history] == ["", "", "losing units", ""]


@pytest.mark.large
def test_the_floor_is_raised_before_the_next_epoch(make_vae, images):
    model = empty_head(make_vae(objective=FreeBits(0.25), learning_rate=1e-9))
    callback = CollapseWarning(
        images[0], act="raise_free_bits", factor=3.0, max_actions=2, start_epoch=0
    )
    with pytest.warns(PosteriorCollapse, match="floor of free bits is multiplied by 3"):
        fit(model, images[0], callback, epochs=4)
    assert [(a["epoch"], a["value"]) for a in callback.actions] == [(1, 0.75), (2, 2.25)]
    assert float(model.objective.free_bits.numpy()) == pytest.approx(2.25)


@pytest.mark.large
def test_the_ramp_is_put_back(make_vae, images):
    model = empty_head(make_vae(objective=ELBO(LinearSchedule(100)), learning_rate=1e-9))
    callback = CollapseWarning(images[0], act="slow_ramp", max_actions=1, start_epoch=0)
    with pytest.warns(PosteriorCollapse, match="ramp of beta goes back to 1/2 of its steps"):
        logs = fit(model, images[0], callback, epochs=3).history
    # Two steps an epoch: 0, 1 | back from 2 to 1: 1, 2 | 3, 4; logs show the last batch or a mean.
    steps = 100 * np.array(logs["beta"])
    assert steps[1] - steps[0] == pytest.approx(1.0, abs=1e-3)
    assert steps[2] - steps[1] == pytest.approx(2.0, abs=1e-3)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, "`patience` must be a positive integer. Received: patience=0"),
        (
            {"min_rate": -1.0},
            "`min_rate` must be a .*non-negative number. Received: min_rate=-1.0",
        ),
        ({"min_share": 0.0}, r"`min_share` must be a number in \(0, 1\]. Received: min_share=0.0"),
        ({"act": "pray"}, "`act` must be one of 'raise_free_bits', 'slow_ramp', None"),
        ({"factor": 1.0}, "`factor` must be a number in .1, inf.. Received: factor=1.0"),
    ],
)
def test_bad_arguments(images, arguments, message):
    with pytest.raises(ValueError, match=message):
        CollapseWarning(images[0], **arguments)


def test_bad_data():
    with pytest.raises(TypeError, match="`data` must be an array"):
        CollapseWarning([1, 2])
    with pytest.raises(ValueError, match=r"at least 2 examples. Received: shape=\(1, 4\)"):
        CollapseWarning(np.zeros((1, 4)))


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("act", "message"),
    [
        ("raise_free_bits", "needs the objective `FreeBits`. Received: objective ELBO"),
        ("slow_ramp", "whose `beta` is a schedule of the training step"),
    ],
)
def test_nothing_to_act_on(make_vae, images, act, message):
    with pytest.raises(ValueError, match=message):
        fit(make_vae(), images[0], CollapseWarning(images[0], act=act))
