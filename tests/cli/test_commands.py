import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import matplotlib.image
import numpy as np
import pytest
from typer.testing import CliRunner

import vaezoo
from vaezoo.cli import grids
from vaezoo.cli.app import app
from vaezoo.cli.source import open_source
from vaezoo.losses import LinearSchedule
from vaezoo.runs import Run, RunSpec, settings
from vaezoo.runs import directory as runs
from vaezoo.runs.recorder import RunRecorder
from vaezoo.runs.spec import splits

PRESET = "du_vae_digits_mlp"
# Few examples, and the faster of the two ways to start: a second a run.
XLA = keras.backend.backend() == "jax"
TINY = ["--set", "networks.hidden_units=[16]", "--set", "networks.decoder.hidden_units=[16]"]
TINY += ["--limit", "128", "--xla" if XLA else "--no-xla", "--no-monitor"]
pytestmark = pytest.mark.one_backend


def cli(*args, code=0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if code is not None:
        assert result.exit_code == code, result.output
    return result


def error_of(*args, code=2):
    result = cli(*args, code=code)
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def train(directory, *args, code=0):
    return cli("train", PRESET, "--out", directory, *TINY, *args, code=code)


def json_of(directory, name="config.json"):
    return json.loads((directory / name).read_text())


def epochs_of(directory):
    lines = (directory / "history.jsonl").read_text().splitlines()
    return [json.loads(line)["epoch"] for line in lines]


def contents(directory):
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two epochs; tests leave it as it is."""
    directory = tmp_path_factory.mktemp("runs") / "du"
    result = train(directory, "--epochs", "2", "--set", "gamma=0.6", "--seed", "3")
    return directory, result


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to be changed."""
    directory = tmp_path / "copy"
    for name, content in contents(finished[0]).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


# -- train: what is written --------------------------------------------------------------------


def test_config_holds_every_setting_after_overrides(finished):
    config = json_of(finished[0])
    assert config["preset"] == PRESET
    assert config["model"] == "DUVAE"
    assert config["options"]["seed"] == 3
    assert config["options"]["precision"] == "float32"
    assert config["settings"]["model"] == {"latent_dim": 16, "gamma": 0.6, "keep_prob": 0.9}
    assert config["settings"]["networks"]["hidden_units"] == [16]
    assert config["settings"]["training"] == {"epochs": 2, "learning_rate": 0.001}
    assert config["settings"]["data"]["limit"] == 128
    assert config["command"].startswith("vaezoo")


def test_versions_name_backend_and_libraries(finished):
    versions = json_of(finished[0], "versions.json")
    assert versions["backend"] == keras.backend.backend()
    assert versions["keras"] == keras.__version__
    assert versions["vaezoo"] == vaezoo.__version__
    assert {"python", "numpy", "platform", versions["backend"]} <= versions.keys()


@pytest.mark.both_backends
def test_history_has_one_record_an_epoch(finished):
    lines = (finished[0] / "history.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["epoch"], second["epoch"]) == (1, 2)
    assert {"loss", "rate", "distortion", "val_loss", "seconds"} <= first.keys()
    assert second["val_distortion"] < first["val_distortion"]


def test_final_model_is_the_overridden_one_and_the_last_checkpoint(finished):
    model = keras.saving.load_model(finished[0] / "model.keras")
    gains = keras.ops.convert_to_numpy(model.head.mean_norm.gamma)
    np.testing.assert_allclose(np.sqrt(np.mean(gains**2)), 0.6, rtol=1e-5)
    last = keras.saving.load_model(finished[0] / "checkpoints" / "last.keras")
    assert int(model.optimizer.iterations) == 4
    x = vaezoo.data.load_arrays("digits", split="test[:8]")[0]
    np.testing.assert_array_equal(model.reconstruct(x), last.reconstruct(x))
    assert (finished[0] / "checkpoints" / "best.keras").is_file()


def test_tensorboard_events_are_written(finished):
    assert list((finished[0] / "tensorboard").rglob("events.out*"))


def test_summary_says_where_everything_is_and_what_comes_next(finished):
    directory, result = finished
    for text in ("model.keras", "best.keras", f"vaezoo sample {directory}", "tensorboard"):
        assert text in result.stdout


def recording(directory):
    """A recorder whose training has begun, and the callbacks that it stands among."""
    recorder = RunRecorder(directory, {"preset": PRESET})
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callbacks = keras.callbacks.CallbackList(recorder.around([]), model=model)
    callbacks.on_train_begin()
    return recorder, callbacks


def test_best_checkpoint_is_that_of_the_lowest_validation_loss(tmp_path):
    recorder, callbacks = recording(tmp_path / "run")
    for epoch, val_loss in enumerate([3.0, 1.0, 2.0]):
        recorder.model.layers[0].bias.assign([epoch])
        callbacks.on_epoch_begin(epoch)
        callbacks.on_epoch_end(epoch, {"loss": 5.0 - epoch, "val_loss": val_loss})

    def bias(name):
        model = keras.saving.load_model(tmp_path / "run" / "checkpoints" / name)
        return float(model.layers[0].bias[0])

    assert (bias("best.keras"), bias("last.keras")) == (1.0, 2.0)


def test_history_is_strict_json_and_a_diverged_epoch_leaves_the_checkpoint(tmp_path):
    recorder, callbacks = recording(tmp_path / "run")
    for epoch, loss in enumerate([1.0, float("nan")]):
        callbacks.on_epoch_begin(epoch)
        callbacks.on_epoch_end(epoch, {"loss": loss, "val_loss": float("inf")})
        if epoch == 0:
            before = (tmp_path / "run" / "checkpoints" / "last.keras").read_bytes()
    assert recorder.model.stop_training
    assert (tmp_path / "run" / "checkpoints" / "last.keras").read_bytes() == before
    first, second = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert json.loads(first)["loss"] == 1.0
    assert json.loads(first)["val_loss"] is None
    assert json.loads(second)["loss"] is None
    assert [record["epoch"] for record in runs.read_history(tmp_path / "run")] == [1]


def test_default_directories_never_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs.time, "strftime", lambda form: "now")
    first = runs.default_directory(PRESET)
    assert str(first) == os.path.join("runs", f"{PRESET}-now")
    first.mkdir(parents=True)
    assert runs.default_directory(PRESET).name == f"{PRESET}-now-2"


# -- train: refusals ---------------------------------------------------------------------------


def test_a_directory_with_a_run_is_refused_and_left_alone(finished):
    before = contents(finished[0])
    error = error_of("train", PRESET, "--out", finished[0], *TINY)
    assert "already holds another run" in error
    assert contents(finished[0]) == before


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_directory_with_anything_else_is_refused_and_left_alone(tmp_path, flags):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "holds no vaezoo run" in error_of("train", PRESET, "--out", tmp_path, *TINY, *flags)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


@pytest.mark.large
def test_overwrite_replaces_the_run_but_not_what_others_put_there(copied):
    (copied / "notes.txt").write_text("mine")
    train(copied, "--epochs", "1", "--overwrite")
    assert epochs_of(copied) == [1]
    assert json_of(copied)["settings"]["model"]["gamma"] == 0.5
    assert (copied / "notes.txt").read_text() == "mine"


def test_a_start_that_fails_leaves_no_directory(tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.zeros((300, 8), "float32"))
    args = ["--data", tmp_path / "bad.npz", "--set", "data.value_range=(-1.0,1.0)"]
    error = error_of(
        "train", PRESET, "--out", tmp_path / "run", *TINY, *args, "--set", "data.binarize=none"
    )
    assert "must lie in [0, 1]" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--set", "gama=0.6"], "did you mean gamma"),
        (["--set", "gamma"], "`--set` takes key=value"),
        (["--set", "optimizer.rate=1"], "`--set` takes key=value"),
        (["--set", "gamma=-1"], "Received: gamma=-1"),
        (["--set", "networks.units=[16]"], "Received: units=[16]"),
        (["--set", "data.binarze=fixed"], "did you mean binarize"),
        (["--set", "data.binarize=never"], "binarize='never'"),
        (["--set", "data.shuffle=maybe"], "`shuffle` must be True, False or None"),
        (["--set", "data.drop_remainder=maybe"], "`drop_remainder` must be True, False or None"),
        (["--set", "data.in_memory=maybe"], "`in_memory` must be True, False or None"),
        (["--set", "data.invert=maybe"], "`invert` must be True, False or None"),
        (["--set", "data.download=maybe"], "`download` must be True or False"),
        (["--set", "data.with_index=maybe"], "`with_index` must be True or False"),
        (["--set", "training.use_ema=maybe"], "`use_ema` must be True or False"),
        (["--set", "training.learning_rate=-1.0"], "`learning_rate` must be a number in (0, 1000]"),
        (["--set", "training.learning_rate=1e6"], "`learning_rate` must be a number in (0, 1000]"),
        (["--set", "training.learning_rate=nan"], "Received: learning_rate='nan'"),
        (["--set", "training.learning_rate=0"], "`learning_rate` must be a number in (0, 1000]"),
        (["--set", "training.epochs=0"], "`epochs` must be a positive integer"),
        (["--set", "training.epochs=-1"], "`epochs` must be a positive integer"),
        (["--set", "training.epochs=ten"], "`epochs` must be a positive integer"),
        (["--set", "training.optimizer=adan"], "`optimizer` must be one of"),
        (["--set", "training.lerning_rate=1"], "did you mean learning_rate"),
        (["--set", "training.ema_momentum=2"], "`ema_momentum` must be a number in [0, 1]"),
        (["--set", "training.plateau=5"], "`plateau` must be a dict of arguments"),
        (["--set", 'training.plateau={"patiense": 3}'], "did you mean patience"),
        (["--set", "training.validation=3"], "must be a split, 'auto' or 'none'"),
        (["--set", "training.speed=1"], "speed"),
        (["--set", "learning_rate=0.1"], "--set training.learning_rate=0.1"),
        (["--set", "beta=LinearSchedule(steps=0)"], "steps=0"),
        (["--set", "beta=LinearSchedule(pace=1)"], "pace"),
        (["--set", "networks.input_shape=(9,9,1)"], "must be the shape of the data"),
        (["--data", "digit"], "digits"),
        (["--data", "missing.npz"], "missing.npz"),
        (["--validation", "holdout"], "holdout"),
        (["--resume"], "holds no vaezoo run"),
        (["--resume", "--overwrite"], "exclude each other"),
    ],
)
def test_wrong_input_is_a_clean_error(tmp_path, args, message):
    assert message in error_of("train", PRESET, "--out", tmp_path / "run", *args)
    assert not (tmp_path / "run").exists()


