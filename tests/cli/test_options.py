"""Every option of every command is used by an invocation that is run here."""

import json
import shutil
import sys

import keras
import matplotlib.image
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import vaezoo
from vaezoo.cli.app import app
from vaezoo.runs.cures import Cures, cured

XLA = keras.backend.backend() == "jax"
MODE = "--xla" if XLA else "--no-xla"
TINY = f"--set networks.hidden_units=[8] --set networks.decoder.hidden_units=[8] {MODE}"
TINY += " --set latent_dim=2 --limit 64"
TEXT = f"--set networks.units=8 --set networks.embedding_dim=6 --set latent_dim=3 {MODE}"
pytestmark = pytest.mark.one_backend

#: What is run, one a line, in this order; `{d}` is a folder with the runs `images` and `text`.
INVOCATIONS = f"""
--version
--debug list
list vae_digits_mlp
train vae_digits_mlp --out {{d}}/a {TINY} --data digits --data-dir {{d}} --batch-size 16 --epochs 1
train vae_digits_mlp --out {{d}}/a --resume --epochs 2 --no-monitor --quiet --checkpoint-every 1
train vae_digits_mlp --out {{d}}/a --overwrite {TINY} -q --no-xla --epochs 1 --validation none
train vae_digits_mlp --out {{d}}/b {TINY} --xla --seed 1 --steps-per-execution 2 --epochs 1
train vae_digits_mlp --out {{d}}/c {TINY} --monitor --precision float32 --epochs 1
train vae_digits_mlp --out {{d}}/c --resume --epochs 2 -q --on-nan rewind --max-rewinds 2
train vae_digits_mlp --out {{d}}/labels {TINY} --condition label -q --no-monitor --epochs 1
sample {{d}}/labels -n 3 --condition 3 --out {{d}}/labels.png
sample {{d}}/images -n 3 --seed 1 --mean --scale 2 --out {{d}}/s.png
sample {{d}}/images --num 3 --draw --out {{d}}/s.png --overwrite
sample {{d}}/text -n 2 --temperature 0.5 --top-k 3 --top-p 0.9
evaluate {{d}}/images --data digits --data-dir {{d}} --split validation --limit 50 -k 2 --binarize
evaluate {{d}}/images --grey --gray --samples 2 --images 10 --seed 1 --limit 50 --overwrite
evaluate {{d}}/images -m samples --features pixels --limit 60 --out {{d}}/fid.json
evaluate {{d}}/images --metric knn_probe --set knn_probe.num_labels=20 --out {{d}}/knn.json
evaluate {{d}}/served -m active_units --data digits --likelihood bernoulli --limit 20
diagnose {{d}}/images --data digits --data-dir {{d}} --split test --limit 60 --binarize --seed 1
diagnose {{d}}/images --grey --gray --limit 60 --overwrite
diagnose {{d}}/served --data digits --likelihood bernoulli --limit 60 --out {{d}}/d.html
cure {{d}}/images --data digits --data-dir {{d}} --split train --limit 60 --budget 1s --remedies 1
cure {{d}}/images --steps 10 --limit 60 --seed 1 --out {{d}}/c.html --keep {{d}}/kept --overwrite
reconstruct {{d}}/images -n 3 --data digits --data-dir {{d}} --split train --binarize --scale 2
reconstruct {{d}}/images --num 3 --grey --gray --out {{d}}/reconstructions.png --overwrite
reconstruct {{d}}/text good --beam 2 --length-penalty 0.5
interpolate {{d}}/images -n 2 --data digits --data-dir {{d}} --split train --binarize --scale 2
interpolate {{d}}/images 1 2 --num 1 --grey --gray --steps 3 --out {{d}}/i.png --overwrite
interpolate {{d}}/text good bad --steps 3
export {{d}}/text {{d}}/text_served --beam 2
reproduce --data-dir {{d}} --results {{d}}/records
reproduce --write --results {{d}}/records
reproduce hebae/figure2 --list --root {{d}}/reproduced
reproduce hebae/figure2 --jobs --rows vae_k2 wae_k2 --seeds 0 1 --budget 2h --scale small
reproduce hebae/figure2 --jobs --data mnist={{d}} --rows vae_k2
"""


