"""SavedModels are read by a process of its own that has TensorFlow and nothing of ours.

TensorFlow exports every constructor whose parts differ. On JAX each export is a child process of
several seconds, so one model stands for all.
"""

import contextlib
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from vaezoo import data, zoo
from vaezoo.layers import Gaussian
from vaezoo.zoo.networks import conv_decoder, conv_encoder
from vaezoo.zoo.vae import export
from vaezoo.zoo.vae.export import DETAILS_FILE

pytestmark = pytest.mark.large

BACKEND = keras.backend.backend()
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
PARTS = {"Output", "Preset", "auxiliary_softmax", "load", "networks", "presets"}
CONSTRUCTORS = sorted(set(zoo.__all__) - PARTS)
# They are made of the same parts as one of the others: what differs is how they are trained.
ALIKE = {
    *("AE", "AggVAE", "BetaVAE", "BNVAE", "FreeBitsVAE", "IAFVAE", "InfoVAE", "IWAE"),
    *("ResNetVAE", "VAEAS", "VLAE"),
}

on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="the noise of a seed is another on JAX"
)
on_jax = pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow needs no child process")
reads = pytest.mark.skipif(not HAS_TENSORFLOW, reason="TensorFlow is not installed")

BATCHES = (1, 3, 7)
COUNTS = (1, 5, 300)
SEEDS = (0, 12, 2**31 - 1)
WORDS = ["<pad>", "<s>", "</s>", "<unk>", *"abcdefgh"]
# Temperature, top_k, top_p.
TEXT_OPTIONS = {
    "plain": (1.0, 0, 1.0),
    "sharp": (0.5, 0, 0.8),
    "few": (2.0, 3, 1.0),
    "frozen": (0.0, 0, 1.0),
    "none": (1.0, 0, 0.0),
}
FULL = ["DUVAE"]
if BACKEND == "tensorflow":
    FULL = ["DUVAE", "HEBAE", "SAVAE", "WAE", "conv"]
# Sentences have a test of their own.
INTERPOLATED = ["DUVAE"]
NAMES = FULL
if BACKEND == "tensorflow":
    NAMES = [*(name for name in CONSTRUCTORS if name not in ALIKE), "conv", "mixed", "point"]

# Answers requests `signature|label|input` by `signature|label|output`.
READER = """
import json, sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import tensorflow as tf

root, facts = Path(sys.argv[1]), {}
for path in root.glob("*.npz"):
    calls, replies = defaultdict(dict), {}
    with np.load(path) as requests:
        for key in requests:
            signature, label, name = key.split("|")
            calls[signature, label][name] = tf.constant(requests[key])
    signatures = tf.saved_model.load(str(root / path.stem)).signatures
    for (signature, label), inputs in calls.items():
        try:
            outputs = signatures[signature](**inputs)
        except tf.errors.InvalidArgumentError as error:
            outputs = {"error": tf.constant(error.message)}
        for name, value in outputs.items():
            replies[f"{signature}|{label}|{name}"] = value.numpy()
    np.savez(root / f"{path.stem}.replies", **replies)
    facts[path.stem] = {
        name: sorted(served.structured_input_signature[1]) for name, served in signatures.items()
    }
facts["modules"] = sorted(sys.modules)
(root / "facts.json").write_text(json.dumps(facts))
"""


def scramble(model, x):
    """Moves running statistics and weights off their initial values, lest a lost one go unseen."""
    model(x, training=True)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign_add(0.2 * rng.standard_normal(variable.shape).astype(variable.dtype))