def test_an_unknown_preset_is_answered_by_the_nearest_names():
    assert "du_vae_digits_mlp" in error_of("train", "du_vae_digit_mlp")
    assert "du_vae_digits_mlp" in error_of("list", "du_vae_digit_mlp")


def test_resume_needs_a_directory():
    assert "`--resume` needs `--out`" in error_of("train", PRESET, "--resume")


def test_debug_shows_the_traceback():
    result = cli("--debug", "train", "unknown", code=1)
    assert isinstance(result.exception, ValueError)


# -- train: resuming ---------------------------------------------------------------------------


@pytest.mark.large
@pytest.mark.both_backends
def test_resume_continues_with_the_settings_of_the_run(finished, copied):
    before = (copied / "history.jsonl").read_text()
    cli("train", PRESET, "--out", copied, "--resume", "--epochs", "3")
    assert epochs_of(copied) == [1, 2, 3]
    assert (copied / "history.jsonl").read_text().startswith(before)
    config = json_of(copied)
    assert config["settings"]["model"]["gamma"] == 0.6
    assert config["settings"]["networks"]["hidden_units"] == [16]
    assert config["settings"]["training"]["epochs"] == 3
    assert config["options"]["xla"] is XLA
    assert config["options"]["monitor"] is False
    assert config["command"] == json_of(finished[0])["command"]
    (resumed,) = config["resumed"]
    assert resumed["epoch"] == 2
    assert resumed["versions"] == json_of(copied, "versions.json")
    # Two steps an epoch: the optimizer goes on counting.
    assert int(keras.saving.load_model(copied / "model.keras").optimizer.iterations) == 6


