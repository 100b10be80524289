"""An exam of bad inputs, as strangers give them: each is answered by one clear sentence.

A row holds its name, what is called on the shared `World`, and what the message must hold. The
assertion is the same for all; see `verdict`. What turned out to be ordinary use stands in ACCEPTED.
"""

import functools
import os
import pathlib
import shlex
import shutil

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from helpers.sources import Batches
from vaezoo import callbacks, data, losses, metrics, zoo
from vaezoo.cli.app import app
from vaezoo.core.compile import compiled

pytestmark = pytest.mark.one_backend

TF = keras.backend.backend() == "tensorflow"
NAN, INF = float("nan"), float("inf")
X = np.random.default_rng(0).integers(0, 2, (12, 6)).astype("float32")
Z = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
WORDS = np.array([[1, 4, 5, 2, 0, 0], [1, 6, 2, 0, 0, 0]] * 4, "int32")
LABELS = np.arange(12) % 3
#: What no message may hold.
OBSCURE = (
    "Traceback",
    "not supported between",
    "NoneType'",
    "has no attribute",
    "object is not",
    "InvalidArgumentError",
    "Graph execution",
    "XlaRuntime",
    "HloModule",
    "could not convert",
    "index out of",
    "out of bounds",
    "cannot be broadcast",
    "could not be broadcast",
    "invalid literal",
    "Errno",
    "object at 0x",
    "Unhandled",
    "[[{{node",
)


def spoilt(value, row=-1, of=X):
    x = of.astype(np.result_type(of, type(value)) if isinstance(value, complex) else of.dtype)
    x[row, 2] = value
    return x


def tfdata(*batches):
    import tensorflow as tf

    first = batches[0]
    spec = tf.TensorSpec([None] * np.ndim(first), np.asarray(first).dtype)
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)


def generator(*batches):
    return (batch for batch in batches)


def tensors(kind):
    import tensorflow as tf

    return {
        "ragged": lambda: tf.ragged.constant([[1.0], [0.0, 1.0]]),
        "sparse": lambda: tf.sparse.from_dense(X),
        "strings": lambda: tf.constant([["a"] * 6] * 12),
        "unbatched": lambda: tf.data.Dataset.from_tensor_slices(X),
        "dicts": lambda: tf.data.Dataset.from_tensors({"image": X}),
        "labels": lambda: tf.data.Dataset.from_tensors((X, LABELS, X[:, 0], X)),
        "ragged batches": lambda: tf.data.Dataset.from_tensors(tf.ragged.constant([[1.0], []])),
    }[kind]()


def dense(inputs, outputs, **options):
    return keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(outputs, **options)])