def requests_of(name, model, x, z):
    requests = {}
    for n in BATCHES:
        for signature in ("encode", "serving_default", "reconstruct"):
            requests[signature, n, "x"] = x[:n]
        requests["decode", n, "z"] = z[:n]
        if name in INTERPOLATED:
            requests["interpolate", n, "a"], requests["interpolate", n, "b"] = x[:n], x[-n:]
            requests["interpolate", n, "steps"] = np.int32(n)
    for count, seed in [*zip(COUNTS, SEEDS, strict=True), (COUNTS[1], SEEDS[0]), (0, 0)]:
        requests["sample", f"{count} {seed}", "count"] = np.int32(count)
        requests["sample", f"{count} {seed}", "seed"] = np.int32(seed)
    if model.head.has_density:
        several = [(7, 400, seed) for seed in range(8)]
        for n, k, seed in [*zip(BATCHES, (1, 10, 30), SEEDS, strict=True), (1, 0, 0), *several]:
            requests["score", f"{n} {k} {seed}", "x"] = x[:n]
            requests["score", f"{n} {k} {seed}", "num_samples"] = np.int32(k)
            requests["score", f"{n} {k} {seed}", "seed"] = np.int32(seed)
    return {"|".join(map(str, key)): value for key, value in requests.items()}


def text_requests_of(x, z):
    """What the signatures of a model of text take besides, or take otherwise."""
    wide = np.pad(x, ((0, 0), (0, 3)))
    requests = {("decode_beam", "", "z"): z, ("encode", "wide", "x"): wide}
    for signature in ("encode", "reconstruct", "score"):
        requests[signature, "", "x"] = x
    requests["score", "", "num_samples"], requests["score", "", "seed"] = np.int32(5), np.int32(1)
    requests["interpolate", "", "a"], requests["interpolate", "", "b"] = x, wide
    requests["interpolate", "", "steps"] = np.int32(4)
    for label, options in TEXT_OPTIONS.items():
        names = ("count", "seed", "temperature", "top_k", "top_p")
        for name, value in zip(names, (40, 5, *options), strict=True):
            dtype = "float32" if name in ("temperature", "top_p") else "int32"
            requests["sample", label, name] = np.array(value, dtype)
    return {"|".join(map(str, key)): value for key, value in requests.items()}


@pytest.fixture(scope="module")
def make(dense_networks, text_networks, small_parts):
    """Function that makes the model of a name, not yet built."""

    def make(name):
        if name == "TextVAE":
            return zoo.TextVAE(*text_networks(length=None), latent_dim=3)
        if name == "conv":
            networks = conv_encoder((8, 8, 1), (4, 4)), conv_decoder(3, (8, 8, 1), (4, 4))
            return zoo.VAE(*networks, latent_dim=3, likelihood=Gaussian("learned"))
        if name == "point":
            return zoo.AE(*dense_networks(), latent_dim=3, deterministic=True)
        if name == "mixed":
            keras.config.set_dtype_policy("mixed_bfloat16")
            try:
                return zoo.VAE(*dense_networks(), latent_dim=3)
            finally:
                keras.config.set_dtype_policy("float32")
        return getattr(zoo, name)(*dense_networks(), latent_dim=3, **small_parts(name))

    return make


@pytest.fixture(scope="module")
def served(make, binary_data, sentences, tmp_path_factory):
    """The models of `NAMES`, and what their SavedModels answer."""
    root = tmp_path_factory.mktemp("saved_models")
    z = np.random.default_rng(2).standard_normal((max(BATCHES), 3)).astype("float32")
    images = np.random.default_rng(3).uniform(size=(32, 8, 8, 1)).astype("float32")
    cases = {}
    for name in NAMES:
        # No model depends on which others there are.
        keras.utils.set_random_seed(0)
        model = make(name)
        x = {"conv": images, "TextVAE": sentences(32)}.get(name, binary_data(32))
        scramble(model, x)
        options = {}
        if name == "TextVAE":
            options = {"vocabulary": WORDS, "beam_size": 3, "length_penalty": 0.5}
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            model.export(root / name, verbose=name == "DUVAE", **options)
        requests = requests_of(name, model, x, z) if name in FULL else {"encode|3|x": x[:3]}
        if name == "TextVAE":
            requests |= text_requests_of(x, z)
        np.savez(root / f"{name}.npz", **requests)
        cases[name] = SimpleNamespace(
            name=name, model=model, x=x, z=z, folder=root / name, printed=printed.getvalue()
        )
    subprocess.run([sys.executable, "-c", READER, str(root)], check=True)
    facts = json.loads((root / "facts.json").read_text())
    for name, case in cases.items():
        case.inputs = facts[name]
        with np.load(root / f"{name}.replies.npz") as replies:
            case.replies = dict(replies)
        case.modules = facts["modules"]
    return cases