@pytest.mark.parametrize(
    ("preset", "args", "difference"),
    [
        (PRESET, ["--set", "gamma=0.7"], "its model.gamma is 0.6"),
        (PRESET, ["--seed", "4"], "its seed is 3"),
        (PRESET, ["--precision", "mixed_bfloat16"], "its precision is float32"),
        ("vae_digits_mlp", [], f"its preset is {PRESET}"),
    ],
)
def test_resume_refuses_another_run(finished, preset, args, difference):
    before = contents(finished[0])
    error = error_of("train", preset, "--out", finished[0], "--resume", "--epochs", "3", *args)
    assert "already holds another run" in error
    assert difference in error
    assert contents(finished[0]) == before


def test_resume_of_a_finished_run_says_so(finished):
    error = error_of("train", PRESET, "--out", finished[0], "--resume", "--set", "gamma=0.6")
    assert "has all of its 2 epochs" in error


def test_resume_writes_the_model_that_a_kill_prevented(copied):
    (copied / "model.keras").unlink()
    cli("train", PRESET, "--out", copied, "--resume")
    assert epochs_of(copied) == [1, 2]
    iterations = keras.saving.load_model(copied / "model.keras").optimizer.iterations
    assert int(iterations) == 4


@pytest.mark.large
def test_a_run_that_diverges_says_so(tmp_path):
    rate = ["--set", "training.learning_rate=1000", "--epochs", "9"]
    result = train(tmp_path / "run", *rate, code=1)
    assert "Training has diverged: val_bound is" in result.stderr
    assert "best.keras is the best model" in result.stderr
    assert len(epochs_of(tmp_path / "run")) == 9


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_resume(tmp_path, monkeypatch):
    directory = tmp_path / "run"

    def interrupt(self, epoch, logs=None):
        self._started = 0.0
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunRecorder, "on_epoch_begin", interrupt)
        result = train(directory, "--epochs", "2", code=130)
    assert "Interrupted after 1 of 2 epochs" in result.stderr
    keras.saving.load_model(directory / "checkpoints" / "last.keras")
    assert not (directory / "model.keras").exists()

    # The very command of the message.
    command = shlex.split(result.stderr.split("To continue: ")[1])
    cli(*command[1:])
    assert epochs_of(directory) == [1, 2]
    assert (directory / "model.keras").is_file()


# -- train: data -------------------------------------------------------------------------------


@pytest.mark.large
def test_networks_are_built_for_the_data(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "tall.npz", x=rng.integers(0, 256, (240, 6, 5), "uint8"))
    run = tmp_path / "run"
    train(run, "--epochs", "1", "--data", tmp_path / "tall.npz", "--set", "data.batch_size=50")
    assert json_of(run)["settings"]["networks"]["input_shape"] == [6, 5, 1]
    assert json_of(run)["settings"]["data"]["name_or_path"] == str(tmp_path / "tall.npz")
    # 128 of the 220 that are left when a twelfth is held out: 2 whole batches.
    model = keras.saving.load_model(run / "model.keras")
    assert int(model.optimizer.iterations) == 2
    assert model.generate(2, seed=0).shape == (2, 6, 5, 1)


def test_networks_that_do_not_fit_the_data_are_a_clean_error(tmp_path):
    args = ["--data", "digits", "--set", "data.image_size=6", "--out", tmp_path / "run"]
    error = error_of("train", "mu_vae_mnist_cnn", *args)
    assert "multiples of 4; the 'conv' networks take any size" in error
    assert not (tmp_path / "run").exists()


def test_networks_of_another_kind_do_not_inherit_options():
    spec = RunSpec("vae_digits_mlp", networks={"kind": "mu_vae"})
    assert spec.resolve().networks == {"kind": "mu_vae", "input_shape": (8, 8, 1)}
    assert Run.create(None, spec).model().encoder.output_shape[0] is None


@pytest.mark.large
def test_the_latent_code_is_watched_in_the_folder_of_the_run(tmp_path):
    pytest.importorskip("tensorflow", reason="event files are written through TensorFlow")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "run", "--monitor", "--epochs", "1")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert {"latent/active_units", "reconstructions"} <= set(events.Tags()["tensors"])


def test_validation_data_are_held_out_of_the_training_data(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(120, dtype="uint8").repeat(4).reshape(120, 2, 2))
    spec = vaezoo.data.DataSpec(str(tmp_path / "x.npy"), batch_size=10)
    seen = [
        {
            int(255 * value + 0.5)
            for x in vaezoo.data.load(part)
            for value in np.array(x)[:, 0, 0, 0]
        }
        for part in splits(spec, "auto")
    ]
    assert not seen[0] & seen[1]
    assert len(seen[0]) == 110
    assert len(seen[1]) == 10


