"""What users and machines do to the command line: each is one clear sentence, and loses nothing."""

import contextlib
import errno
import json
import os
import shutil
import signal
import time
import zipfile

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from vaezoo import zoo
from vaezoo.cli import grids
from vaezoo.cli.app import app
from vaezoo.core.files import Unwritable, check_writable, written
from vaezoo.runs import directory as runs
from vaezoo.runs.recorder import RunRecorder
from vaezoo.zoo.vae.scale import NonFiniteGuard

PRESET = "vae_digits_mlp"
XLA = keras.backend.backend() == "jax"
TINY = ["--set", "networks.hidden_units=[8]", "--set", "networks.decoder.hidden_units=[8]"]
TINY += ["--set", "latent_dim=2", "--limit", "64", "--xla" if XLA else "--no-xla", "--no-monitor"]
pytestmark = pytest.mark.one_backend


def cli(*args, code=0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result


def error_of(*args, code=2):
    result = cli(*args, code=code)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Warning: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def train(directory, *args, code=0):
    return cli("train", PRESET, "--out", directory, *TINY, *args, code=code)


def history_of(directory):
    return list(map(json.loads, (directory / "history.jsonl").read_text().splitlines()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one epoch, in a folder whose name looks like markup."""
    directory = tmp_path_factory.mktemp("runs") / "a[" / "x]"
    result = train(directory, "--epochs", "1", "--data-dir", tmp_path_factory.mktemp("data"))
    return directory, result


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "copy")


# -- names that look like markup -----------------------------------------------------------------


@pytest.mark.large
def test_paths_that_look_like_markup_are_printed_as_they_are(finished):
    directory, result = finished
    assert "a[/x]" in str(directory)
    assert f"Run: {directory}" in result.stdout
    assert str(directory / "model.keras") in result.stdout
    assert str(directory / "samples.png") in cli("sample", directory, "-n", "1").stdout
    command = ["evaluate", directory, "-m", "active_units", "--limit", "20"]
    assert str(directory / "evaluation.json") in cli(*command).stdout
    assert str(directory / "diagnosis.html") in cli("diagnose", directory, "--limit", "50").stdout


def test_names_that_look_like_markup_are_printed_as_they_are():
    from vaezoo.cli.console import open_console
    from vaezoo.metrics.evaluate import Evaluation

    console = open_console()
    with console.capture() as capture:
        console.print("a[/x] [bold]b")
        console.print(Evaluation({}, {"c[/y]": "no [red]reason[/]"}, {}).table())
    for text in ("a[/x] [bold]b", "c[/y]", "no [red]reason[/]"):
        assert text in capture.get()
    assert "c[/y]" in str(Evaluation({}, {"c[/y]": "no"}, {}))
    assert "vae_digits_mlp[/x]" in error_of("list", "vae_digits_mlp[/x]")


# -- a start that fails --------------------------------------------------------------------------


def test_a_data_dir_is_kept_as_text(finished):
    config = json.loads((finished[0] / "config.json").read_text())
    assert os.path.isdir(config["settings"]["data"]["data_dir"])


@pytest.mark.parametrize("there", [False, True])
def test_a_failure_before_the_first_epoch_leaves_nothing_in_the_way(tmp_path, monkeypatch, there):
    run = tmp_path / "new" / "run"
    if there:
        run.mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(zoo.VAE, "train_step", None)
        patched.setattr(
            RunRecorder,
            "begin",
            lambda self: (_ for _ in ()).throw(ValueError("no batch")),
        )
        assert "no batch" in error_of("train", PRESET, "--out", run, *TINY)
    assert (list(tmp_path.iterdir()) == [tmp_path / "new"]) is there
    assert not there or (run.is_dir() and not list(run.iterdir()))


@pytest.mark.large
def test_a_failure_later_leaves_the_run(tmp_path, monkeypatch):
    run = tmp_path / "run"
    begin = RunRecorder.begin

    def fail(self):
        if self.history:
            raise ValueError("no batch")
        begin(self)

    with monkeypatch.context() as patched:
        patched.setattr(RunRecorder, "begin", fail)
        assert "no batch" in error_of("train", PRESET, "--out", run, *TINY, "--epochs", "2")
    cli("train", PRESET, "--out", run, "--resume")
    assert [record["epoch"] for record in history_of(run)] == [1, 2]


# -- what only the command line may ask for ------------------------------------------------------


@pytest.mark.parametrize("command", ["evaluate", "diagnose", "train"])
def test_the_file_of_a_run_never_makes_folders_or_downloads(copied, tmp_path, command, monkeypatch):
    path, asked = copied / "config.json", []
    config = json.loads(path.read_text())
    data = config["settings"]["data"]
    data.update(name_or_path="mnist", download=True, data_dir=str(tmp_path / "made"))
    path.write_text(json.dumps(config))

    def open_tfds(name, data_dir, download, label):
        asked.append((data_dir, download))
        raise FileNotFoundError("'mnist' is not prepared")

    monkeypatch.setattr("vaezoo.data.sources.open_tfds", open_tfds)
    args = (
        [PRESET, "--out", copied, "--resume", "--epochs", "2"] if command == "train" else [copied]
    )
    error = error_of(command, *args)
    assert "'mnist' is not prepared (the run was started with" in error
    assert f"--data-dir {tmp_path / 'made'}" in error
    assert set(asked) == {(None, False)}
    assert not (tmp_path / "made").exists()
    asked.clear()
    error_of(command, *args, "--data-dir", tmp_path)
    assert {str(folder) for folder, _ in asked} == {str(tmp_path)}


# -- files of a run that are broken --------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it is no JSON"),
        ("", "it is no JSON"),
        (b"\xff\xfe", "it is no JSON"),
        ('{"preset": "vae_digits_mlp"}', "it has no 'settings'"),
        ('{"preset": "vae_digits_mlp", "settings": {}}', "its 'settings' have no 'model'"),
        ("no options", "it has no 'options'"),
        ("no seed", "its 'options' have no 'seed'"),
        ("data", "'data' of its 'settings' must be an object"),
    ],
)
def test_a_broken_configuration_is_one_sentence(copied, tmp_path, content, message):
    path = copied / "config.json"
    config = json.loads(path.read_text())
    if content == "no options":
        del config["options"]
    elif content == "no seed":
        del config["options"]["seed"]
    elif content == "data":
        config["settings"]["data"] = [1]
    if content in ("no options", "no seed", "data"):
        content = json.dumps(config)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for command in (
        ["train", PRESET, "--out", copied, "--resume"],
        ["train", PRESET, "--out", copied, "--overwrite"],
        ["sample", copied, "--out", tmp_path / "x.png"],
        ["evaluate", copied],
        ["diagnose", copied],
    ):
        assert message in error_of(*command)
    assert (copied / "checkpoints" / "last.keras").is_file()


def test_settings_that_are_no_objects_of_keras_are_one_sentence(copied):
    path = copied / "config.json"
    config = json.loads(path.read_text())
    config["settings"]["model"]["beta"] = {"class_name": "Nothing", "config": {}, "module": "x"}
    path.write_text(json.dumps(config))
    message = error_of("train", PRESET, "--out", copied, "--resume")
    assert "has settings that cannot be read" in message


@pytest.mark.parametrize("content", [b"", b"junk", "half"])
def test_a_broken_checkpoint_is_one_sentence(copied, tmp_path, content):
    file = copied / "checkpoints" / "last.keras"
    file.write_bytes(file.read_bytes()[:2000] if content == "half" else content)
    (copied / "model.keras").unlink()
    resume = ["train", PRESET, "--out", copied, "--resume", "--epochs", "2"]
    assert "last.keras' is broken, and the run cannot go on from it" in error_of(*resume)
    for command in (["sample"], ["evaluate"], ["diagnose"]):
        assert "last.keras' is not a .keras file, or is empty" in error_of(*command, copied)
    assert "is not a .keras file, or is empty" in error_of("export", copied, tmp_path / "served")
    file.unlink()
    assert "last.keras is missing. Start anew" in error_of(*resume)


def test_a_checkpoint_whose_weights_are_broken_is_one_sentence(copied):
    file = copied / "checkpoints" / "last.keras"
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["model.weights.h5"] = members["model.weights.h5"][:3000]
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    resume = ["train", PRESET, "--out", copied, "--resume", "--epochs", "2"]
    assert "last.keras' cannot be loaded" in error_of(*resume)


@pytest.mark.large
@pytest.mark.parametrize("content", ["{}\n", "junk\n{}\n", "[1]\n", '{"epoch": 2, "loss": 1}\n'])
def test_a_broken_history_is_written_anew_from_the_checkpoint(copied, content):
    before = history_of(copied)
    (copied / "history.jsonl").write_text(content)
    result = cli("train", PRESET, "--out", copied, "--resume", "--epochs", "2")
    assert "is not that of the last checkpoint, after epoch 1, and is written anew" in result.stderr
    assert history_of(copied)[0] == before[0]
    assert [record["epoch"] for record in history_of(copied)] == [1, 2]


@pytest.mark.large
def test_a_line_less_than_the_checkpoint_has_is_made_up_for(copied):
    # As a kill between the two leaves it.
    before = history_of(copied)
    (copied / "history.jsonl").write_text("")
    result = cli("train", PRESET, "--out", copied, "--resume", "--epochs", "2")
    assert "Warning" not in result.stderr
    assert history_of(copied)[0] == before[0]
    assert [record["epoch"] for record in history_of(copied)] == [1, 2]


@pytest.mark.large
def test_a_line_more_than_the_checkpoint_has_is_left_out(copied):
    with (copied / "history.jsonl").open("a") as file:
        file.write('{"epoch": 2, "loss": null}\n{"epo')
    result = cli("train", PRESET, "--out", copied, "--resume", "--epochs", "2")
    assert "Warning" not in result.stderr
    assert [record["loss"] is None for record in history_of(copied)] == [False, False]


@pytest.mark.large
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "so the run cannot be resumed"),
        ("{}\n", "line 1 is no record of epoch 1"),
        ("junk\n{}\n", "line 1 is no JSON"),
    ],
)
def test_a_checkpoint_of_before_has_its_history_alone(copied, content, message):
    file = copied / "checkpoints" / "last.keras"
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            if not name.startswith("vaezoo_run"):
                archive.writestr(name, data)
    resume = ["train", PRESET, "--out", copied, "--resume", "--epochs", "2"]
    history = (copied / "history.jsonl").read_text()
    (copied / "history.jsonl").write_text(content)
    assert message in error_of(*resume)
    (copied / "history.jsonl").write_text(history)
    cli(*resume)
    assert len(history_of(copied)) == 2


@pytest.mark.large
def test_a_run_without_a_checkpoint_begins_with_its_first_epoch(copied):
    shutil.rmtree(copied / "checkpoints")
    for name in ("model.keras", "history.jsonl"):
        (copied / name).unlink()
    cli("train", PRESET, "--out", copied, "--resume")
    assert [record["epoch"] for record in history_of(copied)] == [1]


@pytest.mark.parametrize("content", ["", "junk", "[1]"])
def test_a_broken_description_of_a_saved_model_is_one_sentence(tmp_path, content):
    pytest.importorskip("tensorflow")
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "assets.extra" / "vaezoo.json").write_text(content)
    for command in ("evaluate", "diagnose"):
        error = error_of(command, tmp_path, "--data", "digits", "--out", tmp_path / "x.json")
        assert "vaezoo.json' is broken: it is no JSON object" in error


# -- files that cannot be written ----------------------------------------------------------------


def test_what_cannot_be_written_is_said_before_the_work(finished, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "deeper"
    monkeypatch.setattr("vaezoo.metrics.evaluate", None)
    monkeypatch.setattr("vaezoo.metrics.diagnosis.diagnose", None)
    monkeypatch.setattr(zoo.VAE, "generate", None)
    monkeypatch.setattr(zoo.VAE, "export", None)
    for command in (
        ["evaluate", finished[0], "--out", inside / "x.json"],
        ["diagnose", finished[0], "--out", inside / "x.html"],
        ["sample", finished[0], "--out", inside / "x.png"],
        ["export", finished[0], inside / "served"],
        ["train", PRESET, *TINY, "--out", inside / "run"],
    ):
        assert "cannot be written: Not a directory" in error_of(*command)
    for command in ("evaluate", "diagnose"):
        assert "is a folder" in error_of(command, finished[0], "--out", tmp_path, "--overwrite")


def test_the_monitor_says_where_it_cannot_write(tmp_path):
    pytest.importorskip("tensorflow")
    from vaezoo.callbacks import LatentMonitor

    (tmp_path / "file").touch()
    monitor = LatentMonitor(np.zeros((4, 2), "float32"), log_dir=tmp_path / "file" / "logs")
    monitor._terms = lambda: None
    with pytest.raises(OSError, match="file/logs' cannot be written: Not a directory"):
        monitor.on_train_begin()


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.large
def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(zoo.VAE, "save", full)
        error = error_of("train", PRESET, "--out", run, *TINY)
    assert "last.keras' cannot be written: no space is left on the disk. Free some" in error
    assert not run.exists()

    begin = RunRecorder.begin

    def later(self):
        if self.history:
            patched.setattr(zoo.VAE, "save", full)
        begin(self)

    with monkeypatch.context() as patched:
        patched.setattr(RunRecorder, "begin", later)
        error = error_of("train", PRESET, "--out", run, *TINY, "--epochs", "2")
    assert "cannot be written: no space is left on the disk" in error
    assert f"To continue then: vaezoo train {PRESET} --out {run} --resume" in error
    assert not list(run.rglob("*partial*"))
    cli("train", PRESET, "--out", run, "--resume")
    assert [record["epoch"] for record in history_of(run)] == [1, 2]


def test_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "new" / "x.txt"

    def write(path):
        with written(path) as partial:
            partial.write_text("half")
            full()

    with pytest.raises(Unwritable, match="x.txt' cannot be written: no space"):
        write(path)
    assert list(tmp_path.rglob("*.txt")) == []
    with written(path) as partial:
        partial.write_text("whole")
    assert path.read_text() == "whole"
    check_writable(tmp_path / "a" / "b" / "c")
    assert not (tmp_path / "a").exists()
    with pytest.raises(Unwritable, match=r"x.txt/y' cannot be written: Not a directory"):
        check_writable(path / "y")


# -- signals -------------------------------------------------------------------------------------


@pytest.fixture
def heard():
    """Lets signals end the process as by default: a job of a shell's background ignores some."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.large
@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_ends_a_run_with_the_way_to_go_on(tmp_path, monkeypatch, name, code):
    run, begin = tmp_path / "run", RunRecorder.begin
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]

    def end(self):
        begin(self)
        if self.history:
            os.kill(os.getpid(), getattr(signal, name))

    with monkeypatch.context() as patched:
        patched.setattr(RunRecorder, "begin", end)
        result = train(run, "--epochs", "2", code=code)
    by = "" if name == "SIGINT" else f" by {name}"
    assert f"Interrupted{by} after 1 of 2 epochs" in result.stderr
    assert f"To continue: vaezoo train {PRESET} --out {run} --resume" in result.stderr
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)] == handlers