def outputs(case, signature, *label):
    prefix = f"{signature}|{' '.join(map(str, label))}|"
    return {k.removeprefix(prefix): v for k, v in case.replies.items() if k.startswith(prefix)}


def assert_same(served, expected, rtol=1e-4, atol=1e-5):
    assert sorted(served) == sorted(expected)
    for name, value in expected.items():
        value = ops.convert_to_numpy(value)
        assert served[name].dtype == value.dtype
        np.testing.assert_allclose(served[name], value, rtol, atol, err_msg=name)


@reads
def test_the_reader_knows_nothing_of_ours(served):
    modules = served["DUVAE"].modules
    assert "tensorflow" in modules
    assert [name for name in modules if name.split(".")[0] == "vaezoo"] == []


@reads
@pytest.mark.parametrize("name", NAMES)
def test_models_have_the_named_signatures(served, name):
    case = served[name]
    expected = {
        "encode": ["x"],
        "decode": ["z"],
        "sample": ["count", "seed"],
        "reconstruct": ["x"],
        "interpolate": ["a", "b", "steps"],
        "score": ["num_samples", "seed", "x"],
        "serving_default": ["x"],
    }
    if name == "TextVAE":
        expected["sample"] = ["count", "seed", "temperature", "top_k", "top_p"]
        expected["decode_beam"] = ["z"]
    if name in ("WAE", "point"):
        del expected["score"]
    assert case.inputs == expected
    # Eight bits of mantissa in the encoder of the mixed policy.
    rtol, atol = (0.05, 0.02) if name == "mixed" else (1e-4, 1e-5)
    mean = ops.convert_to_numpy(case.model.encode(case.x[:3]).mean)
    np.testing.assert_allclose(outputs(case, "encode", 3)["mean"], mean, rtol, atol)
    assert np.ptp(mean) > 0.1


@reads
@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("n", BATCHES)
def test_encode_decode_and_reconstruct_any_batch(served, name, n):
    case = served[name]
    x, z = case.x[:n], case.z[:n]
    posterior = case.model.encode(x)._asdict()
    assert_same(outputs(case, "encode", n), posterior)
    assert_same(outputs(case, "serving_default", n), posterior)
    assert_same(outputs(case, "decode", n), {"x": case.model.decode(z)})
    assert_same(outputs(case, "reconstruct", n), {"x": case.model.reconstruct(x)})


@reads
@pytest.mark.parametrize("name", INTERPOLATED)
def test_interpolate_is_that_of_the_model(served, name):
    case = served[name]
    for n in BATCHES[1:]:
        expected = case.model.interpolate(case.x[:n], case.x[-n:], steps=n)
        assert_same(outputs(case, "interpolate", n), {"x": expected})


@pytest.mark.large
@reads
@pytest.mark.one_backend
def test_text_is_decoded_as_the_model_decodes_it(served):
    case = served["TextVAE"]
    model, x, z = case.model, case.x, case.z
    assert_same(outputs(case, "encode"), model.encode(x)._asdict())
    assert_same(outputs(case, "encode", "wide"), model.encode(x)._asdict())
    np.testing.assert_array_equal(outputs(case, "reconstruct")["x"], model.reconstruct(x))
    expected = model.interpolate(x, x, steps=4)
    np.testing.assert_array_equal(outputs(case, "interpolate")["x"], expected)
    expected = model.decode(
        z, batch_size=len(z), beam_size=3, length_penalty=0.5, return_log_prob=True
    )
    assert_same(outputs(case, "decode_beam"), dict(zip(("x", "log_prob"), expected, strict=True)))


@reads
@pytest.mark.one_backend
def test_text_is_sampled_with_the_options_of_generate(served):
    case = served["TextVAE"]
    for label in ("plain", "sharp", "few"):
        temperature, top_k, top_p = TEXT_OPTIONS[label]
        drawn = outputs(case, "sample", label)["x"]
        assert drawn.shape == (40, 6)
        assert drawn.dtype == np.int32
        assert np.all(drawn[:, 0] == 1)
        expected = case.model.generate(
            40, seed=5, temperature=temperature, top_k=top_k, top_p=top_p
        )
        np.testing.assert_array_equal(drawn, expected)
    assert len(np.unique(outputs(case, "sample", "plain")["x"], axis=0)) > 10
    for label, message in (("frozen", "`temperature` must be positive"), ("none", "`top_p` must")):
        assert message in str(outputs(case, "sample", label)["error"])