@pytest.mark.large
def test_examples_are_counted_where_a_model_tells_them_apart(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(120, dtype="uint8").repeat(4).reshape(120, 2, 2))
    options = [*TINY, "--data", tmp_path / "x.npy", "--epochs", "1", "--batch-size", "10"]
    options += ["--set", "hidden_units=[8]"]
    cli("train", "vae_as_digits_mlp", "--out", tmp_path / "run", *options)
    # A twelfth is held out.
    assert json_of(tmp_path / "run")["settings"]["model"]["num_examples"] == 110
    (record,) = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert {"mutual_information", "val_loss"} <= set(json.loads(record))
    cli("train", "vae_as_digits_mlp", "--out", tmp_path / "run", "--resume", "--epochs", "2")
    assert epochs_of(tmp_path / "run") == [1, 2]


def test_digits_keep_their_own_splits_and_validation_has_one_draw():
    spec = vaezoo.data.DataSpec("digits", binarize="dynamic", with_index=True)
    train_spec, validation = splits(spec, "auto")
    assert train_spec == spec
    assert validation.binarize == "fixed"
    assert validation.split == "validation"
    assert not validation.with_index
    assert splits(spec, "none") == (spec, None)


@pytest.mark.large
def test_presets_say_what_is_held_out_and_the_command_line_follows(tmp_path):
    known = vaezoo.zoo.presets()
    for name in ("mu_vae_mnist_cnn", "mu_vae_fashion_mnist_cnn", "hebae_mnist_mlp"):
        assert known[name][1]["training"]["validation"] == "none"
    run = tmp_path / "run"
    preset = ["--set", "training.validation=none", "--set", "training.optimizer=sgd"]
    preset += ["--set", "training.global_clipnorm=1", "--set", "training.learning_rate=1"]
    train(run, "--epochs", "1", *preset)
    assert json_of(run)["options"]["validation"] == "none"
    # A number is a number, with or without a point.
    assert json_of(run)["settings"]["training"]["learning_rate"] == 1
    (record,) = map(json.loads, (run / "history.jsonl").read_text().splitlines())
    assert record["learning_rate"] == 1.0
    assert "val_loss" not in record
    train(tmp_path / "other", "--epochs", "1", *preset, "--validation", "auto")
    assert json_of(tmp_path / "other")["options"]["validation"] == "auto"


def test_without_validation_the_training_data_are_watched(tmp_path):
    pytest.importorskip("tensorflow", reason="event files are written through TensorFlow")
    from vaezoo.callbacks import LatentMonitor

    spec = RunSpec("vae_digits_mlp", data={"limit": 20, "batch_size": 10}, validation="none")
    _, monitor = Run.create(tmp_path / "run", spec).observers()
    assert isinstance(monitor, LatentMonitor)
    x, y = vaezoo.data.load_arrays("digits", "train", binarize="fixed", limit=20)
    np.testing.assert_array_equal(monitor.data, x)
    np.testing.assert_array_equal(monitor.labels, y)


@pytest.mark.large
@pytest.mark.both_backends
@pytest.mark.usefixtures("float32_policy")
def test_training_options(tmp_path):
    options = ["--precision", "mixed_bfloat16", "--steps-per-execution", "2"]
    train(tmp_path / "run", "--epochs", "1", "--validation", "none", *options)
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.encoder.layers[-1].dtype_policy.name == "mixed_bfloat16"
    assert model.steps_per_execution == 2
    (record,) = map(json.loads, (tmp_path / "run" / "history.jsonl").read_text().splitlines())
    assert "val_loss" not in record


# -- sample and export -------------------------------------------------------------------------


@pytest.mark.both_backends
def test_sample_writes_a_grid_of_the_models_images(finished, tmp_path):
    out = tmp_path / "grid.png"
    cli("sample", finished[0], "-n", "6", "--scale", "3", "--out", out, "--seed", "5")
    image = matplotlib.image.imread(out)
    # Three columns and two rows of 24 x 24 pixels, 2 apart.
    assert image.shape[:2] == (2 * 24 + 2, 3 * 24 + 2 * 2)
    model = keras.saving.load_model(finished[0] / "model.keras")
    fourth = model.generate(6, seed=5)[3, :, :, 0].repeat(3, 0).repeat(3, 1)
    np.testing.assert_allclose(image[26:50, :24, 0], fourth, atol=0.5 / 255 + 1e-6)


def test_sample_writes_arrays_and_overwrites_only_when_told(finished, tmp_path):
    out = tmp_path / "new" / "x.npz"
    cli("sample", finished[0] / "checkpoints" / "last.keras", "-n", "5", "--draw", "--out", out)
    with np.load(out) as arrays:
        assert arrays["x"].shape == (5, 8, 8, 1)
        assert set(np.unique(arrays["x"])) == {0.0, 1.0}
    before = out.read_bytes()
    assert "--overwrite" in error_of("sample", finished[0], "-n", "1", "--out", out)
    assert out.read_bytes() == before
    cli("sample", finished[0], "-n", "1", "--out", out, "--overwrite")
    with np.load(out) as arrays:
        assert len(arrays["x"]) == 1


def test_sample_goes_beside_the_model_by_default(copied):
    cli("sample", copied, "-n", "2")
    assert matplotlib.image.imread(copied / "samples.png").shape[:2] == (56, 2 * 56 + 2)


@pytest.mark.large
def test_export_loads_and_is_not_overwritten(finished, tmp_path):
    tf = pytest.importorskip("tensorflow")
    out = tmp_path / "served"
    cli("export", finished[0], out)
    signatures = tf.saved_model.load(str(out)).signatures
    x = vaezoo.data.load_arrays("digits", split="test[:3]")[0]
    model = keras.saving.load_model(finished[0] / "model.keras")
    served = signatures["encode"](x=tf.constant(x))["mean"]
    expected = keras.ops.convert_to_numpy(model.encode(x).mean)
    np.testing.assert_allclose(served, expected, atol=1e-5)
    before = contents(out)
    assert "never overwritten" in error_of("export", finished[0], out)
    assert contents(out) == before