class World:
    """Models and files that the rows share, made when first used."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def model(self, constructor, compiled=True, **options):
        keras.utils.set_random_seed(0)
        networks = dense(6, 8, activation="relu"), dense(3, 6)
        model = constructor(*networks, **{"latent_dim": 3, **options})
        if compiled:
            # JAX is slow without its compiler, TensorFlow is slow to start with one.
            model.compile("adam", run_eagerly=TF)
        return model

    def __getattr__(self, name):
        makers = {
            "gauss": lambda: self.model(zoo.VAE, likelihood="gaussian"),
            "du": lambda: self.model(zoo.DUVAE),
            "hebae": lambda: self.model(zoo.HEBAE),
            "wae": lambda: self.model(zoo.WAE),
            "ae": lambda: self.model(zoo.AE),
            "iaf": lambda: self.model(zoo.IAFVAE, flow_width=4),
            "iwae": lambda: self.model(zoo.IWAE, num_samples=2),
            "agg": lambda: self.model(zoo.AggVAE, max_inner_steps=2),
            "sa": lambda: self.model(zoo.SAVAE, refine_steps=1),
            "vaeas": lambda: self.model(zoo.VAEAS, num_examples=12, hidden_units=(4,)),
            "point": lambda: self.model(zoo.AE, deterministic=True),
            "text": self._text,
            "files": lambda: make_files(self.folder / "files"),
            "vocabulary": lambda: data.Vocabulary(["good", "bad", "food"]),
        }
        if name not in makers:
            raise AttributeError(name)
        value = self.__dict__[name] = makers[name]()
        return value

    @property
    def bare(self):
        """A model that was never compiled."""
        return self.model(zoo.VAE, compiled=False)

    @functools.cached_property
    def vae(self):
        """The model of most rows, compiled as users compile it."""
        model = self.model(zoo.VAE, compiled=False)
        model.compile("adam")
        model.fit(X, batch_size=4, verbose=0)
        return model

    def _text(self):
        networks = zoo.networks.make(
            "lstm", (6,), 3, vocabulary_size=8, embedding_dim=4, units=4, decoder={"max_length": 6}
        )
        model = zoo.TextVAE(*networks, latent_dim=3)
        model.compile("adam", run_eagerly=TF)
        model(WORDS)
        return model

    @functools.cached_property
    def codes(self):
        """The codes of the model of most rows, by one compiled function for all of them."""
        vae = self.vae
        return compiled(vae, lambda x: vae.head.posterior(vae.encoder(x)).mean)

    def is_usable(self):
        """Whether the model of most rows still gives finite codes."""
        return "vae" not in self.__dict__ or np.isfinite(self.codes(X)).all()

    def listing(self):
        """All files, with what would change if one were written."""
        found = {}
        for folder, folders, files in os.walk(self.folder):
            for name in files if files or folders else [""]:
                path = os.path.join(folder, name)
                status = os.stat(path)
                found[path] = status.st_size, status.st_mtime_ns
        return found


def png(path, shape=(8, 8), value=0):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, "uint8")).save(path)
    return path


def make_files(folder):
    """Broken files of every kind."""
    folder.mkdir()
    images = np.zeros((6, 8, 8, 1), "float32")
    for name, arrays in {
        "good": {"x_train": images, "x_test": images},
        "no_x": {"weights": images},
        "empty": {},
        "scalar": {"x": np.float32(3.0)},
        "flat_labels": {"x": images, "y": np.arange(4)},
        "nan": {"x": images + np.nan},
        "big": {"x": images + 300.0},
        "negative": {"x": images - 1.0},
        "strings": {"x": np.array(["a", "b"])},
        "complex": {"x": images + 1j},
        "no_rows": {"x": images[:0]},
        "five": {"x": images[None]},
        "channels": {
            "x_train": np.zeros((6, 8, 8, 3), "uint8"),
            "x_test": np.zeros((6, 8, 8, 3), "uint8"),
        },
        "label_text": {"x": images, "y": np.array(list("abcdef"))},
        "label_nan": {"x": images, "y": np.full(6, np.nan)},
    }.items():
        np.savez(folder / f"{name}.npz", **arrays)
    np.savez(folder / "pickled.npz", x=np.array([images, None], object), allow_pickle=True)
    np.save(folder / "pickled.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(folder / "scalar.npy", np.float32(1))
    np.save(folder / "good.npy", images)
    whole = (folder / "good.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.npy").write_bytes((folder / "good.npy").read_bytes()[:200])
    for name in ("junk.npz", "junk.npy", "junk.mat", "junk.keras", "junk.txt", "junk.png"):
        (folder / name).write_bytes(b"\xff\xfe\x00junk" * 40)
    for name in ("void.npz", "void.npy", "void.mat", "void.keras", "void.txt"):
        (folder / name).touch()
    (folder / "table.csv").write_text("a,b\n1,2\n")
    (folder / "blank.txt").write_text("\n \n\t\n")
    (folder / "labels.txt").write_text("0\tgood food\nno label\n1\tbad food\n")
    (folder / "label_gap.txt").write_text("0\tgood food\n\n9\tbad food\n")
    (folder / "long.txt").write_text("good " * 50 + "\nbad\n")
    (folder / "good.txt").write_text("good food\nbad food\n" * 6)
    (folder / "empty_folder").mkdir()
    (folder / "text_folder").mkdir()
    (folder / "text_folder" / "readme.md").write_text("nothing")
    png(folder / "broken_images" / "a.png")
    (folder / "broken_images" / "b.png").write_bytes(b"\x89PNG junk")
    png(folder / "cut_images" / "a.png", (64, 64))
    png(folder / "cut_images" / "b.png", (64, 64))
    noise = np.random.default_rng(0).integers(0, 255, (64, 64)).astype("uint8")
    from PIL import Image

    Image.fromarray(noise).save(folder / "cut_images" / "b.png")
    whole = (folder / "cut_images" / "b.png").read_bytes()
    (folder / "cut_images" / "b.png").write_bytes(whole[: len(whole) // 2])
    png(folder / "mixed_images" / "a.png", (8, 8))
    png(folder / "mixed_images" / "b.png", (9, 8))
    for name in ("a", "b", "c"):
        png(folder / "images" / f"{name}.png")
    (folder / "only_train").mkdir()
    (folder / "only_train" / "train.txt").write_text("good food\nbad food\n")
    dense(4, 2).save(folder / "network.keras")
    whole = (folder / "network.keras").read_bytes()
    (folder / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (folder / "full").mkdir()
    (folder / "full" / "file").write_text("mine")
    return folder


# -- the rows ------------------------------------------------------------------------------------

PYTHON, COMMANDS = [], []


def bad(name, call, *holds, table=None):
    table = PYTHON if table is None else table
    taken = {row[0] for row in table}
    same = sum(other == name or other.startswith(f"{name} #") for other in taken)
    table.append((f"{name} #{same + 1}" if same else name, call, holds))


def each(argument, call, values, *holds):
    """A row for each bad value of an argument; the message names it."""
    shown = f"`{argument.split()[-1]}`"
    for value in values:
        name = f"{argument}={str(value)[:24]}".replace("\n", " ")
        bad(name, functools.partial(call, v=value), *(holds or (shown,)))


#: What strangers give for an array of numbers: the value, and what the message says of it.
ODD = {
    "dates": (lambda: np.full((12, 6), "2024-01-01", "datetime64[D]"), "real numbers"),
    "durations": (lambda: np.ones((12, 6), "timedelta64[s]"), "real numbers"),
    "records": (lambda: np.zeros(12, [("a", "f4"), ("b", "f4")]), "real numbers"),
    "arrays of unequal length": (lambda: np.array([X[0], X[0, :3]], object), "real numbers"),
    "transposed": (lambda: X.T.copy(), "(batch, 6)"),
    "a batch of batches": (lambda: X[None], "(batch, 6)"),
    "no columns": (lambda: X[:, :0], "at least one"),
    "two arrays": (lambda: (X, X, X, X), "tuple"),
    "arrays in a list": (lambda: [X, X], "list"),
    "a path": (lambda: pathlib.Path("x.npz"), "Path"),
    "a set": (lambda: {1, 2}, "set"),
    "a function": (lambda: len, "Received"),
    "a class": (lambda: np.ndarray, "Received"),
    "numbers and words": (lambda: np.array([[1, 0, "red", 0, 1, 1]] * 12, object), "real numbers"),
    "a memory map that is not there": (lambda: memoryview(b"abc"), "memoryview"),
    "a NaN in the last row": (lambda: spoilt(NAN), "finite"),
    "minus infinity": (lambda: spoilt(-INF, 5), "finite"),
}
ENTRIES = {
    "fit": lambda m, x: m.fit(x, verbose=0),
    "evaluate": lambda m, x: m.evaluate(x, verbose=0),
    "predict": lambda m, x: m.predict(x, verbose=0),
    "train_on_batch": lambda m, x: m.train_on_batch(x),
    "test_on_batch": lambda m, x: m.test_on_batch(x),
    "predict_on_batch": lambda m, x: m.predict_on_batch(x),
    "encode": lambda m, x: m.encode(x),
    "reconstruct": lambda m, x: m.reconstruct(x),
    "log_prob": lambda m, x: m.log_prob(x, 2),
    "validation_data": lambda m, x: m.fit(X, validation_data=x, verbose=0),
}


def odd_row(entry, name):
    value, rule = ODD[name]

    def call(w):
        ENTRIES[entry](w.vae, value())

    bad(f"{entry}: {name}", call, rule)


for _entry in ("fit", "evaluate", "train_on_batch", "encode", "log_prob"):
    for _name in ODD:
        odd_row(_entry, _name)
for _entry in ("predict", "test_on_batch", "predict_on_batch", "reconstruct", "validation_data"):
    for _name in ("dates", "transposed", "a path", "a set", "numbers and words", "minus infinity"):
        odd_row(_entry, _name)

# Values outside of the support, and of a size that no one means.
for _entry in ("train_on_batch", "test_on_batch", "validation_data"):
    for _value in (-0.01, 1.01, 255):
        bad(
            f"{_entry}: a value of {_value}",
            lambda w, e=_entry, v=_value: ENTRIES[e](w.vae, spoilt(v, 3)),
            "[0, 1]",
        )
for _entry in ("fit", "evaluate", "train_on_batch", "log_prob"):
    bad(
        f"{_entry}: Gaussian data of 1e30",
        lambda w, e=_entry: ENTRIES[e](w.gauss, spoilt(1e30, 3)),
        "`x`",
    )
for _name in ("gauss", "du", "hebae", "wae", "ae", "iaf", "iwae", "agg", "sa", "vaeas"):
    bad(f"{_name}.fit: NaN", lambda w, n=_name: getattr(w, n).fit(spoilt(NAN), verbose=0), "finite")
    bad(
        f"{_name}.evaluate: five columns",
        lambda w, n=_name: getattr(w, n).evaluate(X[:, :5], verbose=0),
        "(batch, 6)",
    )
    bad(f"{_name}.encode: words", lambda w, n=_name: getattr(w, n).encode(X.astype(str)), "real")

# Streams: the second batch is the bad one.
STREAMS = {
    "tf.data": tfdata,
    "PyDataset": lambda *batches: Batches(batches),
    "generator": generator,
}
SECOND = {
    "a NaN": (lambda: spoilt(NAN), "finite"),
    "255": (lambda: spoilt(255), "[0, 1]"),
    "-0.5": (lambda: spoilt(-0.5), "[0, 1]"),
    "five columns": (lambda: X[:, :5], "(batch, 6)"),
}
for _kind, _make in STREAMS.items():
    for _name, (_value, _rule) in SECOND.items():
        for _entry in ("fit", "evaluate", "predict", "validation_data"):
            if _entry == "predict" and _rule == "[0, 1]":
                continue
            bad(
                f"{_entry}: {_kind}, second batch: {_name}",
                lambda w, e=_entry, m=_make, v=_value: ENTRIES[e](w.vae, m(X, v())),
                _rule,
            )
for _kind, _value, _rule in (
    ("ragged", None, "`x`"),
    ("sparse", None, "`x`"),
    ("strings", None, "real numbers"),
    ("unbatched", None, "(batch, 6)"),
    ("dicts", None, "dict"),
    ("labels", None, "Received"),
    ("ragged batches", None, "`x`"),
):
    for _entry in ("fit", "predict", "encode"):
        bad(
            f"{_entry}: tf {_kind}",
            lambda w, e=_entry, k=_kind: ENTRIES[e](w.vae, tensors(k)),
            _rule if _entry != "encode" else "`x`",
        )
for _name, _batch in {
    "None": None,
    "a number": 3,
    "words": "abc",
    "a list of rows": [[0.0] * 6],
    "a dict": {"x": X},
    "five parts": (X, X, X, X, X),
    "an empty tuple": (),
    "one row": X[0],
    "no rows": X[:0],
}.items():
    for _kind in ("PyDataset", "generator"):
        bad(
            f"fit: {_kind} of {_name}",
            lambda w, k=_kind, b=_batch: w.vae.fit(STREAMS[k](b, b), verbose=0),
            "Received",
        )
bad("fit: generator not called", lambda w: w.vae.fit(lambda: generator(X), verbose=0), "`x`")
bad("fit: y beside tf.data", lambda w: w.vae.fit(tfdata(X), LABELS, verbose=0), "`y`")
bad("fit: y beside a PyDataset", lambda w: w.vae.fit(Batches([X]), LABELS, verbose=0), "`y`")
bad(
    "fit: weights beside a generator",
    lambda w: w.vae.fit(generator(X), sample_weight=X[:, 0], verbose=0),
    "`sample_weight`",
)
bad(
    "fit: split beside a generator",
    lambda w: w.vae.fit(generator(X), validation_split=0.5, verbose=0),
    "`validation_split`",
)

# Arguments of fit, evaluate and predict.
each("epochs", lambda w, v: w.vae.fit(X, epochs=v, verbose=0), (0, -3, 1.5, "3", None, True, [2]))
each(
    "initial_epoch", lambda w, v: w.vae.fit(X, initial_epoch=v, verbose=0), (-1, "0", 0.5, 4, None)
)
each("batch_size", lambda w, v: w.vae.fit(X, batch_size=v, verbose=0), ("4", [4], NAN, 1e9))
each("steps_per_epoch", lambda w, v: w.vae.fit(X, steps_per_epoch=v, verbose=0), (0, -1, "2", 1.5))
each(
    "validation_steps",
    lambda w, v: w.vae.fit(X, validation_data=X, validation_steps=v, verbose=0),
    (0, -1, "2"),
)
each(
    "validation_freq",
    lambda w, v: w.vae.fit(X, validation_data=X, validation_freq=v, verbose=0),
    (0, -1, "often"),
)
each(
    "validation_split",
    lambda w, v: w.vae.fit(X, validation_split=v, verbose=0),
    (1.0, -0.1, "0.1", NAN, 0.999),
)
each("verbose", lambda w, v: w.vae.fit(X, verbose=v), ("loud", -1, 7))
each("shuffle", lambda w, v: w.vae.fit(X, shuffle=v, verbose=0), ("maybe", 3))
each(
    "callbacks",
    lambda w, v: w.vae.fit(X, callbacks=v, verbose=0),
    ("monitor", [3], [len], {"a": 1}),
)
each(
    "callbacks",
    lambda w, v: w.vae.fit(X, callbacks=[v], verbose=0),
    (callbacks.CollapseWarning, "EarlyStopping"),
)
bad("fit: an unknown argument", lambda w: w.vae.fit(X, epoch=3), "epoch")
bad("evaluate: an unknown argument", lambda w: w.vae.evaluate(X, samples=3), "samples")
bad("predict: an unknown argument", lambda w: w.vae.predict(X, samples=3), "samples")
each("steps", lambda w, v: w.vae.evaluate(X, steps=v, verbose=0), (0, -1, "2"))
each("steps", lambda w, v: w.vae.predict(X, steps=v, verbose=0), (0, "2"))
bad("evaluate: no data", lambda w: w.vae.evaluate(), "`x`")
bad("predict: no data", lambda w: w.vae.predict(None), "`x`")
bad("train_on_batch: no data", lambda w: w.vae.train_on_batch(None), "`x`")
bad("fit: not compiled", lambda w: w.bare.fit(X, verbose=0), "compile")
bad("evaluate: not compiled", lambda w: w.bare.evaluate(X, verbose=0), "compile")
bad("train_on_batch: not compiled", lambda w: w.bare.train_on_batch(X), "compile")
WEIGHTS = {
    "negative": -np.ones(12),
    "one negative": np.r_[np.ones(11), -1e-3],
    "NaN": np.r_[np.ones(11), NAN],
    "infinite": np.r_[np.ones(11), INF],
    "of all zeros in two columns": np.zeros((12, 2)),
    "too few": np.ones(5),
    "words": np.array(["heavy"] * 12),
    "a number": 2.0,
    "a list too short": [1.0] * 3,
    "of images": np.ones((12, 6)),
    "complex": np.ones(12, "complex64"),
    "a word": "balanced",
}
for _name, _value in WEIGHTS.items():
    bad(
        f"fit: weights {_name}",
        lambda w, v=_value: w.vae.fit(X, sample_weight=v, verbose=0),
        "`sample_weight`",
    )
for _name in ("negative", "NaN", "too few", "words", "a number"):
    for _entry in ("train_on_batch", "evaluate"):
        bad(
            f"{_entry}: weights {_name}",
            lambda w, e=_entry, v=WEIGHTS[_name]: getattr(w.vae, e)(X, sample_weight=v),
            "`sample_weight`",
        )
for _name, _value in {
    "a list": [1.0, 2.0, 1.0],
    "a word": "balanced",
    "negative": {0: 1.0, 1: -1.0, 2: 1.0},
    "NaN": {0: 1.0, 1: NAN, 2: 1.0},
    "words": {0: "heavy", 1: 1.0, 2: 1.0},
}.items():
    bad(
        f"fit: class_weight {_name}",
        lambda w, v=_value: w.vae.fit(X, LABELS, class_weight=v, verbose=0),
        "`class_weight`",
    )
bad("fit: class_weight, no y", lambda w: w.vae.fit(X, class_weight={0: 1.0}), "`class_weight`")
for _name, _value in {
    "of other length": X[:5],
    "with NaN": spoilt(NAN, 2),
    "of 8 bits": 255 * X,
    "a path": pathlib.Path("y.npy"),
    "a set": {1},
}.items():
    for _entry in ("fit", "evaluate", "train_on_batch"):
        bad(f"{_entry}: y {_name}", lambda w, e=_entry, v=_value: getattr(w.vae, e)(X, v), "`y`")
for _name, _value in {
    "a word": "auto",
    "a number": 0.2,
    "an empty tuple": (),
    "five parts": (X, X, X, X, X),
    "no rows": X[:0],
    "y of other length": (X, X[:5]),
    "negative weights": (X, X, -np.ones(12)),
    "a dict": {"x": X},
    "a path": pathlib.Path("x"),
}.items():
    bad(
        f"fit: validation_data {_name}",
        lambda w, v=_value: w.vae.fit(X, validation_data=v, verbose=0),
        "`validation_data`",
    )

# Compiling, saving and extending.
each("optimizer", lambda w, v: w.bare.compile(v), ("adan", 3, None, "sdg", keras.optimizers.Adam))
each("jit_compile", lambda w, v: w.bare.compile("adam", jit_compile=v), ("maybe", 3))
each("run_eagerly", lambda w, v: w.bare.compile("adam", run_eagerly=v), ("maybe", 3))
each(
    "steps_per_execution", lambda w, v: w.bare.compile("adam", steps_per_execution=v), (0, "x", 1.5)
)
each("loss", lambda w, v: w.bare.compile("adam", loss=v), ("mse",))
each("metrics", lambda w, v: w.bare.compile("adam", metrics=v), (["accuracy"],))
bad("compile: an unknown argument", lambda w: w.bare.compile("adam", lr=0.1), "lr")
each("regularizer", lambda w, v: w.bare.add_regularizer(v), ("MMD", 3, None, losses.ELBO(), len))
each("steps_per_epoch", lambda w, v: w.gauss.set_steps_per_epoch(v), (0, -1, "x", 2.5, NAN))
each("filepath", lambda w, v: w.vae.save(v), (None, 3, "model", "model.onnx", ""), "filepath")
bad("save: in a file", lambda w: w.vae.save(w.files / "good.txt" / "m.keras"), "good.txt")
each("filepath", lambda w, v: w.vae.save_weights(v), (None, "weights.txt"), "filepath")
each("filepath", lambda w, v: w.vae.load_weights(v), (None, "missing.weights.h5"), "filepath")
each("filepath", lambda w, v: w.vae.export(v), (None, 3, ""))
each("format", lambda w, v: w.vae.export(w.folder / "e", format=v), ("h5", 3, "savedmodel"))
bad("export: over a file", lambda w: w.vae.export(w.files / "good.txt"), "good.txt")
bad("export: in a file", lambda w: w.vae.export(w.files / "good.txt" / "e"), "good.txt")
bad("export: into a folder in use", lambda w: w.vae.export(w.files / "full"), "full")
bad("export: an unknown argument", lambda w: w.vae.export(w.folder / "e", beams=3), "beams")
for _file in ("junk.keras", "void.keras", "cut.keras"):
    bad(f"load_features: {_file}", lambda w, f=_file: metrics.load_features(w.files / f), _file)
bad("load_features: none there", lambda w: metrics.load_features(w.files / "no.keras"), "no.keras")
bad("load_features: a folder", lambda w: metrics.load_features(w.files / "full"), "full")
each("path", lambda w, v: metrics.load_features(v), (None, 3))

# Codes, drawing and interpolation.
each("num", lambda w, v: w.vae.generate(v), ("ten", NAN, None, [3], 1e3))
each("seed", lambda w, v: w.vae.generate(1, seed=v), (NAN, "now", [1]))
each("mean", lambda w, v: w.vae.generate(1, mean=v), ("maybe", 3, None))
each("batch_size", lambda w, v: w.vae.generate(1, batch_size=v), ("8", NAN, None))
for _option in ("temperature", "top_k", "top_p"):
    bad(f"generate: {_option} of images", lambda w, o=_option: w.vae.generate(1, **{o: 1}), _option)
each("temperature", lambda w, v: w.text.generate(1, temperature=v), (0, -1, NAN, "hot", INF))
each("top_k", lambda w, v: w.text.generate(1, top_k=v), (-1, 2.5, "all"))
each("top_p", lambda w, v: w.text.generate(1, top_p=v), (0, 1.5, NAN, "all"))
each("z", lambda w, v: w.vae.decode(v), (3.0, {"z": Z}, {1}, Z.astype("datetime64[s]"), Z[:, :0]))
each("z", lambda w, v: w.text.decode(v), (None, Z[:, :2], Z * NAN, Z.astype(str)))
bad("decode: a posterior", lambda w: w.vae.decode(w.vae.encode(X)), "`z`")
each("beam_size", lambda w, v: w.text.decode(Z, beam_size=v), (0, -1, 2.5, "3"))
each("length_penalty", lambda w, v: w.text.decode(Z, beam_size=2, length_penalty=v), (-1, NAN, "a"))
bad("decode: beams of images", lambda w: w.vae.decode(Z, beam_size=3), "beam_size")
bad(
    "decode: log_prob of images", lambda w: w.vae.decode(Z, return_log_prob=True), "return_log_prob"
)
each("return_log_prob", lambda w, v: w.text.decode(Z, return_log_prob=v), ("maybe", 3))
each("steps", lambda w, v: w.vae.interpolate(X, X, steps=v), (1, 0, "3", 2.5, None))
each("path", lambda w, v: w.vae.interpolate(X, X, path=v), ("circle", 3, None))
each("batch_size", lambda w, v: w.vae.interpolate(X, X, batch_size=v), (0, "3"))
bad("interpolate: other rows", lambda w: w.vae.interpolate(X[:3], X[:4]), "`a`", "`b`")
bad("interpolate: None", lambda w: w.vae.interpolate(X, None), "`b`")
each("num_samples", lambda w, v: w.vae.log_prob(X, v), ("5", NAN, None, [2]))
each("seed", lambda w, v: w.vae.log_prob(X, 2, seed=v), (NAN, "now", X))
each("batch_size", lambda w, v: w.vae.log_prob(X, 2, batch_size=v), ("3", NAN, None))
bad("log_prob: target of words", lambda w: w.vae.log_prob(X, 2, target=X.astype(str)), "`target`")
bad("log_prob: of a WAE", lambda w: w.wae.log_prob(X), "log_prob")
bad("log_prob: of a point", lambda w: w.point.log_prob(X), "log_prob")
each("refine_steps", lambda w, v: w.sa.encode(X, refine_steps=v), (-1, 2.5, "x", NAN))
bad("encode: steps of a VAE", lambda w: w.vae.encode(X, refine_steps=3), "refine_steps")
bad("vaeas: more rows", lambda w: w.vaeas.fit(np.r_[X, X], verbose=0), "num_examples")
bad("vaeas: no index", lambda w: w.vaeas.fit(generator(X), verbose=0), "index")
bad("vaeas: index of words", lambda w: w.vaeas.fit(X, {"index": np.array(["a"] * 12)}), "index")
bad("vaeas: index -1", lambda w: w.vaeas.fit(X, {"index": np.arange(12) - 1}), "index")
bad("vaeas: index 12", lambda w: w.vaeas.fit(X, {"index": np.arange(12) + 1}), "index")
bad("hebae: batches of 2", lambda w: w.hebae.fit(X, batch_size=2, verbose=0), "batch_size")
bad("wae: batches of 1", lambda w: w.wae.fit(X, batch_size=1, verbose=0), "batch_size")

# Sentences.
SENTENCES = {
    "half ids": (WORDS + 0.5, "`x`"),
    "id -5": (np.where(WORDS == 5, -5, WORDS), "-5"),
    "id 99": (np.where(WORDS == 5, 99, WORDS), "99"),
    "one sentence": (WORDS[0], "(batch, 6)"),
    "rank 3": (WORDS[..., None], "(batch, 6)"),
    "words": (np.array([["good", "food"]]), "`x`"),
    "a list": (WORDS.tolist(), "list"),
    "a string": ("good food", "str"),
    "NaN": (WORDS + NAN, "`x`"),
    "too long": (np.repeat(WORDS, 2, 1), "(batch, 6)"),
    "only padding": (np.zeros_like(WORDS), "`x`"),
    "no start": (np.roll(WORDS, -1, 1), "`x`"),
    "no end": (np.where(WORDS == 2, 7, WORDS), "row 0 ends in 7"),
}
for _name, (_value, _rule) in SENTENCES.items():
    for _entry in ("fit", "encode"):
        bad(
            f"text.{_entry}: {_name}",
            lambda w, e=_entry, v=_value: ENTRIES[e](w.text, v),
            _rule,
        )
for _name in ("id 99", "words", "a list", "half ids", "no end"):
    for _entry in ("evaluate", "log_prob", "reconstruct"):
        bad(
            f"text.{_entry}: {_name}",
            lambda w, e=_entry, v=SENTENCES[_name][0]: ENTRIES[e](w.text, v),
            SENTENCES[_name][1],
        )
each("words", lambda w, v: data.Vocabulary(v), ("abc", 3, None, ["a", "a"], [1, 2]))
each(
    "sentences",
    lambda w, v: data.to_ids(v, w.vocabulary),
    (3, None, [1, 2], "good", [None], [b"a"]),
)
each("length", lambda w, v: data.to_ids(["good"], w.vocabulary, length=v), (0, -1, "a", 2.5, 1))
bad("Vocabulary: an empty word", lambda w: data.Vocabulary([""]), "word")
each("vocabulary", lambda w, v: data.to_ids(["good"], v), (None, 3, ["good"]))
bad("to_ids: no file", lambda w: data.to_ids(["good"], "abc.txt"), "abc.txt")
each("ids", lambda w, v: data.to_text(v, w.vocabulary), ([[99]], [[-1]], "good", None, [[0.5]], 3))
each("vocabulary", lambda w, v: data.to_text(WORDS, v), (None, 3, {"a": 4}))
for _file in ("junk.txt", "void.txt", "missing.txt", "full"):
    bad(f"Vocabulary.load: {_file}", lambda w, f=_file: data.Vocabulary.load(w.files / f), _file)

# Files.
for _file, *_holds in (
    ("no_x.npz", "weights"),
    ("empty.npz",),
    ("scalar.npz",),
    ("flat_labels.npz", "6", "4"),
    ("nan.npz",),
    ("strings.npz",),
    ("complex.npz",),
    ("no_rows.npz",),
    ("five.npz",),
    ("pickled.npz",),
    ("pickled.npy",),
    ("scalar.npy",),
    ("cut.npz",),
    ("cut.npy",),
    ("junk.npz",),
    ("junk.npy",),
    ("junk.mat",),
    ("void.npz",),
    ("void.npy",),
    ("void.mat",),
    ("table.csv",),
    ("missing.npz",),
    ("missing_folder",),
    ("empty_folder",),
    ("text_folder",),
    ("broken_images", "b.png"),
    ("cut_images", "b.png"),
    ("mixed_images", "image_size"),
    ("junk.png",),
    ("void.keras",),
):
    bad(
        f"load_arrays: {_file}",
        lambda w, f=_file: data.load_arrays(w.files / f, "train"),
        _file,
        *_holds,
    )
for _file in (
    "cut.npz",
    "junk.npy",
    "void.mat",
    "missing.npz",
    "empty_folder",
    "table.csv",
    "nan.npz",
):
    bad(f"load: {_file}", lambda w, f=_file: list(data.load(w.files / f, "train")), _file)
    bad(f"describe: {_file}", lambda w, f=_file: data.describe(w.files / f), _file)
for _file in ("junk.txt", "void.txt", "blank.txt", "missing.txt", "labels.txt", "long.txt", "full"):
    options = {"max_length": 10} if _file == "long.txt" else {}
    bad(
        f"load_text_arrays: {_file}",
        lambda w, f=_file, o=options: data.load_text_arrays(w.files / f, **o),
        _file,
    )
bad("load_text: only train", lambda w: data.load_text(w.files / "only_train", "test"), "only_train")
bad("load_text: images", lambda w: data.load_text(w.files / "images"), "images")
bad("load_arrays: split tset", lambda w: data.load_arrays("digits", "tset"), "split", "tset")
each("split", lambda w, v: data.load_arrays("digits", v), ("test[", "test[a:b]", 3, None, ""))
each("split", lambda w, v: data.load_arrays("digits", v), ("test[5:5]", "test[9:3]", "train[:0]"))
each("name_or_path", lambda w, v: data.load_arrays(v), (None, 3, "", ["digits"], X))
bad("load_arrays: digit", lambda w: data.load_arrays("digit"), "digit", "digits")
each("limit", lambda w, v: data.load_arrays("digits", limit=v), (0, -1, "3", 2.5))
each("data_dir", lambda w, v: data.load_arrays("mnist", data_dir=v), ("/nowhere/at/all", 3))
each("image_size", lambda w, v: data.load_arrays("digits", image_size=v), ("big", -3, (8, 8, 8)))
bad("with_index: an array", lambda w: data.with_index(X), "dataset")

# Presets.
each(
    "preset", lambda w, v: zoo.load(v), (None, 3, "", "vae", "du_vae_digit_mlp", ["vae_digits_mlp"])
)
for _part in ("model", "networks", "training", "data"):
    each(
        _part,
        lambda w, v, p=_part: zoo.load("vae_digits_mlp", **{p: v}),
        ("x", 3, ["gamma"], {"speed": 3}, {3: 3}),
        _part,
    )
bad("zoo.load: unknown argument", lambda w: zoo.load("vae_digits_mlp", epochs=3), "epochs")


# Instruments.
def fail(values):
    raise RuntimeError("out of luck")


FOREIGN = {
    "one output": lambda x: x,
    "no output": lambda x: None,
    "words": lambda x: (["a"] * 60, ["b"] * 60),
    "other rows": lambda x: (np.zeros((3, 2)), np.zeros((3, 2))),
    "unequal shapes": lambda x: (x[:, :2], x[:, :3]),
    "NaN": lambda x: (x[:, :3] + NAN, x[:, :3]),
    "rank 3": lambda x: (x[:, None], x[:, None]),
    "a dict": lambda x: {"mu": x[:, :3]},
    "an error": fail,
}
LONG = np.tile(X, (5, 1))


def own_decoder(z):
    return keras.ops.repeat(z, 2, axis=-1)


def own_encoder(x):
    return x[:, :3], x[:, 3:]


for _name, _encoder in FOREIGN.items():
    for _call in ("diagnose", "negative_log_likelihood"):
        bad(
            f"{_call}: encoder of {_name}",
            lambda w, c=_call, e=_encoder: getattr(metrics, c)(
                e, decoder=own_decoder, data=LONG, likelihood="bernoulli"
            ),
            "encoder",
        )
for _name, _decoder in {
    "no output": lambda z: None,
    "other rows": lambda z: np.zeros((3, 6)),
    "other columns": lambda z: z,
    "NaN": lambda z: own_decoder(z) + NAN,
    "words": lambda z: np.full((60, 6), "a"),
    "an error": fail,
    "a Keras model of other codes": None,
}.items():
    bad(
        f"diagnose: decoder of {_name}",
        lambda w, d=_decoder: metrics.diagnose(own_encoder, d or dense(9, 6), LONG, "bernoulli"),
        "decoder",
    )
each(
    "likelihood",
    lambda w, v: metrics.diagnose(own_encoder, own_decoder, LONG, v),
    ("poisson", 3, "Bernouli"),
)
bad("diagnose: no data", lambda w: metrics.diagnose(w.vae), "`data`")
bad("diagnose: nothing", lambda w: metrics.diagnose(None, data=LONG), "`model`")
bad("diagnose: a path", lambda w: metrics.diagnose("model.keras", data=LONG), "`model`")
for _name in (
    "dates",
    "transposed",
    "a path",
    "a set",
    "numbers and words",
):
    bad(
        f"diagnose: {_name}",
        lambda w, n=_name: metrics.diagnose(w.vae, data=ODD[n][0]()),
        "`data`",
    )
bad("diagnose: one row", lambda w: metrics.diagnose(w.vae, data=X[:1]), "`data`")
for _metric in (
    "active_units",
    "mutual_information",
    "marginal_divergence",
    "conditional_entropy",
    "aggregate_moments",
    "rate_per_dimension",
    "mutual_posterior_divergence",
    "mine",
):
    for _name, _value in {"None": None, "NaN": spoilt(NAN), "a path": pathlib.Path("x")}.items():
        bad(
            f"{_metric}: data {_name}",
            lambda w, m=_metric, v=_value: getattr(metrics, m)(w.vae, v),
            "`data`",
        )
    bad(f"{_metric}: no model", lambda w, m=_metric: getattr(metrics, m)("vae", LONG), "Received")
each("metrics", lambda w, v: metrics.evaluate(w.vae, LONG, metrics=v), (["nll"], 3, [], [3]))
each("options", lambda w, v: metrics.evaluate(w.vae, LONG, options=v), ("x", {"nll": {}}, [1]))
bad(
    "evaluate: an unknown option",
    lambda w: metrics.evaluate(
        w.vae, LONG, metrics=["active_units"], options={"active_units": {"t": 1}}
    ),
    "active_units",
)
each("labels", lambda w, v: metrics.evaluate(w.vae, X, v), (LABELS[:4], "digits"))
each("num_images", lambda w, v: metrics.evaluate(w.vae, LONG, num_images=v), (0, "all", 1))
bad("evaluate: of a path", lambda w: metrics.evaluate("m.keras", LONG), "`model`")
bad("metrics.evaluate: no data", lambda w: metrics.evaluate(w.vae, None), "`data`")
PAIR = (X, LABELS)
for _probe in ("knn_probe", "linear_probe", "kmeans_probe", "classifier_probe"):
    for _name, (_train, _test) in {
        "no labels": (X, PAIR),
        "fewer labels": ((X, LABELS[:5]), PAIR),
        "None": (None, PAIR),
        "other columns": (PAIR, (X[:, :3], LABELS)),
        "NaN": (PAIR, (spoilt(NAN), LABELS)),
        "labels of words": ((X, np.array(["a"] * 12)), PAIR),
    }.items():
        bad(
            f"{_probe}: {_name}",
            lambda w, p=_probe, a=_train, b=_test: getattr(metrics, p)(a, b),
            "`train`" if _train is not PAIR else "`test`",
        )
bad(
    "few_label_probe: more than there are",
    lambda w: metrics.few_label_probe(PAIR, PAIR, PAIR, num_labels=99),
    "num_labels",
)
bad(
    "knn_probe: more neighbors",
    lambda w: metrics.knn_probe(PAIR, PAIR, num_neighbors=99),
    "num_neighbors",
)
bad(
    "kmeans_probe: more clusters",
    lambda w: metrics.kmeans_probe(PAIR, PAIR, num_clusters=99),
    "num_clusters",
)
for _distance in ("frechet_distance", "kernel_distance"):
    call = functools.partial(lambda w, d, *a, **k: getattr(metrics, d)(*a, **k), d=_distance)
    for _name, _a, _b, _options in (
        ("other shapes", X, X[:, :3], {}),
        ("one row", X[:1], X[:1], {}),
        ("None", None, X, {}),
        ("NaN", X, spoilt(NAN), {}),
        ("unknown features", X, X, {"features": "vgg"}),
    ):
        bad(
            f"{_distance}: {_name}",
            lambda w, d=_distance, a=_a, b=_b, o=_options: getattr(metrics, d)(
                a, b, **{"features": "pixels", **o}
            ),
            "Received",
        )
bad("perplexity: of images", lambda w: metrics.perplexity(w.vae, X), "sentences")
each(
    "data",
    lambda w, v: callbacks.LatentMonitor(v, log_dir=w.folder / "l"),
    (None, "x", {1}, X[:0], 3),
)
each(
    "labels",
    lambda w, v: callbacks.LatentMonitor(X, v, log_dir=w.folder / "l"),
    (LABELS[:4], "x", 3),
)
each("data", lambda w, v: callbacks.CollapseWarning(v), (None, "x", {1}, X[:0], 3))
each("log_dir", lambda w, v: callbacks.LatentMonitor(X, log_dir=v), (None, 3))


def watched(*given):
    return lambda w: w.vae.fit(X, callbacks=[given[0](w)], verbose=0)


bad(
    "monitor: other columns",
    watched(lambda w: callbacks.LatentMonitor(X[:, :4], log_dir=w.folder / "l")),
    "`data`",
)
bad(
    "monitor: NaN",
    watched(lambda w: callbacks.LatentMonitor(spoilt(NAN), log_dir=w.folder / "l")),
    "`data`",
)
bad("warning: other columns", watched(lambda w: callbacks.CollapseWarning(X[:, :4])), "`data`")
bad("warning: NaN", watched(lambda w: callbacks.CollapseWarning(spoilt(NAN))), "`data`")
bad("gains of a VAE", watched(lambda w: callbacks.GammaRenormalization(0.5)), "gamma")
bad("aggressive: a VAE", watched(lambda w: callbacks.AggressiveTraining(X)), "AggVAE")
bad(
    "annealing: a WAE",
    lambda w: w.wae.fit(X, callbacks=[callbacks.KLAnnealing(3)], verbose=0),
    "beta",
)
bad("plateau: unknown monitor", watched(lambda w: callbacks.PlateauDecay(monitor="val_x")), "val_x")
bad("plateau: no validation", watched(lambda w: callbacks.PlateauDecay()), "val_distortion")
each("validation_data", lambda w, v: callbacks.AggressiveTraining(v), ("x", 3, {1}))
each("schedule", lambda w, v: losses.InEpochs(v), ("x", 3, None))

# -- the command line ----------------------------------------------------------------------------

PRESET, TEXT = "vae_digits_mlp", "text_vae_text_tiny"
TINY = "--set networks.hidden_units=[8] --set networks.decoder.hidden_units=[8] --set latent_dim=2"
TINY = [*TINY.split(), "--limit", "64", "--no-monitor", "--xla" if not TF else "--no-xla", "-q"]
TINY_TEXT = (
    "--set networks.units=4 --set networks.embedding_dim=4 --set latent_dim=3 --no-monitor -q"
)
TINY_TEXT = [*TINY_TEXT.split(), "--xla" if not TF else "--no-xla"]


def cli(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def train(preset, *words):
    result = cli("train", preset, "--epochs", 1, *words)
    assert result.exit_code == 0, result.output


def make_text_run(folder):
    """A tiny run on text, and its corpus."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for split in ("train", "valid", "test"):
        (corpus / f"{split}.txt").write_text("0\tgood food !\n1\tbad food !\n" * 10)
    train(TEXT, *TINY_TEXT, "--data", corpus, "--batch-size", 5, "--out", folder / "text")