@reads
@on_tensorflow
def test_text_is_scored_as_the_model_scores_it(served):
    case = served["TextVAE"]
    expected = case.model.log_prob(case.x, 5, seed=1)
    assert_same(outputs(case, "score"), {"log_prob": expected})


@reads
@pytest.mark.one_backend
def test_a_model_of_text_carries_its_words(served):
    folder = served["TextVAE"].folder / "assets.extra"
    assert data.Vocabulary.load(folder / "vocabulary.txt") == data.Vocabulary(WORDS[4:])
    details = json.loads((folder / "vaezoo.json").read_text())
    found = {key: details[key] for key in ("vocabulary_size", "max_length", "event_shape")}
    assert found == {"vocabulary_size": 12, "max_length": 6, "event_shape": [None]}
    ids = [details[f"{kind}_id"] for kind in ("pad", "start", "end", "unknown")]
    assert ids == [0, 1, 2, 3]
    assert details["signatures"]["encode"]["inputs"]["x"] == {
        "dtype": "int32",
        "shape": [None, None],
    }
    assert "pad_id" not in json.loads((served["DUVAE"].folder / DETAILS_FILE).read_text())


@pytest.mark.usefixtures("writer")
def test_a_vocabulary_may_be_an_object_or_a_file(make, tmp_path):
    model = make("TextVAE")
    model.build((None, None))
    vocabulary = data.Vocabulary(WORDS[4:])
    vocabulary.save(tmp_path / "words")
    for number, given in enumerate((vocabulary, tmp_path / "words", str(tmp_path / "words"))):
        model.export(tmp_path / str(number), vocabulary=given)
        written = tmp_path / str(number) / "assets.extra" / "vocabulary.txt"
        assert written.read_bytes() == (tmp_path / "words").read_bytes()


def test_options_of_text_are_checked(make, built, tmp_path):
    model = make("TextVAE")
    model.build((None, None))
    with pytest.raises(ValueError, match="a word for each id.*Received: 3 words, .*_size=12"):
        model.export(tmp_path / "model", vocabulary=["a", "b", "c"])
    with pytest.raises(ValueError, match="a word for each id.*12 words, vocabulary_size=None"):
        built.export(tmp_path / "model", vocabulary=WORDS)
    with pytest.raises(ValueError, match=r"without line breaks. Received: 'a\\nb'"):
        model.export(tmp_path / "model", vocabulary=[*WORDS[:-1], "a\nb"])
    with pytest.raises(TypeError, match="`vocabulary` must be a `Vocabulary`.*Received: int"):
        model.export(tmp_path / "model", vocabulary=12)
    with pytest.raises(ValueError, match="`beam_size` must be a positive integer"):
        model.export(tmp_path / "model", beam_size=0)
    with pytest.raises(ValueError, match="`beam_search`.*beam_size=2 with Sequential"):
        built.export(tmp_path / "model", beam_size=2)
    assert list(tmp_path.iterdir()) == []


@reads
@pytest.mark.parametrize("name", FULL)
def test_sample_repeats_by_seed(served, name):
    case = served[name]
    event = case.x.shape[1:]
    drawn = {
        (count, seed): outputs(case, "sample", count, seed)["x"]
        for count, seed in zip(COUNTS, SEEDS, strict=True)
    }
    for (count, _), x in drawn.items():
        assert x.shape == (count, *event)
    other = outputs(case, "sample", COUNTS[1], SEEDS[0])["x"]
    assert np.abs(other - drawn[COUNTS[1], SEEDS[1]]).max() > 1e-3
    many = drawn[COUNTS[2], SEEDS[2]].reshape(COUNTS[2], -1)
    assert len(np.unique(many, axis=0)) == COUNTS[2]