@pytest.mark.parametrize("command", ["sample", "export"])
def test_what_is_no_model_is_a_clean_error(command, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.keras").write_text("no zip")
    (tmp_path / "model.h5").write_text("legacy")
    plain = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    plain.save(tmp_path / "plain.keras")
    unsafe = keras.Sequential([keras.Input((1,)), keras.layers.Lambda(lambda x: x)])
    unsafe.save(tmp_path / "unsafe.keras")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "saved_model.pb").touch()
    messages = {
        "missing": "No run directory or model file",
        "empty": "holds no model",
        "served": "is an exported SavedModel",
        "text.keras": "is not a .keras file",
        "model.h5": "is not a .keras file",
        "plain.keras": "is not a model of vaezoo. Received: Sequential",
        "unsafe.keras": "cannot be loaded",
    }
    out = tmp_path / "out.npz"
    for name, message in messages.items():
        rest = [out] if command == "export" else ["--out", out]
        assert message in error_of(command, tmp_path / name, *rest)
    assert not out.exists()


def test_a_run_without_a_final_model_is_served_by_its_last_checkpoint(copied):
    (copied / "model.keras").unlink()
    assert runs.find_model(copied) == copied / "checkpoints" / "last.keras"
    assert runs.run_of(copied / "checkpoints" / "last.keras")["preset"] == PRESET


def test_grid_maps_the_value_range_to_black_and_white():
    images = np.array([-1.0, 0.0, 1.0, 5.0], "float32").reshape(4, 1, 1, 1)
    sheet = grids.grid(images, value_range=(-1.0, 1.0))
    assert sheet.shape == (4, 4, 3)
    assert sheet[0, 0].tolist() == [0, 0, 0]
    assert sheet[0, 3].tolist() == [128, 128, 128]
    assert sheet[3, 0].tolist() == sheet[3, 3].tolist() == [255, 255, 255]
    with pytest.raises(ValueError, match="1 or 3 channels"):
        grids.grid(np.zeros((2, 8), "float32"))


# -- list, help, settings ----------------------------------------------------------------------


def test_list_shows_every_preset_with_its_model_data_and_source():
    lines = cli("list").stdout.splitlines()
    for name, (_, preset) in vaezoo.zoo.presets().items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert preset["data"]["name_or_path"] in line
        assert preset["networks"]["kind"] in line
    row = next(line for line in lines if line.startswith("du_vae_mnist_mlp"))
    assert row.split()[:5] == ["du_vae_mnist_mlp", "DUVAE", "32", "mnist", "mlp"]
    assert "settings of ours: DU-VAE's gain" in row
    row = next(line for line in lines if line.startswith("du_vae_omniglot "))
    assert "Shen et al. (2021)" in row


def test_list_of_a_preset_shows_what_set_accepts():
    text = cli("list", PRESET).stdout
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert rows["gamma"].split()[:3] == ["gamma", "0.5", "0.5"]
    assert "the gain" in rows["gamma"]
    assert "Name or `Likelihood`" in rows["likelihood"]
    assert rows["networks.hidden_units"].split() == ["networks.hidden_units", "(256,", "256)"]
    assert rows["data.binarize"].split() == ["data.binarize", "dynamic"]
    assert "arXiv:2110.12381" in text
    # A reference of several lines is whole, and there need not be one.
    shown = " ".join(cli("list", "text_vae_text_tiny").stdout.split())
    assert "the papers' corpora have that code's U(-0.01, 0.01)." in shown
    assert "Reference" not in cli("list", "ae_digits_mlp").stdout


@pytest.mark.large
def test_every_preset_can_be_shown():
    for name in vaezoo.zoo.presets():
        assert name in cli("list", name).stdout


def test_every_command_explains_itself_with_an_example():
    for command in ("list", "train", "sample", "export"):
        text = cli(command, "--help").stdout
        assert f"vaezoo {command}" in text.split("Example")[1]


@pytest.mark.both_backends
def test_version_names_the_backend():
    text = cli("--version").stdout
    assert text.startswith(f"vaezoo {vaezoo.__version__} (keras {keras.__version__}")
    assert keras.backend.backend() in text


@pytest.mark.slow  # It imports everything once more.
def test_module_can_be_run():
    done = subprocess.run(
        [sys.executable, "-m", "vaezoo", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    steps = [done.stdout.index(f"vaezoo {name}") for name in ("list", "train", "sample", "export")]
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.6", 0.6),
        ("[64, 64]", [64, 64]),
        ("fixed", "fixed"),
        ("true", True),
        ("None", None),
        ("a+b", "a+b"),
        ("__import__('os')", "__import__('os')"),
        ("open('x')", "open('x')"),
        ("f'{1}'", "f'{1}'"),
        ("[1, none]", [1, None]),
        ("tensorflow/x", "tensorflow/x"),
    ],
)
def test_values_are_literals_or_strings(text, value):
    assert settings.parse_value(text) == value
    assert type(settings.parse_value(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("LinearSchedule(steps=[].clear())", r"`\[\].clear` is no class"),
        ("GaussianHead(2, clip=open('x'))", "`open` is no class"),
        ("GaussianHead(2, clip=LatentClp(3.0))", "did you mean LatentClip"),
        ("GausianHead(2)", "did you mean GaussianHead"),
        ("LinearSchedule(**{})", r"`\*\*` is not read here"),
        ("LatentClip(x)", "`x` is neither a literal nor a class"),
        ("[LatentClip(x)]", "`x` is neither a literal nor a class"),
        ("LatentClip(3.0, pace=1)", "pace"),
    ],
)
def test_what_would_have_to_be_evaluated_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        settings.parse_value(text)