def cli(*args, code=0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result


def lines():
    return [line.split() for line in INVOCATIONS.strip().splitlines()]


def options_of(command):
    """All ways to name an option, but for `--help`."""
    for parameter in command.params:
        for flag in (*parameter.opts, *parameter.secondary_opts):
            if flag.startswith("-") and flag != "--help":
                yield flag


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("options")
    corpus = folder / "reviews"
    corpus.mkdir()
    for split, count in (("train", 40), ("valid", 8), ("test", 8)):
        text = "".join(f"{i % 2}\t{'good' if i % 2 else 'bad'} food !\n" for i in range(count))
        (corpus / f"{split}.txt").write_text(text)
    cli("train", "vae_digits_mlp", "--out", folder / "images", "--epochs", 1, *TINY.split(), "-q")
    text = ["--data", corpus, "--epochs", 1, *TEXT.split(), "-q", "--no-monitor"]
    cli("train", "text_vae_text_tiny", "--out", folder / "text", *text)
    return folder


def test_every_option_of_every_command_is_used():
    group = typer.main.get_command(app)
    used = {name: set() for name in (*group.commands, "")}
    for line in lines():
        place = next((i for i, word in enumerate(line) if word in group.commands), len(line))
        used[""] |= set(line[:place])
        if place < len(line):
            used[line[place]] |= set(line[place:])
    missing = {
        name: sorted(set(options_of(command)) - used[name])
        for name, command in [("", group), *group.commands.items()]
    }
    assert not any(missing.values()), missing


@pytest.mark.slow
@pytest.mark.parametrize("line", lines(), ids=" ".join)
def test_every_option_does_what_it_may(folder, line):
    text = " ".join(line).format(d=folder)
    if "served" in text:
        pytest.importorskip("tensorflow")
        if not (folder / "served").exists():
            cli("export", folder / "images", folder / "served")
    cli(*text.split())


# -- what they do --------------------------------------------------------------------------------


def results_of(path):
    return json.loads(path.read_text())["results"]


@pytest.fixture(scope="module")
def images(folder):
    return folder / "images"


@pytest.mark.large
def test_samples_are_judged_without_labels(images, tmp_path):
    out = tmp_path / "fid.json"
    cli("evaluate", images, "-m", "samples", "--features", "pixels", "--limit", 100, "--out", out)
    x, _ = vaezoo.data.load_arrays("digits", "test", binarize="fixed", limit=100)
    model = keras.saving.load_model(images / "model.keras")
    expected = vaezoo.metrics.frechet_distance(model, x, features="pixels", seed=0)
    assert results_of(out)["frechet_distance"]["value"] == pytest.approx(expected.value, rel=1e-3)
    np.savez(tmp_path / "own.npz", x=x[:40])
    own = ["--data", tmp_path / "own.npz", "--split", "train", "-m", "frechet_distance"]
    error = cli("evaluate", images, *own, "--out", tmp_path / "x.json", code=2).stderr
    assert "frechet_distance needs --features" in error
    network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()], name="flat")
    network.save(tmp_path / "flat.keras")
    own += ["--features", tmp_path / "flat.keras", "--out", tmp_path / "own.json"]
    cli("evaluate", images, *own)
    for features, message in (
        ("beauty", "`features` is unknown"),
        ("x.keras", "No file 'x.keras'"),
    ):
        own[own.index("--features") + 1] = features
        own[-1] = tmp_path / "y.json"
        assert message in cli("evaluate", images, *own, code=2).stderr