@reads
@on_tensorflow
@pytest.mark.parametrize("name", FULL)
def test_sample_is_generate_at_equal_seed(served, name):
    case = served[name]
    for count, seed in zip(COUNTS, SEEDS, strict=True):
        expected = case.model.generate(count, seed=seed)
        assert_same(outputs(case, "sample", count, seed), {"x": expected})


@reads
@on_tensorflow
@pytest.mark.parametrize("name", [name for name in FULL if name != "WAE"])
def test_score_is_log_prob_at_equal_seed(served, name):
    case = served[name]
    for n, k, seed in zip(BATCHES, (1, 10, 30), SEEDS, strict=True):
        expected = case.model.log_prob(case.x[:n], k, seed=seed)
        assert_same(outputs(case, "score", n, k, seed), {"log_prob": expected})


@reads
def test_score_estimates_log_prob_whatever_the_noise(served):
    case = served["DUVAE"]
    ours = [case.model.log_prob(case.x[:7], 400, seed=100 + seed) for seed in range(8)]
    theirs = [outputs(case, "score", 7, 400, seed)["log_prob"] for seed in range(8)]
    error = np.sqrt((np.var(ours, axis=0, ddof=1) + np.var(theirs, axis=0, ddof=1)) / 8)
    assert np.all(error > 0)
    np.testing.assert_array_less(np.abs(np.mean(ours, 0) - np.mean(theirs, 0)), 6 * error)


@reads
def test_served_errors_name_the_input(served):
    case = served["DUVAE"]
    assert "`count` must be positive" in str(outputs(case, "sample", 0, 0)["error"])
    assert "`num_samples` must be positive" in str(outputs(case, "score", 1, 0, 0)["error"])
    assert "`steps` must be at least 2" in str(outputs(case, "interpolate", 1)["error"])


@reads
def test_details_describe_model_and_signatures(served):
    details = json.loads((served["DUVAE"].folder / "assets.extra/vaezoo.json").read_text())
    assert details["model"] == "du_vae"
    assert details["latent_dim"] == 3
    assert details["event_shape"] == [6]
    assert details["likelihood"] == "Bernoulli"
    assert set(details["versions"]) == {"vaezoo", "keras", "tensorflow"}
    assert details["versions"]["keras"] == keras.__version__
    assert list(details["signatures"]) == [
        "encode",
        "decode",
        "sample",
        "reconstruct",
        "interpolate",
        "score",
    ]
    x = {"dtype": "float32", "shape": [None, 6]}
    scalar = {"dtype": "int32", "shape": []}
    assert details["signatures"]["score"] == {
        "inputs": {"x": x, "num_samples": scalar, "seed": scalar},
        "outputs": {"log_prob": {"dtype": "float32", "shape": [None]}},
    }


@reads
def test_prints_when_asked(served):
    lines = served["DUVAE"].printed.splitlines()
    assert lines[0] == f"SavedModel {served['DUVAE'].folder}"
    assert "  encode(x) -> mean, log_var" in lines
    assert [case.printed for case in served.values() if case.name != "DUVAE" and case.printed] == []