def test_objects_are_made_within_objects():
    head = settings.parse_value("GaussianHead(2, clip=LatentClip(2.0))")
    stored = json.loads(json.dumps(settings.to_json({"head": head, "places": [Path("a/b")]})))
    loaded = settings.from_json(stored)
    assert isinstance(loaded["head"], vaezoo.layers.GaussianHead)
    assert loaded["head"].clip.factor == 2.0
    assert "clip=LatentClip(factor=2.0)" in settings.as_text(head)
    assert loaded["places"] == [os.path.join("a", "b")]


@pytest.mark.large
def test_a_head_of_ones_own_is_trained_and_resumed(tmp_path):
    head = ["--set", "head=GaussianHead(2, clip=LatentClip(3.0))"]
    command = ["train", "vae_digits_mlp", "--out", tmp_path / "run", *TINY, *head]
    cli(*command, "--epochs", "1")
    cli(*command, "--epochs", "2", "--resume")
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.head.clip.factor == 3.0
    assert model.latent_dim == 2


def test_objects_are_made_by_name_and_survive_json():
    schedule = settings.parse_value("LinearSchedule(1000, stop=0.5)")
    stored = json.loads(json.dumps(settings.to_json({"beta": schedule, "units": (3, 4)})))
    loaded = settings.from_json(stored)
    assert isinstance(loaded["beta"], LinearSchedule)
    assert (loaded["beta"].steps, loaded["beta"].stop) == (1000, 0.5)
    assert loaded["units"] == [3, 4]
    assert settings.as_text(schedule) == "LinearSchedule(steps=1000, stop=0.5)"


def test_settings_of_every_preset_survive_json():
    for _, preset in vaezoo.zoo.presets().values():
        for section in settings.SECTIONS:
            loaded = settings.from_json(json.loads(json.dumps(settings.to_json(preset[section]))))
            assert loaded.keys() == preset[section].keys()
            for key, value in preset[section].items():
                assert settings.to_json(loaded[key]) == settings.to_json(value)
                if hasattr(value, "get_config"):
                    assert type(loaded[key]) is type(value)
                    assert settings.as_text(loaded[key]) == settings.as_text(value)


@pytest.mark.one_backend
def test_settings_of_every_preset_are_shown_as_they_are_typed():
    for _, preset in vaezoo.zoo.presets().values():
        for section in settings.SECTIONS:
            for value in preset[section].values():
                text = settings.as_text(value)
                assert "object at" not in text
                typed = settings.parse_value(text)
                if hasattr(value, "get_config"):
                    # Keras numbers the names of layers.
                    assert type(typed) is type(value)
                    assert settings.as_text(typed) == text
                else:
                    wanted = None if value == "none" else value
                    assert settings.to_json(typed) == settings.to_json(wanted)


@pytest.mark.one_backend
def test_objects_within_dicts_are_shown_as_they_are_typed():
    uniform = keras.initializers.RandomUniform(-0.01, 0.01)
    head = {"use_bias": False, "kernel_initializer": uniform, "sizes": (1,), "names": ["a"]}
    text = settings.as_text(head)
    assert text == (
        "{'use_bias': False, 'kernel_initializer': RandomUniform(minval=-0.01, maxval=0.01), "
        "'sizes': (1,), 'names': ['a']}"
    )
    assert settings.to_json(settings.parse_value(text)) == settings.to_json(head)


# -- evaluate and diagnose ---------------------------------------------------------------------


@pytest.mark.large
@pytest.mark.both_backends
def test_evaluate_writes_what_it_shows(copied):
    result = cli("evaluate", copied, "-k", 5, "--limit", 60, "--seed", 2)
    read = json_of(copied, "evaluation.json")
    nll = read["results"]["negative_log_likelihood"]
    assert nll["settings"]["num_samples"] == 5
    assert nll["count"] == 60
    assert f"{nll['value']:.4g}" in result.output
    assert read["provenance"]["seed"] == 2
    assert "digits[test], 60 examples, binarized" in read["provenance"]["source"]
    assert "evaluation.json' exists: replace it with --overwrite" in error_of("evaluate", copied)
    # Gray levels are other data.
    cli("evaluate", copied, "-m", "active_units", "--limit", 60, "--gray", "--overwrite")
    again = json_of(copied, "evaluation.json")
    assert set(again["results"]) == {"active_units"}
    assert again["provenance"]["data"]["sha256"] != read["provenance"]["data"]["sha256"]


def test_evaluate_probes_learn_from_the_training_split(copied, tmp_path):
    out = tmp_path / "probes.json"
    cli("evaluate", copied, "-m", "knn_probe", "-m", "linear_probe", "--limit", 60, "--out", out)
    assert set(json_of(tmp_path, "probes.json")["results"]) == {"knn_probe", "linear_probe"}


def test_evaluate_refuses_what_it_does_not_know(copied, tmp_path):
    assert "`metrics` must be among" in error_of("evaluate", copied, "-m", "beauty")
    assert not (copied / "evaluation.json").exists()
    assert "No run directory or model file" in error_of("evaluate", tmp_path / "none")
    alone = tmp_path / "alone.keras"
    alone.write_bytes((copied / "model.keras").read_bytes())
    assert "`--data` must be given" in error_of("evaluate", alone)


@pytest.mark.large
def test_diagnose_writes_a_page_and_its_numbers(copied):
    result = cli("diagnose", copied, "--limit", 200)
    read = json_of(copied, "diagnosis.json")
    assert f"[{read['verdict']}]" in result.output
    assert read["settings"]["examples"] == 200
    page = (copied / "diagnosis.html").read_text()
    assert read["title"] in page
    assert "<script src" not in page
    assert "diagnosis.html' exists: replace it with --overwrite" in error_of("diagnose", copied)


