"""Aggressive training: the inner loop, who moves when, and where the other batches come from."""

import inspect
import itertools
import json

import keras
import numpy as np
import pytest
from keras import ops

from helpers.sources import Batches, in_batches
from vaezoo import callbacks, zoo
from vaezoo.losses import LinearSchedule
from vaezoo.zoo.agg_vae import model as agg_vae
from vaezoo.zoo.agg_vae.batches import KEPT, RandomRows, RecentBatches, inner_batches
from vaezoo.zoo.agg_vae.model import Windows
from vaezoo.zoo.agg_vae.optimizer import PartsOptimizer

BACKEND = keras.backend.backend()
# JAX is slow without its compiler; TensorFlow without XLA compiles faster than with it.
QUICK = {"jit_compile": BACKEND == "jax"}
QUIET = "ignore:The aggressive phase of this training never ends"
pytestmark = pytest.mark.filterwarnings(QUIET)


@pytest.fixture
def make(dense_networks):
    """Equal weights and noise for every model, which is compiled unless `optimizer` is None."""

    def build(optimizer="sgd", networks=None, compile_args=None, **options):
        keras.utils.set_random_seed(0)
        options = {"max_inner_steps": 4, "window": 2, "seed": 1, **options}
        model = zoo.AggVAE(*(networks or dense_networks()), latent_dim=3, **options)
        model.build((None, 6))
        if optimizer is not None:
            model.compile(optimizer, **{**QUICK, **(compile_args or {})})
        return model

    return build


def values(variables):
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def moved(before, after):
    return [bool(np.any(a != b)) for a, b in zip(before, after, strict=True)]


def count(optimizer):
    return int(ops.convert_to_numpy(optimizer.iterations))


# -- the rule of the inner loop ------------------------------------------------------------------


def length(losses, window=15, limit=99, sizes=None):
    """Steps that the loop takes when step t has the loss `losses(t)`, counted from 1."""
    state, step = Windows.start(), 0
    for size in sizes or itertools.repeat(1.0):
        if not bool(state.goes_on(limit)):
            break
        step += 1
        state = state.after(ops.convert_to_tensor(losses(step) * size, "float32"), size, window)
    return int(state.steps)


@pytest.mark.parametrize(
    ("losses", "window", "expected"),
    [
        # Only a strict increase from window to window breaks.
        (lambda t: 5.0, 15, 99),
        # The first window can only set the reference.
        (lambda t: 5.0 + t, 15, 30),
        (lambda t: 5.0 + t, 10, 20),
        (lambda t: 5.0 - 0.01 * t, 15, 99),
        # Above what the first window is compared with.
        (lambda t: 1.1e4, 15, 15),
        # The windows count, not the steps: up and down within each of them.
        (lambda t: 5.0 + t % 2, 10, 99),
        # It rises in the fifth window.
        (lambda t: 5.0 if t <= 60 else 6.0, 15, 75),
        (lambda t: float("nan"), 15, 99),
    ],
)
def test_length_of_the_inner_loop(losses, window, expected):
    assert length(losses, window) == expected


def test_a_window_averages_over_symbols_not_batches():
    # Per symbol 1 and 3 with weights 9 and 1 against 1.5 and 1.5: a rise from 1.2 to 1.5.
    losses, sizes = [1.0, 3.0, 1.5, 1.5], [9.0, 1.0, 1.0, 1.0]
    assert length(lambda t: losses[t - 1], 2, 4, sizes) == 4
    state = Windows.start()
    for loss, size in zip(losses, sizes, strict=True):
        state = state.after(ops.convert_to_tensor(loss * size, "float32"), size, 2)
        if int(state.steps) == 2:
            assert float(state.previous) == pytest.approx(1.2)
    assert bool(state.risen)


# -- who moves when ------------------------------------------------------------------------------


@pytest.fixture
def no_noise(monkeypatch):
    monkeypatch.setattr(
        keras.random, "normal", lambda shape, **options: ops.zeros(shape, "float32")
    )