def test_a_signal_ends_other_commands_with_a_word(finished, tmp_path, monkeypatch):
    def end(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(zoo.VAE, "generate", end)
    result = cli("sample", finished[0], "--out", tmp_path / "x.png", code=143)
    assert result.stderr == "Ended by SIGTERM\n"


def test_a_signal_that_is_lost_comes_again(monkeypatch):
    from vaezoo.cli import signals as module

    monkeypatch.setattr(module, "AGAIN", 0.05)
    with module.noticed_signals():
        # As where the exception meets the clean-up of an object.
        with contextlib.suppress(module.Ended):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.0)
        with pytest.raises(module.Ended, match="SIGTERM"):
            time.sleep(10.0)


def test_an_error_of_the_backend_is_one_sentence(finished, tmp_path, monkeypatch):
    tf = pytest.importorskip("tensorflow")

    def fail(self, *args, **kwargs):
        message = "Graph execution error:\n\n<no trace>\nInvalid PNG data\n\t [[{{a}}]]"
        raise tf.errors.InvalidArgumentError(None, None, message)

    monkeypatch.setattr(zoo.VAE, "generate", fail)
    error = error_of("sample", finished[0], "--out", tmp_path / "x.npz")
    assert error == "Error: InvalidArgumentError: Invalid PNG data (--debug shows where)\n"


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
@pytest.mark.usefixtures("heard")
def test_a_signal_that_tensorflow_swallows_is_reported(finished, tmp_path, monkeypatch, name, code):
    def trace(self, *args, **kwargs):
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), getattr(signal, name))
        raise ValueError("None values not supported.")

    monkeypatch.setattr(zoo.VAE, "generate", trace)
    result = cli("sample", finished[0], "--out", tmp_path / "x.png", code=code)
    assert "None values" not in result.output
    assert ("Ended by SIGTERM" in result.stderr) is (name == "SIGTERM")