@pytest.mark.large
def test_samples_are_judged_in_the_range_of_the_run(tmp_path):
    run = tmp_path / "run"
    options = [*TINY.split(), "--set", "data.value_range=[-1.0,1.0]", "--set", "data.binarize=none"]
    options += ["--set", "likelihood=gaussian", "--epochs", 1, "-q", "--no-monitor"]
    cli("train", "vae_digits_mlp", "--out", run, *options)
    cli("evaluate", run, "-m", "frechet_distance", "--features", "pixels", "--limit", 50)
    found = results_of(run / "evaluation.json")["frechet_distance"]
    assert list(found["settings"]["value_range"]) == [-1.0, 1.0]


@pytest.mark.large
def test_probes_take_options_and_several_values(images, tmp_path):
    out = tmp_path / "probes.json"
    options = ["--set", "kmeans_probe.num_clusters=[5,10]", "--set", "kmeans_probe.runs=2"]
    options += ["--set", "knn_probe.num_labels=[50,none]", "--set", "linear_probe.runs=1"]
    cli("evaluate", images, "-m", "probes", *options, "--limit", 80, "--out", out)
    found = results_of(out)
    assert set(found) == {
        "kmeans_probe[num_clusters=5, runs=2]",
        "kmeans_probe[num_clusters=10, runs=2]",
        "knn_probe[num_labels=50]",
        "knn_probe[num_labels=None]",
        "linear_probe",
    }
    assert found["knn_probe[num_labels=50]"]["settings"]["num_labels"] == 50
    for option, message in (
        ("knn_probe.num_label=5", "did you mean num_labels"),
        ("linear_probe.runs=5", "`--set` takes METRIC.KEY=VALUE"),
        ("runs=5", "`--set` takes METRIC.KEY=VALUE"),
        ("knn_probe.num_labels=1", "`num_labels` must be"),
    ):
        options = ["-m", "knn_probe", "--set", option, "--out", tmp_path / "x.json"]
        assert message in cli("evaluate", images, *options, code=2).stderr


@pytest.mark.large
def test_all_probes_can_be_reached(images, tmp_path):
    out = tmp_path / "probes.json"
    options = ["-m", "few_label_probe", "--set", "few_label_probe.num_labels=30"]
    options += ["--set", "few_label_probe.epochs=2", "-m", "classifier_probe"]
    options += ["--set", "classifier_probe.hidden_units=[4]", "--set", "classifier_probe.epochs=1"]
    cli("evaluate", images, *options, "--limit", 60, "--out", out)
    found = results_of(out)
    assert set(found) == {"few_label_probe", "classifier_probe"}
    assert found["classifier_probe"]["settings"]["hidden_units"] == [4]
    assert found["few_label_probe"]["settings"]["seed"] == 783435
    few = ["evaluate", images, "-m", "few_label_probe", "--out", tmp_path / "x.json"]
    assert "must have `num_labels`" in cli(*few, code=2).stderr