def replayed(stacks, networks, start, window):
    """Weights and inner steps when one model trains the encoder alone, another one the decoder."""
    halves = [zoo.VAE(*networks(), latent_dim=3) for _ in range(2)]
    encoder_only, decoder_only = halves
    encoder_only.decoder.trainable = False
    decoder_only.encoder.trainable = decoder_only.head.trainable = False
    for half in halves:
        half.build((None, 6))
        half.compile(keras.optimizers.SGD(0.5, momentum=0.9), **QUICK)
    weights, steps = start, []

    def variables(half):
        return [*half.encoder.weights, *half.head.weights, *half.decoder.weights]

    def hand_over(weights, half):
        for variable, value in zip(variables(half), weights, strict=True):
            variable.assign(value)

    for stack in stacks:
        hand_over(weights, encoder_only)
        previous, total = 1e4, []
        for number, x in enumerate(stack, 1):
            total.append(encoder_only.train_on_batch(x, return_dict=True)["loss"])
            if number % window == 0:
                average, total = np.mean(total), []
                if average > previous:
                    break
                previous = average
        steps.append(number)
        hand_over(values(variables(encoder_only)), decoder_only)
        decoder_only.train_on_batch(stack[0])
        weights = values(variables(decoder_only))
    return weights, steps


@pytest.mark.large
def test_a_step_is_a_loop_over_the_encoder_then_a_step_of_the_decoder(
    no_noise, make, dense_networks, binary_data
):
    # Momentum tells whether both optimizers remember their own steps, and makes the loss rise.
    model = make(
        keras.optimizers.SGD(0.5, momentum=0.9),
        max_inner_steps=12,
        window=2,
        compile_args={"jit_compile": True},
    )
    start, stacks, attach = values(model.trainable_variables), [], model._with_others

    def spy(batch):
        data, y, sample_weight = attach(batch)
        stacks.append(ops.convert_to_numpy(data["others"][0]))
        np.testing.assert_array_equal(stacks[-1][0], ops.convert_to_numpy(data["x"]))
        return data, y, sample_weight

    model._with_others = spy
    log = model.fit(binary_data(32), batch_size=16, shuffle=False, verbose=0).history
    assert [stack.shape for stack in stacks] == [(12, 16, 6)] * 2
    weights, steps = replayed(stacks, dense_networks, start, 2)
    # Some loop was broken off, and not at once.
    assert 2 < min(steps) < 12
    assert log["inner_steps"] == [pytest.approx(np.mean(steps))]
    assert log["aggressive"] == [1.0]
    assert count(model.optimizer.encoder_optimizer) == sum(steps)
    assert count(model.optimizer) == 2
    for got, expected in zip(values(model.trainable_variables), weights, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.large
def test_after_the_phase_steps_are_those_of_the_plain_vae(make, dense_networks, binary_data):
    x, options = binary_data(16), {"batch_size": 16, "verbose": 0}
    model = make(keras.optimizers.Adam(0.1))
    model.phase.end()
    log = model.fit(x, **options).history
    assert (log["aggressive"], log["inner_steps"]) == ([0.0], [0.0])
    keras.utils.set_random_seed(0)
    plain = zoo.VAE(*dense_networks(), latent_dim=3, seed=1)
    plain.build((None, 6))
    plain.compile(keras.optimizers.Adam(0.1), **QUICK)
    assert plain.fit(x, **options).history["loss"] == pytest.approx(log["loss"], rel=1e-5)
    for got, expected in zip(
        values(model.trainable_variables), values(plain.trainable_variables), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.large
def test_clipping_takes_the_norm_of_all_gradients(no_noise, make, binary_data):
    x, limit = binary_data(16), 0.1
    plain = make(keras.optimizers.SGD(1.0), max_inner_steps=1)
    start = values(plain.trainable_variables)
    plain.phase.end()
    plain.train_on_batch(x)
    gradients = [a - b for a, b in zip(start, values(plain.trainable_variables), strict=True)]
    norm = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
    assert norm > 2 * limit
    model = make(keras.optimizers.SGD(1.0, global_clipnorm=limit), max_inner_steps=1)
    model.train_on_batch(x)
    after = values(model.trainable_variables)
    encoder = len(model._encoder_variables())
    for begin, end, gradient in zip(start[:encoder], after, gradients, strict=False):
        np.testing.assert_allclose(begin - end, gradient * limit / norm, rtol=1e-3, atol=1e-5)
    # The decoder's gradient is another after the encoder's step, and no longer than the limit.
    squares = [np.sum((a - b) ** 2) for a, b in zip(start[encoder:], after[encoder:], strict=True)]
    assert 0.2 * limit < np.sqrt(sum(squares)) <= limit * (1 + 1e-5)


@pytest.mark.large
def test_schedules_and_learning_rate_follow_the_outer_steps(make, binary_data):
    class Halve(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.optimizer.learning_rate.assign(0.5 / 2**epoch)

    model = make(beta=LinearSchedule(10))
    log = model.fit(binary_data(32), batch_size=16, epochs=2, verbose=0, callbacks=Halve()).history
    assert log["beta"] == pytest.approx([0.05, 0.25])
    assert count(model.optimizer) == 4
    assert float(ops.convert_to_numpy(model.optimizer.encoder_optimizer.learning_rate)) == 0.25
    scheduled = make(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)))
    scheduled.fit(binary_data(48), batch_size=16, verbose=0)
    # The rate of the third step.
    rate = scheduled.optimizer.encoder_optimizer.learning_rate
    assert float(ops.convert_to_numpy(rate)) == 0.25


# -- the phase -----------------------------------------------------------------------------------


class EndsAfter(keras.callbacks.Callback):
    """Ends the phase at the end of an epoch, and notes what moved in each."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch, self.counts = epoch, []

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        self.counts.append((count(optimizer), count(optimizer.encoder_optimizer)))
        if epoch == self.epoch:
            self.model.phase.end()


@pytest.mark.large
def test_the_phase_ends_within_a_fit(make, binary_data):
    model, ends = make(), EndsAfter(1)
    log = model.fit(binary_data(40), batch_size=16, epochs=4, verbose=0, callbacks=[ends]).history
    assert log["aggressive"] == [1.0, 1.0, 0.0, 0.0]
    assert np.all(np.asarray(log["inner_steps"][:2]) >= 2)
    assert log["inner_steps"][2:] == [0.0, 0.0]
    assert [outer for outer, _ in ends.counts] == [3, 6, 9, 12]
    inner = np.diff([steps for _, steps in ends.counts])
    assert inner[0] == 3 * log["inner_steps"][1]
    # One step a batch from then on.
    assert list(inner[1:]) == [3, 3]


@pytest.mark.large
def test_a_reloaded_model_goes_on_where_it_was(make, binary_data, tmp_path):
    model, x = make("adam"), binary_data(16)
    model.fit(x, batch_size=16, verbose=0, validation_data=x)
    model.phase.end()
    model.phase.below.assign(3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())
    assert (again.window, again.max_inner_steps, again.seed) == (2, 4, 1)
    assert not again.phase.active
    assert int(ops.convert_to_numpy(again.phase.below)) == 3
    assert isinstance(again.optimizer, PartsOptimizer)
    for got, expected in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (got, expected)))
    # Also without an optimizer to hold its state.
    model.save_weights(tmp_path / "model.weights.h5")
    bare = make(None)
    bare.load_weights(tmp_path / "model.weights.h5")
    assert not bare.phase.active


@pytest.mark.large
def test_backups_restore_the_phase_and_what_decides(make, binary_data, tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    x, script = binary_data(16), [1.0, 0.5, 0.4, 0.9]

    class Scripted(callbacks.AggressiveTraining):
        def _measure(self):
            return script[self.epoch]

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    def run(*others):
        model, backup = make(), keras.callbacks.BackupAndRestore(tmp_path)
        # Saved before the decision if it came second.
        options = {"epochs": 4, "batch_size": 16, "verbose": 0, "validation_data": x}
        follow = [backup, Scripted(stop="patience", patience=2), *others]
        return model, lambda: model.fit(x, callbacks=follow, **options).history

    first, fit = run(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        fit()
    model, fit = run()
    log = fit()
    assert log["aggressive"] == [1.0, 0.0]
    assert log["mutual_information"] == pytest.approx([0.4])
    assert int(ops.convert_to_numpy(model.phase.below)) == 2
    assert float(ops.convert_to_numpy(model.phase.best)) == 1.0


# -- data ----------------------------------------------------------------------------------------


@pytest.mark.large
def test_every_source_gives_its_steps_and_others_of_its_own(make, binary_data):
    x = binary_data(40)
    model, attach, stacks = make(), None, []
    attach = model._with_others

    def spy(batch):
        data, *rest = attach(batch)
        stacks.append(ops.convert_to_numpy(data["others"][0]))
        return data, *rest

    model._with_others = spy
    sources = [Batches(in_batches(16, x)), (x[i : i + 16] for i in (0, 16, 32))]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        sources.append(tf.data.Dataset.from_tensor_slices(x).batch(16))
    rows = {row.tobytes() for row in x}
    for number, source in enumerate([x, *sources], 1):
        stacks.clear()
        model.fit(source, batch_size=16 if source is x else None, verbose=0)
        assert count(model.optimizer) == 3 * number
        assert [stack.shape for stack in stacks] == [(4, 16, 6)] * 3
        found = {row.tobytes() for row in np.concatenate(stacks).reshape(-1, 6)}
        assert found <= rows
        assert len(found) > len({row.tobytes() for row in x[:16]})


@pytest.mark.large
@pytest.mark.one_backend
def test_texts_of_different_lengths(text_networks, sentences):
    x = sentences(24)
    short = x[:, 4] == 0
    parts = [x[short][:, :4], x[~short]]
    assert min(map(len, parts)) > 2

    batches = Batches([(part,) for part in parts])
    model = zoo.AggVAE(
        *text_networks(length=None), latent_dim=3, likelihood="tokens", max_inner_steps=3, seed=1
    )
    assert model.window == 15
    model.compile("sgd", **QUICK)
    stacks, attach = [], model._with_others

    def spy(batch):
        data, *rest = attach(batch)
        stacks.append(ops.convert_to_numpy(data["others"][0]))
        return data, *rest

    model._with_others = spy
    log = model.fit(batches, verbose=0, validation_data=batches).history
    assert np.isfinite(log["loss"][0])
    assert np.isfinite(log["mutual_information"][0])
    assert [stack.shape for stack in stacks] == [(3, max(map(len, parts)), 6)] * 2
    found = {row.tobytes() for row in np.concatenate(stacks).reshape(-1, 6)}
    assert found <= {row.tobytes() for row in x}


@pytest.mark.large
def test_several_steps_an_execution(make, binary_data):
    model = make(compile_args={"steps_per_execution": 2})
    log = model.fit(
        binary_data(40), batch_size=16, epochs=2, verbose=0, callbacks=[EndsAfter(0)]
    ).history
    assert log["aggressive"] == [1.0, 0.0]
    assert count(model.optimizer) == 6


def generator():
    return np.random.default_rng(0)


@pytest.mark.one_backend
def test_rows_are_drawn_without_repetition_and_with_what_belongs_to_them():
    x = np.arange(50, dtype="float32")[:, None]
    y, weight = x[:, 0].astype(int), 0.5 * x[:, 0]
    _, batches = inner_batches(x[:40], y[:40], weight[:40], 16, 6, generator())
    first = (x[:16], y[:16], weight[:16])
    stack = batches.stack(first)
    assert [leaf.shape for leaf in stack] == [(6, 16, 1), (6, 16), (6, 16)]
    for leaf, own in zip(stack, first, strict=True):
        np.testing.assert_array_equal(leaf[0], own)
    for rows, numbers, weights in zip(*stack, strict=True):
        assert len(set(numbers)) == 16
        np.testing.assert_array_equal(rows[:, 0], numbers)
        np.testing.assert_array_equal(weights, 0.5 * numbers)
    seen = {n for _ in range(20) for n in batches.stack(first)[1].ravel()}
    assert seen == set(range(40))
    # A ragged last batch is filled up with rows of its own.
    stack = batches.stack((x[:3], y[:3], weight[:3]))
    np.testing.assert_array_equal(stack[1][0], np.arange(16) % 3)


@pytest.mark.one_backend
def test_batches_of_different_lengths_are_padded_to_the_longest():
    batches = [np.full((4, length), length, "int32") for length in (3, 7, 5)]
    batches.append(np.full((2, 6), 6, "int32"))
    chosen = RecentBatches(None, 9, generator())
    handed_on = list(chosen.ahead_of((batch,) for batch in batches))
    assert [len(batch[0][0]) for batch in handed_on] == [3, 7, 5, 6]
    (stack, y, weight) = chosen.stack((batches[0], None, None))
    assert (y, weight) == (None, None)
    assert stack.shape == (9, 4, 7)
    np.testing.assert_array_equal(stack[0], np.pad(batches[0], ((0, 0), (0, 4))))
    for batch in stack:
        length = batch[0, 0]
        assert np.all(batch[:, :length] == length)
        assert np.all(batch[:, length:] == 0)
    assert {batch[0, 0] for batch in stack} == {3, 5, 6, 7}


@pytest.mark.one_backend
def test_memory_does_not_grow_with_the_data():
    def endless():
        for number in itertools.count():
            yield (np.full((2, 1), number, "float32"),)

    x, batches = inner_batches(endless(), None, None, 32, 3, generator())
    assert inspect.isgenerator(x)
    for (batch,) in itertools.islice(x, KEPT + 100):
        stack = batches.stack((batch, None, None))[0]
    assert len(batches._kept) == KEPT
    assert stack.min() >= 100
    assert not isinstance(batches, RandomRows)


# -- precision and errors ------------------------------------------------------------------------


# The other policies, of which the contract has one on each backend.
POLICY = {"tensorflow": "mixed_bfloat16", "jax": "mixed_float16"}[BACKEND]


@pytest.mark.large
def test_mixed_precision_learns(make, binary_data, float32_policy):
    keras.config.set_dtype_policy(POLICY)
    model = make(keras.optimizers.Adam(0.01), compile_args={"jit_compile": True})
    x = binary_data(16)
    before = values(model.trainable_variables)
    log = model.fit(x, batch_size=16, epochs=30, verbose=0).history
    assert log["loss"][-1] < log["loss"][0]
    assert all(moved(before, values(model.trainable_variables)))
    parts = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    assert count(parts.encoder_optimizer) > count(parts)


@pytest.mark.one_backend
@pytest.mark.parametrize("name", ["window", "max_inner_steps"])
@pytest.mark.parametrize("value", [0, 2.5])
def test_steps_are_counted_in_positive_integers(make, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive .*{name}={value}"):
        make(None, **{name: value})


@pytest.mark.one_backend
def test_optimizers_that_mix_the_steps_of_both_parts_are_refused(make):
    with pytest.raises(ValueError, match="`use_ema` must not be set.*use_ema=True"):
        make(keras.optimizers.Adam(use_ema=True))
    with pytest.raises(ValueError, match="`gradient_accumulation_steps` must not be set.*=4"):
        make(keras.optimizers.Adam(gradient_accumulation_steps=4))


@pytest.mark.one_backend
def test_several_devices_are_refused(make, binary_data, monkeypatch):
    model = make()
    monkeypatch.setattr(agg_vae, "num_devices", lambda model: 2)
    for call in (
        lambda: model.compile("sgd"),
        lambda: model.fit(binary_data(4)),
        lambda: model.train_on_batch(binary_data(4)),
    ):
        with pytest.raises(ValueError, match="`AggVAE` trains on one device only.*2 devices"):
            call()


@pytest.mark.one_backend
def test_a_phase_without_an_end_is_warned_of(make, binary_data):
    model = make(compile_args={"run_eagerly": True, "jit_compile": False}, max_inner_steps=1)
    with pytest.warns(UserWarning, match="will not end: give `fit` `validation_data`"):
        model.fit(binary_data(4), verbose=0)
    with pytest.raises(TypeError, match="`callbacks` must be .* Received: CallbackList"):
        model.fit(binary_data(4), callbacks=keras.callbacks.CallbackList())