def test_a_signal_that_is_ignored_stays_ignored(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(RunRecorder, "claim", lambda self: os.kill(os.getpid(), signal.SIGHUP))
        cli("list")
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# -- losses that are lost ------------------------------------------------------------------------


def test_a_divergence_is_told_by_the_bounds():
    def run(*bounds):
        history = [
            {"epoch": i + 1, "loss": 1.0, "val_distortion": bound, "val_rate": 0.0}
            for i, bound in enumerate(bounds)
        ]
        return runs.divergence(history, 64)

    # Unscaled images to begin with, a density to end with, a rise as of a prior that is annealed.
    for healthy in ((2e6, 1e6), (50.0, -400.0), (-400.0, 300.0), (10.0, 45.0), (0.001, 1.0)):
        assert run(*healthy) is None
    assert run(6.8e34) == "val_bound is 6.8e+34 nats after epoch 1"
    told = "val_bound is 9e+05 nats after epoch 2, and was 50 after epoch 1"
    assert run(50.0, 9e5) == told
    assert run(50.0, None) == "val_bound is inf nats after epoch 2, and was 50 after epoch 1"


@pytest.mark.large
def test_a_run_that_diverges_does_not_end_well(tmp_path):
    lost = ("--set", "training.learning_rate=1000", "--epochs", "1")
    result = train(tmp_path / "run", *lost, code=1)
    assert "Training has diverged: val_bound is " in result.stderr
    assert "--set training.learning_rate may help" in result.stderr


@pytest.mark.large
def test_a_loss_that_is_lost_later_is_noted_and_the_run_goes_on(tmp_path, monkeypatch):
    run = tmp_path / "run"
    watch = NonFiniteGuard.on_train_batch_end

    def lose(self, batch, logs=None):
        watch(self, batch, {"loss": float("nan")} if self._epoch else logs)

    with monkeypatch.context() as patched:
        patched.setattr(NonFiniteGuard, "on_train_batch_end", lose)
        result = train(run, "--epochs", "2", "--set", "likelihood=gaussian", code=2)
    assert "the Gaussian likelihood has scale 1" in result.stderr
    assert f"To continue from it: vaezoo train {PRESET} --out {run} --resume" in result.stderr
    first, second = history_of(run)
    assert second["loss"] is None
    assert "became nan in epoch 2" in second["error"]
    cli("train", PRESET, "--out", run, "--resume")
    assert history_of(run)[0] == first
    assert history_of(run)[1]["loss"] > 0.0


# -- sizes ---------------------------------------------------------------------------------------


def test_a_grid_beyond_all_bounds_is_refused_before_it_is_drawn(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo.VAE, "generate", None)
    out = ["--out", tmp_path / "x.png"]
    error = error_of("sample", finished[0], "--scale", "100000", *out)
    assert "A grid may have 100,000,000 pixels" in error
    assert "scale 100,000" in error
    assert "A grid may have" in error_of("sample", finished[0], "-n", "100000000", *out)
    with pytest.raises(ValueError, match="take a smaller scale or fewer images"):
        grids.grid(np.zeros((4, 8, 8, 1)), scale=10_000)


def test_too_little_memory_is_one_sentence(finished, tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr(zoo.VAE, "generate", fail)
    error = error_of("sample", finished[0], "--out", tmp_path / "x.npz")
    assert "not enough memory for this. Unable to allocate 9 GiB" in error