@pytest.mark.slow  # A process of its own, for an error.
@on_jax
@reads
def test_a_layer_that_the_child_cannot_import_is_named(dense_networks, binary_data, tmp_path):
    @keras.saving.register_keras_serializable(package="vaezoo_tests")
    class OnlyHere(keras.layers.Layer):
        def call(self, x):
            return x

    model = zoo.VAE(*dense_networks(first=[OnlyHere()]), latent_dim=3)
    model(binary_data(2))
    with pytest.raises(RuntimeError, match="child process(.|\n)*'OnlyHere'"):
        model.export(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@on_jax
def test_says_what_to_install(built, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match="pip install tensorflow"):
        built.export(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# What follows is about files, not about what is in them.


@pytest.fixture(scope="module")
def built(make):
    model = make("VAE")
    model.build((None, 6))
    return model


@pytest.fixture
def writer(monkeypatch):
    """Stands in for TensorFlow: writes `content`, or fails half-way without one."""
    state = SimpleNamespace(content="new")

    def write(model, folder, *options):
        folder.mkdir()
        (folder / "variables").touch()
        (folder / "assets.extra").mkdir()
        if state.content is None:
            raise OSError("disk full")
        (folder / "saved_model.pb").write_text(state.content)

    monkeypatch.setattr(export, "_write", write)
    monkeypatch.setattr(export, "_write_in_child", write)
    return state


def contents(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


NEW = {"saved_model.pb": "new", "variables": ""}


@pytest.mark.usefixtures("writer")
def test_writes_to_new_and_to_empty_folders_and_leaves_nothing_beside(built, tmp_path):
    (tmp_path / "empty").mkdir()
    built.export(tmp_path / "a" / "b", "tf_saved_model")
    built.export(str(tmp_path / "empty"), format="tf_saved_model")
    assert contents(tmp_path / "a" / "b") == contents(tmp_path / "empty") == NEW
    assert sorted(p.name for p in tmp_path.rglob("*")) == sorted(
        ["a", "b", "empty", *2 * ["assets.extra", "saved_model.pb", "variables"]]
    )


@pytest.mark.usefixtures("writer")
def test_replaces_a_saved_model_only_when_asked(built, tmp_path):
    old = {"saved_model.pb": "old", "README": "ours"}
    folder = tmp_path / "model"
    folder.mkdir()
    for name, text in old.items():
        (folder / name).write_text(text)
    with pytest.raises(FileExistsError, match=r"overwrite=True.*Received: filepath='.*model'"):
        built.export(folder)
    assert contents(folder) == old
    built.export(folder, overwrite=True)
    assert contents(tmp_path) == {f"model/{name}": text for name, text in NEW.items()}


@pytest.mark.usefixtures("writer")
@pytest.mark.parametrize("overwrite", [False, True])
def test_never_replaces_anything_else(built, tmp_path, overwrite):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file", tmp_path / "folder" / "thesis.tex"):
        path.write_text("ours")
    for name in ("file", "folder"):
        with pytest.raises(FileExistsError, match=rf"Received: filepath='.*{name}'.*else"):
            built.export(tmp_path / name, overwrite=overwrite)
    assert contents(tmp_path) == {"file": "ours", "folder/thesis.tex": "ours"}


def test_a_failure_leaves_what_was_there(built, writer, tmp_path):
    built.export(tmp_path / "model")
    writer.content = None
    for name in ("model", "other"):
        with pytest.raises(OSError, match="disk full"):
            built.export(tmp_path / name, overwrite=True)
    assert contents(tmp_path) == {f"model/{name}": text for name, text in NEW.items()}


def test_a_folder_that_fills_up_meanwhile_is_kept(built, writer, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()

    def write(model, folder, *options):
        folder.mkdir()
        (tmp_path / "model" / "saved_model.pb").write_text("theirs")

    monkeypatch.setattr(export, "_write", write)
    monkeypatch.setattr(export, "_write_in_child", write)
    with pytest.raises(OSError, match="not empty"):
        built.export(tmp_path / "model")
    assert contents(tmp_path) == {"model/saved_model.pb": "theirs"}


@pytest.mark.usefixtures("writer")
def test_a_failed_move_puts_the_old_one_back(built, tmp_path, monkeypatch):
    built.export(tmp_path / "model")
    (tmp_path / "model" / "saved_model.pb").write_text("old")
    rename = Path.rename

    def fails_for_the_new_one(self, target):
        if self.name == "new":
            raise OSError("no permission")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises(OSError, match="no permission"):
        built.export(tmp_path / "model", overwrite=True)
    assert contents(tmp_path) == {"model/saved_model.pb": "old", "model/variables": ""}


def test_refuses_what_it_cannot_do(make, built, tmp_path):
    with pytest.raises(ValueError, match="`export` needs a built model"):
        make("VAE").export(tmp_path / "model")
    with pytest.raises(ValueError, match="`format` must be 'tf_saved_model'.*format='onnx'"):
        built.export(tmp_path / "model", format="onnx")
    with pytest.raises(ValueError, match="`filepath` must be a local path.*'gs://bucket/model'"):
        built.export("gs://bucket/model")
    assert list(tmp_path.iterdir()) == []