def make_image_runs(folder):
    """A tiny run on images, and copies that are broken."""
    train(PRESET, *TINY, "--out", folder / "images")
    run = folder / "images"
    whole = (run / "model.keras").read_bytes()
    config = (run / "config.json").read_text()
    for name, changes in {
        "a[0] b": {},
        "model cut": {"model.keras": whole[: len(whole) // 2]},
        "model void": {"model.keras": b""},
        "model junk": {"model.keras": b"junk" * 50},
        "config list": {"config.json": b"[1, 2]"},
        "config null": {"config.json": b"null"},
        "config cut": {"config.json": config.encode()[: len(config) // 2]},
        "config bytes": {"config.json": b"\x00\xff" * 9},
        "preset gone": {"config.json": config.replace(PRESET, "none_such").encode()},
        "preset number": {"config.json": config.replace(f'"{PRESET}"', "3").encode()},
        "data gone": {"config.json": config.replace('"digits"', '"/no/such.npz"').encode()},
        "data number": {"config.json": config.replace('"digits"', "3").encode()},
        "no config": {"config.json": None},
        "no model": {
            "model.keras": None,
            "checkpoints/last.keras": None,
            "checkpoints/best.keras": None,
        },
    }.items():
        copy = shutil.copytree(run, folder / name)
        for file, content in changes.items():
            (copy / file).unlink(missing_ok=True)
            if content is not None:
                (copy / file).write_bytes(content)
    (folder / "empty").mkdir()
    (folder / "file.txt").write_text("mine")
    dense(4, 2).save(folder / "foreign.keras")
    (folder / "served").mkdir()
    (folder / "served" / "saved_model.pb").write_bytes(b"junk")


def line(text, *holds, name=None):
    """A row of the command line: `{r}` is the folder of runs, `{f}` that of files."""
    bad(name or text, text, *holds, table=COMMANDS)


def lines(text, values, *holds):
    for value in map(str, values):
        line(text.replace("{v}", value), *(hold.replace("{v}", value) for hold in holds))


# Words that are no command, option or value.
line("trian vae_digits_mlp", "train")
line("tarin", "train")
line("--verison", "--version")
line("evaluat {r}/images", "evaluate")
line("list vae_digit_mlp", "vae_digits_mlp")
line("list --all", "--all")
line("list a b", "b")
line("train", "PRESET")
line("train vae_digits_mlp extra", "extra")
line("train vae_digits_mlp --epoch 3", "--epochs")
line("train VAE_DIGITS_MLP", "vae_digits_mlp")
line("train ''", "preset", name="train with an empty name")
for _command in (
    "sample", "evaluate", "diagnose", "cure", "export", "reconstruct", "interpolate"
):  # fmt: skip
    line(f"{_command}", "Missing")
    line(f"{_command} {{r}}/images --loud", "--loud")
line("export {r}/images", "FOLDER")

# Numbers out of range.
lines("train vae_digits_mlp --out {n} --epochs {v}", (0, -1, "ten", 1.5, "nan", "1e3"), "--epochs")
lines("train vae_digits_mlp --out {n} --batch-size {v}", (0, -8, "big", 2.5), "--batch-size")
lines("train vae_digits_mlp --out {n} --limit {v}", (0, -1, "all"), "--limit")
lines("train vae_digits_mlp --out {n} --seed {v}", (-1, 2**31, "now", 0.5), "--seed")
lines("train vae_digits_mlp --out {n} --steps-per-execution {v}", (0, "x"), "--steps-per-execution")
lines("train vae_digits_mlp --out {n} --precision {v}", ("float8", 16, "mixed"), "recision")
lines("train vae_digits_mlp --out {n} --validation {v}", (0.1, "yes", "test[", "test[x:]"), "{v}")
lines("sample {r}/images --out {n}.png -n {v}", (0, -1, "many", 1.5), "-n")
lines("sample {r}/images --out {n}.png --scale {v}", (0, -2, "large"), "--scale")
lines("sample {r}/images --out {n}.png --seed {v}", (-1, "now"), "--seed")
line("sample {r}/images --out {n}.png -n 1 --scale 100000", "scale")
line("sample {r}/images --out {n}.png -n 100000000 --seed 1", "100,000,000 images")
lines("sample {r}/text --temperature {v}", (0, -1, "nan", "hot"), "temperature")
lines("sample {r}/text --top-k {v}", (-3, "few", 2.5), "top")
lines("sample {r}/text --top-p {v}", (0, 1.5, "nan", "x"), "top")
lines(
    "sample {r}/images --out {n}.png {v}",
    ("--temperature 0.5", "--top-k 3", "--top-p 0.5"),
    "likelihood of classes",
)
lines("evaluate {r}/images --out {n}.json -k {v}", (0, -1, "all"), "-k")
lines("evaluate {r}/images --out {n}.json --images {v}", (1, "all"), "--images")
lines("evaluate {r}/images --out {n}.json --limit {v}", (1, 0, "x"), "--limit")
lines("diagnose {r}/images --out {n}.html --limit {v}", (1, "x"), "--limit")
lines("diagnose {r}/images --out {n}.html --seed {v}", (-1, "x"), "--seed")
lines("cure {r}/images --out {n}.html --limit {v}", (1, "x"), "--limit")
lines("cure {r}/images --out {n}.html --seed {v}", (-1, "x", 2**31), "--seed")
lines("cure {r}/images --out {n}.html --budget {v}", ("soon", 0, -1, 30, "2d", "nan"), "budget")
lines("cure {r}/images --out {n}.html --remedies {v}", (0, -1, "all", 1.5), "--remedies")
lines("cure {r}/images --out {n}.html --steps {v}", (0, -5, "x", 1.5), "--steps")
lines("reconstruct {r}/images --out {n}.png -n {v}", (0, "x"), "-n")
lines("reconstruct {r}/text good --beam {v}", (0, "x"), "--beam")
lines("reconstruct {r}/text good --beam 2 --length-penalty {v}", (-1, "nan", "x"), "length")
lines("interpolate {r}/images --out {n}.png --steps {v}", (1, 0, "x"), "--steps")
line("interpolate {r}/images 0 99999 --out {n}.png", "99999")
line("interpolate {r}/images --out {n}.png -- -1 3", "-1")
line("interpolate {r}/images a b --out {n}.png", "place")
line("interpolate {r}/images 3 --out {n}.png", "images")
lines("export {r}/text {n} --beam {v}", (0, "x"), "--beam")
line("export {r}/images {n} --beam 3", "beam")
line("reconstruct {r}/images 'a sentence'", "sentence")
line("reconstruct {r}/text", "sentence")
line("reconstruct {r}/text ''", "sentence", name="reconstruct an empty sentence")
line("interpolate {r}/text good", "two")
line("reconstruct {r}/images --beam 3", "beam")
line("interpolate {r}/text good bad --out {n}.png", "--out")
line("sample {r}/text --scale 2", "--scale")

# Settings of every odd kind.
SETTINGS = {
    "latent_dim=0": "latent_dim",
    "latent_dim=two": "latent_dim",
    "latent_dim=[2]": "latent_dim",
    "latent_dim=nan": "latent_dim",
    "latent_dim=None": "latent_dim",
    "latent_dim": "key=value",
    "=3": "key=value",
    "latent_dim=": "latent_dim",
    "lattent_dim=3": "latent_dim",
    "likelihood=poisson": "poisson",
    "likelihood=3": "likelihood",
    "num_samples=0": "num_samples",
    "head=GaussianHead()": "GaussianHead",
    "head=GaussianHed(2)": "GaussianHead",
    "head=3": "head",
    "prior=normal": "prior",
    "prior=VampPrior(0)": "num_components",
    "beta=__import__('os').getcwd()": "beta",
    "beta=LinearSchedule(1,2": "LinearSchedule",
    "seed=-1": "seed",
    "name=3": "name",
    "networks=mlp": "networks",
    "networks.kind=mpl": "mlp",
    "networks.kind=3": "kind",
    "networks.hidden_units=8": "hidden_units",
    "networks.hidden_units=[0]": "hidden_units",
    "networks.hidden_units=[eight]": "hidden_units",
    "networks.hiden_units=[8]": "hidden_units",
    "networks.activation=rellu": "rellu",
    "networks.decoder=3": "decoder",
    "networks.decoder.kind=pixel": "pixel",
    "networks.decoder.hidden_units=x": "hidden_units",
    "training=fast": "training",
    "training.batch_size=0": "batch_size",
    "training.batch_size=x": "batch_size",
    "training.optimizer=3": "optimizer",
    "training.optimizer=": "optimizer",
    "training.learning_rate=fast": "learning_rate",
    "training.learning_rate=-1": "learning_rate",
    "training.clipnorm=-1": "clipnorm",
    "training.weight_decay=x": "weight_decay",
    "data=digits": "data",
    "data.batch_size=0": "batch_size",
    "data.binarize=3": "binarize",
    "data.value_range=(1,0)": "value_range",
    "data.value_range=1": "value_range",
    "data.value_range=(a,b)": "value_range",
    "data.image_size=big": "image_size",
    "data.channels=7": "channels",
    "data.copies=0": "copies",
    "data.seed=x": "seed",
    "data.invert=3": "invert",
    "data.name_or_path=3": "name_or_path",
    "data.split=3": "split",
    "a.b.c.d=3": "key=value",
    "data.vocabulary=3": "vocabulary",
}
for _setting, _hold in SETTINGS.items():
    bad(
        f"--set {_setting}",
        ["train", PRESET, "--out", "{n}", "--set", _setting],
        _hold,
        table=COMMANDS,
    )

# Data.
for _file in (
    "no_x.npz cut.npz junk.npz void.npz nan.npz strings.npz no_rows.npz pickled.npy junk.mat "
    "table.csv missing.npz empty_folder text_folder broken_images mixed_images good.txt"
).split():
    line(f"train vae_digits_mlp --out {{n}} --data {{f}}/{_file}", _file)
for _file in "junk.txt void.txt blank.txt missing.txt images good.npz".split():
    line(f"train {TEXT} --out {{n}} --data {{f}}/{_file}", _file)
line("train vae_digits_mlp --out {n} --data mnist --data-dir {f}/nowhere", "mnist")
line("train vae_digits_mlp --out {n} --data mnist --data-dir {f}/good.txt", "good.txt")
line("train vae_digits_mlp --out {n} --data {f}/big.npz --set data.value_range=(0,1)", "big.npz")
for _command, _end in (
    ("evaluate", "json"),
    ("diagnose", "html"),
    ("cure", "html"),
    ("reconstruct", "png"),
):
    _line = f"{_command} {{r}}/images --out {{n}}.{_end}"
    line(f"{_line} --data {{f}}/cut.npz", "cut.npz")
    line(f"{_line} --data {{f}}/good.txt", "good.txt")
    line(f"{_line} --data {{f}}/channels.npz", "shape")
    lines(f"{_line} --split {{v}}", ("tset", "test["), "split")
line("interpolate {r}/images --out {n}.png --split tset", "split")

# Runs and models.
for _command, _rest in {
    "sample": " --out {n}.png",
    "evaluate": " --out {n}.json -m active_units",
    "diagnose": " --out {n}.html",
    "cure": " --out {n}.html",
    "export": " {n}",
    "reconstruct": " --out {n}.png",
    "interpolate": " --out {n}.png",
}.items():
    for _run in (
        "empty",
        "file.txt",
        "none",
        "foreign.keras",
        "model cut",
        "model junk",
        "no model",
    ):
        bad(
            f"{_command} {_run}",
            f"{_command} '{{r}}/{_run}'{_rest}",
            _run.split("/")[-1],
            table=COMMANDS,
        )
for _command, _rest in {
    "evaluate": " --out {n}.json",
    "diagnose": " --out {n}.html",
    "cure": " --out {n}.html",
}.items():
    for _run in (
        "config list",
        "config cut",
        "config bytes",
        "data gone",
        "data number",
        "no config",
        "served",
    ):
        _hold = {"no config": "data", "data gone": "such.npz", "data number": "name_or_path"}
        bad(
            f"{_command} {_run}",
            f"{_command} '{{r}}/{_run}'{_rest}",
            _hold.get(_run, _run),
            table=COMMANDS,
        )
for _run in (
    "config list",
    "config null",
    "config cut",
    "preset gone",
    "preset number",
    "no config",
):
    bad(
        f"resume {_run}",
        f"train vae_digits_mlp --out '{{r}}/{_run}' --resume --epochs 2",
        _run,
        table=COMMANDS,
    )
line("train vae_digits_mlp --out {r}/file.txt", "file.txt")
line("train vae_digits_mlp --out {r}/file.txt/run", "file.txt")
line("train vae_digits_mlp --out {r}/images", "images")
line("train vae_digits_mlp --out '{r}/a[0] b'", "a[0] b")
line("train vae_digits_mlp --out {r}/corpus --overwrite", "corpus")
line("train du_vae_digits_mlp --out {r}/images --resume", "vae_digits_mlp")
line("train vae_digits_mlp --out {r}/images --resume --epochs 1 --seed 5", "seed")
line("train vae_digits_mlp --out {n} --resume", "{n}")
line("train vae_digits_mlp --out /proc/none/run", "/proc/none")
line("sample {r}/images --out {r}/file.txt", "file.txt")
line("sample {r}/images --out {n}.jpg", ".jpg")
line("sample {r}/images --out {n}", ".png")
line("sample {r}/images --out {r}/empty", "empty")
line("sample {r}/text --out {n}.png", ".png")
line("sample {r}/images --out {n}.txt", ".txt")
line("sample {r}/images --out /proc/none.png", "/proc/none.png")
line("sample '{r}/a[1] b'", "a[1] b")
line("reconstruct {r}/images --out {n}.npz", ".png")
line("evaluate {r}/images --out {r}/empty --overwrite", "empty")
line("evaluate {r}/images --out /proc/none.json", "/proc/none.json")
line("diagnose {r}/images --out /proc/none.html", "/proc/none.html")
line("cure {r}/images --out /proc/none.html", "/proc/none.html")
line("cure {r}/images --out {r}/empty --overwrite", "empty")
line("cure {r}/images --out {n}.html --keep {r}/images", "images")
line("cure {r}/images --out {n}.html --keep {r}/corpus --overwrite", "corpus")
line("cure {r}/images --out {n}.html --keep {r}/file.txt", "file.txt")
line("cure {r}/images --out {n}.html --keep /proc/none", "/proc/none")
line("cure {r}/images/model.keras --out {n}.html --keep {n}", "--keep")
line("cure {r}/images --out {n}.html --likelihood gaussian", "likelihood")
line("export {r}/images {r}/corpus", "corpus")
line("export {r}/images {r}/file.txt", "file.txt")
line("export {r}/images /proc/none", "/proc/none")
# Metrics.
lines("evaluate {r}/images --out {n}.json -m {v}", ("nll", "active_unit", "probe"), "metric")
lines(
    "evaluate {r}/images --out {n}.json -m samples --features {v}", ("vgg", "{f}/junk.keras"), "{v}"
)
for _setting, _hold in {
    "active_units.treshold=1": "threshold",
    "active_unit.threshold=1": "active_units",
    "threshold=1": "METRIC.KEY=VALUE",
    "active_units.threshold=x": "threshold",
    "active_units.threshold": "METRIC.KEY=VALUE",
}.items():
    line(f"evaluate {{r}}/images --out {{n}}.json -m active_units --set {_setting}", _hold)
line("evaluate {r}/images --out {n}.json --likelihood poisson", "likelihood")
line("diagnose {r}/images --out {n}.html --likelihood gaussian", "likelihood")
line("evaluate {r}/images --out {n}.json -m perplexity", "perplexity")
line("evaluate {r}/images --out {n}.json -m alphabet_probe", "digits")


def cli_verdict(text, world, holds):
    """What is wrong with the answer of the command line, or an empty string."""
    places = {"{r}": world.folder / "runs", "{f}": world.files, "{n}": world.folder / "new"}
    words = shlex.split(text) if isinstance(text, str) else text
    for name, place in places.items():
        words = [word.replace(name, str(place)) for word in words]
    if words[:1] == ["train"] and words[1:2] in ([PRESET], [TEXT]) and "--resume" not in words:
        # What would be accepted should not take long; the last word on an option counts.
        tiny = TINY if words[1] == PRESET else TINY_TEXT
        words = [*words[:2], "--epochs", "1", *tiny, *words[2:]]
    for name, place in places.items():
        holds = [hold.replace(name, str(place)) for hold in holds]
    before = world.listing()
    result = cli(*words)
    told = [row for row in result.stderr.splitlines() if not row.startswith("Warning: ")]
    text = "\n".join(told)
    if result.exit_code == 0:
        faults = ["silent"]
    elif isinstance(result.exception, Exception):
        return f"traceback: {result.exception!r:.300}"
    else:
        faults = [f"exits with {result.exit_code}"] * (result.exit_code != 2)
        faults += ["is no line of an error"] * (len(told) != 1 or not text.startswith("Error: "))
        faults += [f"holds {word!r}" for word in OBSCURE if word in text]
        faults += [f"lacks {word!r}" for word in holds if word not in text]
        faults += ["is long"] * (len(text) - text.count(str(world.folder)) * 60 >= 700)
    if world.listing() != before:
        faults += ["wrote files"]
        for path in world.folder.glob("new*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    kind = "silent" if result.exit_code == 0 else "obscure"
    return f"{kind}: {', '.join(faults)}: {text[:400]}" if faults else ""


# -- one assertion -------------------------------------------------------------------------------

KINDS = (ValueError, TypeError, OSError)


def verdict(call, world, holds):
    """What is wrong with the answer to a bad input, or an empty string."""
    before = world.listing()
    try:
        call(world)
    except Exception as error:
        raised, text = error, str(error)
    else:
        return "silent: accepted"
    if not isinstance(raised, KINDS) or type(raised).__module__.startswith("tensorflow"):
        return f"obscure: {type(raised).__name__}: {text[:300]}"
    faults = [f"holds {word!r}" for word in OBSCURE if word in text]
    faults += [f"lacks {word!r}" for word in holds if word not in text]
    faults += ["is long"] * (len(text) >= 700) + ["has lines"] * ("\n" in text.strip())
    faults += ["wrote files"] * (world.listing() != before)
    faults += ["spoilt the model"] * (not world.is_usable())
    return f"obscure: {', '.join(faults)}: {type(raised).__name__}: {text[:300]}" if faults else ""


#: What a stranger might think refused, and is not.
ACCEPTED = {
    "a list of weights": lambda w: w.vae.fit(X, sample_weight=[1.0] * 12, verbose=0),
    "a batch size above the rows": lambda w: w.vae.fit(X, batch_size=1000, verbose=0),
    "the last epoch as the first": lambda w: w.vae.fit(X, epochs=2, initial_epoch=2, verbose=0),
    "attributes beside x": lambda w: w.vae.fit(X, np.zeros((12, 7)), verbose=0),
    "labels that are words": lambda w: w.vae.fit(X, LABELS.astype(str), verbose=0),
    "a callback alone": lambda w: w.vae.fit(X, callbacks=keras.callbacks.Callback(), verbose=0),
    "callbacks in lists": lambda w: w.vae.fit(
        X, callbacks=[[keras.callbacks.Callback()]], verbose=0
    ),
    "epochs of validation": lambda w: w.vae.fit(
        X, epochs=2, validation_data=X, validation_freq=[2], verbose=0
    ),
    "codes in lists": lambda w: w.vae.decode(Z.tolist()),
    "no top_k": lambda w: w.text.generate(1, top_k=0),
    "an AE that draws": lambda w: w.ae.log_prob(X, 2),
    "an AE diagnosed": lambda w: metrics.diagnose(
        w.ae, data=LONG, refinement_steps=1, trials=False
    ),
    "three outputs of an encoder": lambda w: metrics.active_units(
        lambda x: (x[:, :3], x[:, 3:], x[:, :3]), LONG, decoder=own_decoder, likelihood="bernoulli"
    ),
    "a vocabulary without words": lambda w: data.Vocabulary([]),
    "a schedule of Keras": lambda w: losses.InEpochs(
        keras.optimizers.schedules.ExponentialDecay(1e-3, 1, 0.9)
    ),
}


def ids(table):
    return [row[0] for row in table]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("exam"))
    (world.folder / "runs").mkdir()
    assert world.vae.built
    assert world.files.is_dir()
    return world


@pytest.fixture(scope="module")
def text_run(world):
    make_text_run(world.folder / "runs")


@pytest.fixture(scope="module")
def image_runs(world):
    make_image_runs(world.folder / "runs")


@pytest.fixture(scope="module")
def loaded_once():
    """Loads the file of a model once for all commands: what they refuse leaves it as it is."""
    load, known = keras.saving.load_model, {}

    def load_model(file, **options):
        key = str(file), os.stat(file).st_mtime_ns, os.stat(file).st_size, *options.items()
        if key not in known:
            known[key] = load(file, **options)
        return known[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keras.saving, "load_model", load_model)
        yield


def marked(table, count):
    """The rows, of which the first `count` that need nothing of TensorFlow run on JAX as well."""
    plain = [row for row in table if row[0].startswith(("fit: ", "encode: ", "log_prob: "))]
    plain = [row[0] for row in plain if "tf" not in row[0] and "Gaussian" not in row[0]][:count]
    both = pytest.mark.both_backends
    return [pytest.param(*row, marks=both if row[0] in plain else ()) for row in table]


@pytest.mark.parametrize(("name", "call", "holds"), marked(PYTHON, 80), ids=ids(PYTHON))
def test_bad_inputs_in_python(world, monkeypatch, name, call, holds):
    monkeypatch.chdir(world.folder)
    assert verdict(call, world, holds) == ""


@pytest.mark.parametrize("name", ACCEPTED)
def test_ordinary_use_is_accepted(world, monkeypatch, name):
    monkeypatch.chdir(world.folder)
    ACCEPTED[name](world)
    assert world.is_usable()


@pytest.mark.parametrize(("name", "words", "holds"), COMMANDS, ids=ids(COMMANDS))
def test_bad_inputs_on_the_command_line(
    world, text_run, image_runs, loaded_once, monkeypatch, name, words, holds
):
    monkeypatch.chdir(world.folder)
    assert cli_verdict(words, world, holds) == ""