@pytest.mark.slow
def test_diagnose_reads_a_saved_model(copied, tmp_path):
    pytest.importorskip("tensorflow")
    served, out = tmp_path / "served", tmp_path / "served.html"
    cli("export", copied, served)
    cli("diagnose", served, "--data", "digits", "--binarize", "--limit", 200, "--out", out)
    cli("diagnose", copied, "--limit", 200, "--out", tmp_path / "model.html")
    measured = [json_of(tmp_path, f"{name}.json")["measurements"] for name in ("served", "model")]
    for name in ("rate", "conditional_entropy", "mutual_posterior_divergence"):
        # In closed form; a verdict on a model of two epochs may fall to either side.
        assert measured[0][name]["value"] == pytest.approx(measured[1][name]["value"], rel=1e-3)


# -- text --------------------------------------------------------------------------------------

TEXT = "text_vae_text_tiny"
TINY_TEXT = ["--set", "networks.units=8", "--set", "networks.embedding_dim=6"]
TINY_TEXT += ["--set", "latent_dim=3", "--xla" if XLA else "--no-xla", "--no-monitor"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder of labeled sentences."""
    folder = tmp_path_factory.mktemp("data") / "reviews"
    folder.mkdir()
    for split, count in (("train", 40), ("valid", 8), ("test", 8)):
        words = [["good", "fine", "tasty"] if i % 2 else ["bad", "cold"] for i in range(count)]
        lines = [f"{i % 2}\t{' '.join(words[i][: 1 + i % 3])} !\n" for i in range(count)]
        (folder / f"{split}.txt").write_text("".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def text_run(corpus, tmp_path_factory):
    """A finished run on text; tests leave it as it is."""
    directory = tmp_path_factory.mktemp("runs") / "text"
    cli("train", TEXT, "--data", corpus, "--out", directory, "--epochs", 1, *TINY_TEXT)
    return directory


@pytest.fixture
def copied_text_run(text_run, tmp_path):
    return shutil.copytree(text_run, tmp_path / "copy")


def test_a_run_on_text_keeps_its_vocabulary(text_run, corpus):
    vocabulary = vaezoo.data.Vocabulary.load(text_run / "vocabulary.txt")
    config = json_of(text_run)
    max_size = config["settings"]["data"].get("max_size")
    assert vocabulary == vaezoo.data.Vocabulary.build(corpus / "train.txt", max_size=max_size)
    assert config["settings"]["networks"]["vocabulary_size"] == len(vocabulary) == 10
    assert config["settings"]["data"]["name_or_path"] == str(corpus)
    assert "vocabulary" not in config["settings"]["data"]
    assert "val_loss" in json.loads((text_run / "history.jsonl").read_text())


@pytest.mark.large
def test_evaluate_of_text_reports_the_perplexity(copied_text_run):
    result = cli("evaluate", copied_text_run, "-k", 2, "-m", "negative_log_likelihood")
    assert "perplexity" in result.stdout
    results = json_of(copied_text_run, "evaluation.json")["results"]
    # A word or more, "!" and the end of each of the 8 sentences.
    lengths = [1 + min(i % 3, 2 if i % 2 else 1) + 2 for i in range(8)]
    assert results["perplexity"]["extra"]["num_tokens"] == sum(lengths)
    nll = results["negative_log_likelihood"]["value"] * 8 / sum(lengths)
    assert results["perplexity"]["value"] == pytest.approx(np.exp(nll))


@pytest.mark.filterwarnings("ignore:.*of the words of")
def test_other_text_is_read_by_the_vocabulary_of_the_run(text_run, tmp_path):
    (tmp_path / "own.txt").write_text("tasty bad unheard\nbad\n")
    model, x, y, *_ = open_source(text_run, str(tmp_path / "own.txt"), None, "train", None, None)
    vocabulary = vaezoo.data.Vocabulary.load(text_run / "vocabulary.txt")
    expected = vaezoo.data.to_ids(["tasty bad unheard", "bad"], vocabulary)
    np.testing.assert_array_equal(x, expected)
    assert y is None
    assert model.likelihood.vocabulary_size == len(vocabulary)


@pytest.mark.large
def test_another_vocabulary_is_refused(copied_text_run):
    path = copied_text_run / "vocabulary.txt"
    words = path.read_text().splitlines()
    path.write_text("\n".join([*words[:4], *reversed(words[4:])]))
    for command in (["evaluate", copied_text_run], ["diagnose", copied_text_run]):
        assert "is not the vocabulary that the run was trained with" in error_of(*command)
    resume = ["train", TEXT, "--out", copied_text_run, "--resume", "--epochs", 2]
    assert "is not the vocabulary that the run was trained with" in error_of(*resume)
    (copied_text_run / "config.json").unlink()
    path.write_text("\n".join([*words, "more"]))
    command = ["evaluate", copied_text_run / "model.keras", "--data", path.parent / "own.txt"]
    (copied_text_run / "own.txt").write_text("good\nbad\n")
    assert "it knows 10 ids. Received: 11" in error_of(*command)
    path.unlink()
    assert "needs vocabulary.txt beside it" in error_of(*command)


@pytest.mark.large
def test_resume_reads_text_as_before_whatever_the_files_are_now(copied_text_run, corpus):
    changed = shutil.copytree(corpus, copied_text_run.parent / "changed")
    (changed / "train.txt").write_text("1\tunheard good\n" * 40)
    config = json_of(copied_text_run)
    config["settings"]["data"]["name_or_path"] = str(changed)
    (copied_text_run / "config.json").write_text(json.dumps(config))
    before = (copied_text_run / "vocabulary.txt").read_bytes()
    cli("train", TEXT, "--out", copied_text_run, "--resume", "--epochs", 2)
    assert epochs_of(copied_text_run) == [1, 2]
    assert (copied_text_run / "vocabulary.txt").read_bytes() == before
    message = error_of(
        "train", TEXT, "--out", copied_text_run, "--resume", "--set", "data.min_count=7"
    )
    assert "its data.min_count is None" in message


@pytest.mark.parametrize(
    ("content", "args", "message"),
    [
        (b"", [], "' is empty: it must hold a sentence a line"),
        (b"fine\n\n", [], "line 2 has an empty sentence"),
        (b"fine\ncaf\xe9\n", [], "line 2 is not UTF-8"),
        (b"fine\na b c\n", ["data.max_length=4"], "line 2 has 5 ids, start and end included"),
        (b"0\tfine\n2\tgood\n", ["data.num_classes=2"], "line 2: a label must be at least 0 and"),
        (b"fine\n", ["data.vocabulary={words}"], "own.txt"),
        (b"fine\n", ["data.binarize=dynamic"], "`binarize` is of images"),
        (b"fine\n", ["networks.vocabulary_size=9"], "networks.vocabulary_size must be that of"),
    ],
)
def test_text_that_cannot_be_read_is_a_clean_error(tmp_path, content, args, message):
    (tmp_path / "own.txt").write_bytes(content)
    vaezoo.data.Vocabulary(["other"]).save(tmp_path / "words.txt")
    sets = [part.format(words=tmp_path / "words.txt") for arg in args for part in ("--set", arg)]
    error = error_of(
        "train", TEXT, "--data", tmp_path / "own.txt", "--out", tmp_path / "run", *TINY_TEXT, *sets
    )
    assert message in error
    assert not (tmp_path / "run").exists()


def test_images_and_text_are_told_apart(text_run, finished, corpus, tmp_path):
    assert "is trained on images, and" in error_of("train", PRESET, "--data", corpus)
    assert "is trained on text: give --data PATH" in error_of("train", TEXT)
    assert "is trained on text: give --data PATH" in error_of("train", TEXT, "--data", "digits")
    out = ["--out", tmp_path / "found.json"]
    assert "is a model of images" in error_of("evaluate", finished[0], "--data", corpus, *out)
    assert "is a model of text" in error_of("evaluate", text_run, "--data", "digits", *out)
    assert "`binarize` is of images" in error_of("evaluate", text_run, "--binarize", *out)


def test_texts_are_monitored_as_text(text_run, corpus, tmp_path):
    pytest.importorskip("tensorflow")
    run = Run.open(
        shutil.copytree(text_run, tmp_path / "run"), monitor=True, training={"epochs": 2}
    )
    monitor = run.observers()[1]
    assert monitor.to_text(monitor.data[:2]) == ["bad !", "good fine !"]


@pytest.mark.large
def test_sentences_are_sampled_with_the_options_of_generate(text_run, tmp_path):
    vocabulary = vaezoo.data.Vocabulary.load(text_run / "vocabulary.txt")
    model = keras.saving.load_model(text_run / "model.keras")
    options = ["-n", "5", "--seed", "2", "--temperature", "0.7", "--top-k", "4", "--top-p", "0.9"]
    x = model.generate(5, seed=2, temperature=0.7, top_k=4, top_p=0.9)
    expected = vaezoo.data.to_text(x, vocabulary)
    # A sentence may have no words.
    assert cli("sample", text_run, *options).stdout.split("\n")[:-1] == expected
    cli("sample", text_run, *options, "--out", tmp_path / "x.txt")
    assert (tmp_path / "x.txt").read_text().split("\n")[:-1] == expected
    cli("sample", text_run, *options, "--out", tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as arrays:
        np.testing.assert_array_equal(arrays["x"], x)
    error = error_of("sample", text_run, "--out", tmp_path / "x.png")
    assert "must end in .txt or .npz" in error
    assert "`temperature` must be a finite, positive number" in error_of(
        "sample", text_run, "--temperature", "0"
    )


def test_images_have_no_options_of_words(finished, tmp_path):
    out = ["--draw", "--out", tmp_path / "x.npz"]
    assert "needs a likelihood of classes" in error_of("sample", finished[0], "--top-k", "3", *out)
    assert "is a model of images" in error_of("reconstruct", finished[0], "good")


@pytest.mark.large
def test_sentences_are_reconstructed_and_interpolated(text_run):
    vocabulary = vaezoo.data.Vocabulary.load(text_run / "vocabulary.txt")
    model = keras.saving.load_model(text_run / "model.keras")
    given = ["good fine !", "bad !"]
    x = vaezoo.data.to_ids(given, vocabulary)
    lines = cli("reconstruct", text_run, *given).stdout.split("\n")[:-1]
    assert lines == vaezoo.data.to_text(model.reconstruct(x), vocabulary)
    lines = cli("reconstruct", text_run, *given, "--beam", "3").stdout.split("\n")[:-1]
    codes = model.encode(x, 2).mean
    assert lines == vaezoo.data.to_text(model.decode(codes, 2, beam_size=3), vocabulary)
    lines = cli("interpolate", text_run, *given, "--steps", "3").stdout.split("\n")[:-1]
    (expected,) = model.interpolate(x[:1], x[1:], steps=3)
    assert lines == vaezoo.data.to_text(expected, vocabulary)


@pytest.mark.slow
def test_export_of_text_carries_its_words(copied_text_run, tmp_path):
    pytest.importorskip("tensorflow")
    cli("export", copied_text_run, tmp_path / "served", "--beam", "2")
    extra = tmp_path / "served" / "assets.extra"
    words = (copied_text_run / "vocabulary.txt").read_bytes()
    assert (extra / "vocabulary.txt").read_bytes() == words
    assert "decode_beam" in json_of(extra, "vaezoo.json")["signatures"]
    (copied_text_run / "vocabulary.txt").unlink()
    message = error_of("export", copied_text_run, tmp_path / "other")
    assert "needs vocabulary.txt beside it" in message
    assert message == error_of("sample", copied_text_run)