@pytest.mark.large
def test_characters_are_told_apart_within_their_alphabets(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    rng = np.random.default_rng(0)
    alphabets, characters = np.divmod(np.arange(120) % 6, 3)
    x = (rng.uniform(size=(120, 8, 8)) < 0.3).astype("float64")
    x[np.arange(120), 0] = np.eye(8)[np.arange(120) % 6]
    content = {
        "data": x[:90].reshape(90, -1).T, "target": np.eye(2)[alphabets[:90]].T,
        "targetchar": characters[None, :90] + 1.0, "testdata": x[90:].reshape(30, -1).T,
        "testtarget": np.eye(2)[alphabets[90:]].T, "testtargetchar": characters[None, 90:] + 1.0,
    }  # fmt: skip
    savemat(tmp_path / "chardata.mat", content)
    run, data = tmp_path / "run", ["--data", tmp_path / "chardata.mat", "--epochs", 1, "-q"]
    cli("train", "vae_digits_mlp", "--out", run, *data, *TINY.split(), "--no-monitor")
    options = ["-m", "alphabet_probe", "--set", "alphabet_probe.num_drawings=[5,10]"]
    cli("evaluate", run, *options, "--set", "alphabet_probe.epochs=2")
    found = results_of(run / "evaluation.json")
    assert set(found) == {
        "alphabet_probe[num_drawings=5, epochs=2]", "alphabet_probe[num_drawings=10, epochs=2]",
    }  # fmt: skip
    assert found["alphabet_probe[num_drawings=5, epochs=2]"]["extra"]["chance"] == pytest.approx(
        1 / 3
    )


@pytest.mark.large
def test_copies_of_an_image_are_no_examples_of_their_own(images, tmp_path):
    from vaezoo.cli.source import open_source

    run = shutil.copytree(images, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["settings"]["data"]["copies"] = 5
    (run / "config.json").write_text(json.dumps(config))
    opened = open_source(run, None, None, "test", None, None, with_train=True, with_validation=True)
    assert [len(opened.x), len(opened.train[0]), len(opened.validation[0])] == [5 * 360, 1257, 180]


@pytest.mark.large
def test_validation_is_held_out_of_what_a_probe_learns_from(images, tmp_path):
    from vaezoo.cli.source import open_source

    pixels = (np.arange(64)[None] >> np.arange(8)[:, None] & 1).T.astype("uint8")
    x = np.zeros((64, 8, 8), "uint8")
    x[:, 0] = pixels
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(64) % 2)
    opened = open_source(
        images, str(tmp_path / "x.npz"), None, "train", None, None, with_train=True,
        with_validation=True,
    )  # fmt: skip
    seen = [{row.tobytes() for row in pair[0]} for pair in (opened.train, opened.validation)]
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == 64


@pytest.mark.large
def test_the_likelihood_may_be_that_of_fewer_images(images, tmp_path):
    out = tmp_path / "nll.json"
    cli("evaluate", images, "-k", 3, "--images", 60, "--limit", 90, "--out", out)
    found = results_of(out)
    assert found["negative_log_likelihood"]["count"] == 60
    assert found["active_units"]["count"] == 90
    assert found["posterior_divergence_deviation"]["value"] > 0.0
    extra = found["mutual_posterior_divergence"]["extra"]
    assert found["posterior_divergence_deviation"]["value"] == extra["standard_deviation"]


@pytest.mark.large
def test_the_time_of_a_likelihood_is_told_beforehand(images, capsys, monkeypatch):
    module = sys.modules["vaezoo.metrics.negative_log_likelihood"]
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    monkeypatch.setattr(module, "MANY", 0)
    model = keras.saving.load_model(images / "model.keras")
    x = vaezoo.data.load_arrays("digits", "test", binarize="fixed", limit=60)[0]
    plain = vaezoo.metrics.negative_log_likelihood(model, x, 4)
    assert capsys.readouterr().err == ""
    told = vaezoo.metrics.negative_log_likelihood(model, x, 4, progress=True)
    assert "The likelihood of 60 examples with 4 draws each will take about" in (
        capsys.readouterr().err
    )
    assert told.value == plain.value
    assert [module._duration(s) for s in (3.0, 130.0, 1.08e6)] == [
        "3 seconds", "2 minutes", "300 hours",
    ]  # fmt: skip


@pytest.mark.large
def test_images_are_reconstructed_in_pairs_of_rows(images, tmp_path):
    out = tmp_path / "r.png"
    cli("reconstruct", images, "-n", 12, "--scale", 1, "--out", out)
    sheet = matplotlib.image.imread(out)[..., 0]
    # Two rows of ten, and two of two and white.
    assert sheet.shape == (4 * 10 - 2, 10 * 10 - 2)
    model = keras.saving.load_model(images / "model.keras")
    x = vaezoo.data.load_arrays("digits", "test", binarize="fixed", limit=12)[0]
    found = model.reconstruct(x)
    np.testing.assert_allclose(sheet[:8, 10:18], x[1, ..., 0], atol=1 / 255)
    np.testing.assert_allclose(sheet[10:18, 10:18], found[1, ..., 0], atol=1 / 255)
    np.testing.assert_allclose(sheet[30:38, 10:18], found[11, ..., 0], atol=1 / 255)
    assert np.all(sheet[20:, 20:] == 1.0)
    assert "--overwrite" in cli("reconstruct", images, "--out", out, code=2).stderr
    assert "must end in .png" in cli("reconstruct", images, "--out", "x.npz", code=2).stderr
    assert "takes no sentences" in cli("reconstruct", images, "good", code=2).stderr
    assert "takes no --beam" in cli("reconstruct", images, "--beam", 2, code=2).stderr


@pytest.mark.large
def test_images_are_interpolated_in_rows(images, tmp_path):
    out = tmp_path / "i.png"
    cli("interpolate", images, 3, 17, "--steps", 4, "--scale", 1, "--out", out)
    sheet = matplotlib.image.imread(out)[..., 0]
    assert sheet.shape == (8, 4 * 10 - 2)
    model = keras.saving.load_model(images / "model.keras")
    x = vaezoo.data.load_arrays("digits", "test", binarize="fixed", limit=18)[0]
    (found,) = model.interpolate(x[3:4], x[17:], steps=4)
    np.testing.assert_allclose(sheet[:, 20:28], found[2, ..., 0], atol=1 / 255)
    for args, message in (
        ([1], "Two images must be given"),
        ([1, "good"], "places of two images"),
        (["0", "400"], "There are 360 images, counted from 0. Received: image 400"),
    ):
        rest = ["--out", tmp_path / "x.png"]
        assert message in cli("interpolate", images, *args, *rest, code=2).stderr


@pytest.mark.large
def test_text_asks_for_sentences(folder):
    assert "give it sentences" in cli("reconstruct", folder / "text", code=2).stderr
    assert "give it two sentences" in cli("interpolate", folder / "text", "good", code=2).stderr


@pytest.mark.large
def test_the_model_that_is_kept_of_a_cure_is_the_one_that_was_tried(images, tmp_path):
    run = vaezoo.runs.Run.open(images)
    x, _ = run.arrays("train", limit=60)
    cures = Cures(run.spec, len(x))
    found = vaezoo.metrics.try_remedies(
        run.model(), x, build=cures, batch_size=cures.batch_size, steps=20, remedies=1,
        diagnosis=vaezoo.metrics.diagnose(run.model(), x, trials=False, refinement_steps=0),
    )  # fmt: skip
    tried = found.trials[1]
    cures.keep(tmp_path / "kept", tried, found.steps)
    kept = vaezoo.runs.Run.open(tmp_path / "kept")
    for which in ("final", "best"):
        for own, other in zip(
            kept.model(which).get_weights(), tried.model.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(own, other)
    epochs = -(-20 * cures.batch_size // 60)
    assert [record["epoch"] for record in kept.history] == list(range(1, epochs + 1))
    assert kept.history[-1]["loss"] == tried.losses[-1]
    more = vaezoo.runs.Run.open(tmp_path / "kept", training={"epochs": epochs + 1})
    assert int(more.prepare().model.optimizer.iterations) == 20
    assert len(more.fit(verbose=0)) == epochs + 1
    with pytest.raises(ValueError, match="`adopt` needs a new run"):
        kept.adopt(tried.model, [{"loss": 1.0}])


@pytest.mark.parametrize(
    ("change", "preset", "beta"),
    [
        ({"gamma": 0.5, "keep_prob": 0.8}, "du_vae_digits_mlp", None),
        ({"free_bits": 0.1}, "free_bits_vae_digits_mlp", None),
        ({"beta": 1.0}, "beta_vae_digits_mlp", 1.0),
    ],
)
def test_a_remedy_changes_what_it_says(change, preset, beta):
    spec = vaezoo.runs.RunSpec(
        "beta_vae_digits_mlp", constructor="BetaVAE", model={"latent_dim": 2, "beta": 30.0}
    )
    changed = cured(spec, change, 100, 3)
    assert changed.preset == preset
    # The remedy of a collapse is not tried under the weight that has brought it.
    assert changed.model.get("beta") == beta
    assert changed.training["epochs"] == 3
