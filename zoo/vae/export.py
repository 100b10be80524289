"""SavedModels with named signatures, which serve without vaezoo and without Keras."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from ...core.checks import check_path
from ...core.conditions import described_classes
from ...core.files import check_writable
from ...core.random import StatelessSeed
from ...layers import IsotropicNormal, LabelCondition
from .decoding import check_beam, interpolate_latents
from .inputs import refuses_8bit

if TYPE_CHECKING:
    from typing import Any

    from ...core.types import FilePath

#: Where the details lie in a SavedModel. TensorFlow leaves `assets.extra` to its writers.
DETAILS_FILE = "assets.extra/vaezoo.json"

#: Where the words of a model of text lie, that of id n in line n, from 0 on.
VOCABULARY_FILE = "assets.extra/vocabulary.txt"

#: What the child process says comes behind this; TensorFlow writes to the same stream.
_MARK = "vaezoo.export:"


def export_saved_model(
    model: keras.layers.Layer,
    filepath: FilePath,
    format: str = "tf_saved_model",
    *,
    overwrite: bool = False,
    verbose: bool = False,
    vocabulary: Any = None,
    beam_size: int | None = None,
    length_penalty: float = 0.0,
) -> None:
    """Writes a `VAE` as a SavedModel for inference.

        encode(x)                       the posterior's fields, such as {mean, log_var}
        decode(z)                       {x}, E[x|z]
        sample(count, seed)             {x}, E[x|z] at z ~ p(z), as `generate` returns it
        reconstruct(x)                  {x}, E[x|z] at the posterior mean
        interpolate(a, b, steps)        {x}, `(batch, steps, *event)`, as `interpolate` returns it
        score(x, num_samples, seed)     {log_prob}, in nats, as `log_prob` returns it for one batch;
                                        with `target` as well where the model was trained on targets
        serving_default                 encode

    An autoregressive decoder has no mean of x at hand: `decode`, `reconstruct` and `interpolate`
    are greedy then, as `VAE.decode` is, and `sample` draws, as `generate(mean=False)` does. Where
    it draws classes, as text is drawn, there are the inputs of `generate`, which all must be given:

        sample(count, seed, temperature, top_k, top_p)   1.0, 0 and 1.0 draw from p(x|z) itself
        decode_beam(z)                  {x, log_prob}, as `decode` finds it; given a `beam_size`

    Of a conditional model all take its conditions as well, each an input of its own name: one for
    each row, or of `sample` one for all. Labels are int32 `(batch,)`, or strings where classes are.

    `x`, `a` and `b` are `(batch, *event)`, float32, or int32 for text, whose length may vary; `z`
    is float32 `(batch, D)`; for any batch. The other inputs are int32 scalars, `temperature` and
    `top_p` float32. On TensorFlow equal seeds give what the model itself gives; the noise of JAX is
    another. A deterministic encoder (WAE, `AE(deterministic=True)`) has no density and no `score`.
    Inputs of another shape, or values that are not finite or cannot be observed, are refused as in
    the methods.

    `assets.extra/vaezoo.json` describes the model and its signatures, with the special ids of text.
    The SavedModel appears when it is complete, or not at all. On the JAX backend a child process on
    TensorFlow writes it; that must be able to load the model from a `.keras` file.

    Args:
        model: Built `VAE`.
        filepath: Local path of the folder; its parents are made where missing.
        format: `"tf_saved_model"`.
        overwrite: Whether to replace a SavedModel at `filepath`. Nothing else is ever replaced.
        verbose: Whether to print the signatures.
        vocabulary: Words of a model of text: a `Vocabulary`, the path of its file, or a list of
            strings in the order of their ids, the special ones included. They are written to
            `assets.extra/vocabulary.txt`, that of id n in line n (from 0), so that the SavedModel
            can be used without the corpus.
        beam_size: Positive int, as in `VAE.decode`: adds `decode_beam`.
        length_penalty: Non-negative float, that of `decode_beam`.

    Raises:
        ValueError: If the model is not built, `format` is another one, `filepath` is no local
            path, or an option of text is out of range or does not fit the model.
        TypeError: If `vocabulary` holds no words.
        FileExistsError: If there is something at `filepath` that may not be replaced.
        ImportError: If TensorFlow is not installed.
        RuntimeError: If the child process fails.
    """
    if format != "tf_saved_model":
        raise ValueError(
            "`format` must be 'tf_saved_model': other formats hold one function each. Export "
            f"`model.encoder` or `model.decoder` alone. Received: format={format!r}"
        )
    model._require_built("export")
    if beam_size is not None:
        check_beam(model.decoder, beam_size, length_penalty)
    words = None if vocabulary is None else _checked_words(model, vocabulary)
    target = _checked_target(filepath, overwrite)
    check_writable(target, folder=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the finished folder can be moved into place in one step.
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        folder = Path(scratch) / "new"
        write = _write if keras.backend.backend() == "tensorflow" else _write_in_child
        write(model, folder, beam_size, length_penalty)
        if words is not None:
            text = "".join(f"{word}\n" for word in words)
            (folder / VOCABULARY_FILE).write_bytes(text.encode("utf-8"))
        _move(folder, target, Path(scratch) / "old", overwrite)
    if verbose:
        _print_signatures(target)


def _checked_words(model, vocabulary):
    if isinstance(vocabulary, (str, os.PathLike)):
        words = Path(vocabulary).read_text("utf-8").removesuffix("\n").split("\n")
    else:
        words = getattr(vocabulary, "words", vocabulary)
        if not isinstance(words, (list, tuple)) or not all(isinstance(w, str) for w in words):
            raise TypeError(
                "`vocabulary` must be a `Vocabulary`, the path of its file or a list of strings. "
                f"Received: {type(vocabulary).__name__}"
            )
    size = getattr(model.decoder, "vocabulary_size", None)
    if len(words) != size:
        raise ValueError(
            "`vocabulary` must hold a word for each id of the model, special ones included. "
            f"Received: {len(words)} words, vocabulary_size={size}"
        )
    torn = next((word for word in words if "\n" in word), None)
    if torn is not None:
        raise ValueError(f"`vocabulary` must hold words without line breaks. Received: {torn!r}")
    return words


def _checked_target(filepath, overwrite):
    if "://" in check_path("filepath", filepath):
        raise ValueError(
            "`filepath` must be a local path; copy the finished folder to remote storage. "
            f"Received: filepath={os.fspath(filepath)!r}"
        )
    target = Path(filepath).resolve()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        if not (target / "saved_model.pb").is_file():
            raise FileExistsError(
                "`filepath` must be a new or empty folder, or a SavedModel to overwrite. "
                f"Received: filepath={os.fspath(filepath)!r}, which holds something else"
            )
        if not overwrite:
            raise FileExistsError(
                "`filepath` must be a new or empty folder unless overwrite=True. Received: "
                f"filepath={os.fspath(filepath)!r}, which holds a SavedModel"
            )
    return target


def _move(folder, target, old, overwrite):
    if not target.exists():
        folder.rename(target)
    elif not overwrite:
        # Refuses if another process has filled the folder in the meantime.
        target.rmdir()
        folder.rename(target)
    else:
        target.rename(old)
        try:
            folder.rename(target)
        except OSError:
            old.rename(target)
            raise


def _print_signatures(target):
    signatures = json.loads((target / DETAILS_FILE).read_text("utf-8"))["signatures"]
    print(f"SavedModel {target}")
    for name, fields in signatures.items():
        print(f"  {name}({', '.join(fields['inputs'])}) -> {', '.join(fields['outputs'])}")


def _write(model, folder, beam_size=None, length_penalty=0.0):
    # `ExportArchive` tracks the variables that the endpoints use and nothing else, and keeps
    # scalars, several inputs and dict outputs under their names: a `tf.Module` would repeat that.
    archive = keras.export.ExportArchive()
    signatures = {}
    # The first endpoint becomes `serving_default`.
    for name, (function, inputs) in _endpoints(model, beam_size, length_penalty).items():
        endpoint = archive.add_endpoint(name, function, inputs)
        signatures[name] = {
            "inputs": {spec.name: _describe(spec) for spec in inputs},
            "outputs": {
                field: _describe(spec)
                for field, spec in endpoint.get_concrete_function().structured_outputs.items()
            },
        }
    archive.write_out(str(folder), verbose=False)
    details = folder / DETAILS_FILE
    details.parent.mkdir()
    details.write_text(json.dumps(_details(model, signatures), indent=2) + "\n", "utf-8")


def _endpoints(model, beam_size, length_penalty):
    """Functions of tensors and their inputs' `tf.TensorSpec`s, by name."""
    import tensorflow as tf

    x, a, b, target = (
        tf.TensorSpec((None, *_event_shape(model)), model.event_dtype, name)
        for name in ("x", "a", "b", "target")
    )
    read, read_scored = _readers(model)
    z = tf.TensorSpec((None, model.latent_dim), "float32", "z")
    count, num_samples, seed, steps, top_k = (
        tf.TensorSpec((), "int32", name)
        for name in ("count", "num_samples", "seed", "steps", "top_k")
    )
    temperature, top_p = (tf.TensorSpec((), "float32", name) for name in ("temperature", "top_p"))

    def beside(x, condition):
        return x if condition is None else {"x": x, **condition}

    def encode(x, condition=None):
        return model.encode(beside(read(x, "x"), condition))._asdict()

    def decode(z, condition=None):
        return {"x": model.decode(_checked(z, "z", (model.latent_dim,)), condition=condition)}

    def decode_beam(z, condition=None):
        z = _checked(z, "z", (model.latent_dim,))
        found = model.decode(
            z,
            beam_size=beam_size,
            length_penalty=length_penalty,
            return_log_prob=True,
            condition=condition,
        )
        return dict(zip(("x", "log_prob"), found, strict=True))

    def codes(z, condition, count):
        if condition is None:
            return z
        spread = {}
        for name, value in condition.items():
            rows = tf.shape(value)[0]
            rule = f"`{name}` must have one row, or `count` of them"
            good = tf.equal(rows, 1) | tf.equal(rows, count)
            with tf.control_dependencies([tf.debugging.Assert(good, [rule])]):
                place = tf.minimum(tf.range(count), rows - 1)
                spread[name] = tf.gather(value, place)
        return model.codes(z, spread)

    def sample(count, seed, condition=None):
        tf.debugging.assert_positive(count, "`count` must be positive")
        z = codes(model.prior.sample(count, StatelessSeed(seed)), condition, count)
        if model.autoregressive:
            return {"x": model.draw_from_noise(z, model.draw_noise(z, seed))}
        return {"x": model.decode_codes(z)}

    def sample_classes(count, seed, temperature, top_k, top_p, condition=None):
        tf.debugging.assert_positive(count, "`count` must be positive")
        tf.debugging.assert_positive(temperature, "`temperature` must be positive")
        tf.debugging.assert_non_negative(top_k, "`top_k` must be non-negative")
        tf.debugging.assert_positive(top_p, "`top_p` must lie in (0, 1]")
        tf.debugging.assert_less_equal(top_p, 1.0, "`top_p` must lie in (0, 1]")
        z = codes(model.prior.sample(count, StatelessSeed(seed)), condition, count)
        options = temperature, top_k, top_p
        return {"x": model.draw_from_noise(z, model.draw_noise(z, seed), *options)}

    def reconstruct(x, condition=None):
        z = model.encode(beside(read(x, "x"), condition)).mean
        return {"x": model.decode(z, condition=condition)}

    def interpolate(a, b, steps, condition=None):
        a, b = (beside(read(x, name), condition) for x, name in ((a, "a"), (b, "b")))
        tf.debugging.assert_greater(steps, 1, "`steps` must be at least 2")
        path = interpolate_latents(model.encode(a).mean, model.encode(b).mean, steps)
        path = model.codes(path, condition)
        x = model.decode_codes(tf.reshape(path, (-1, model.code_size)))
        shape = tf.concat([(tf.shape(path)[0], steps), tf.shape(x)[1:]], axis=0)
        return {"x": tf.ensure_shape(tf.reshape(x, shape), (None, None, *x.shape[1:]))}

    def score(x, num_samples, seed, condition=None):
        tf.debugging.assert_positive(num_samples, "`num_samples` must be positive")
        x = beside(read_scored(x, "x"), condition)
        return {"log_prob": model.score(x, num_samples, seed)}

    def score_target(x, target, num_samples, seed, condition=None):
        tf.debugging.assert_positive(num_samples, "`num_samples` must be positive")
        x, target = beside(read(x, "x"), condition), read_scored(target, "target")
        return {"log_prob": model.score(x, num_samples, seed, target=target)}

    endpoints = {
        "encode": (encode, [x]),
        "decode": (decode, [z]),
        "sample": (sample, [count, seed]),
        "reconstruct": (reconstruct, [x]),
        "interpolate": (interpolate, [a, b, steps]),
    }
    if model.autoregressive and model.likelihood.draws_classes:
        inputs = [count, seed, temperature, top_k, top_p]
        endpoints["sample"] = (sample_classes, inputs)
    if beam_size is not None:
        endpoints["decode_beam"] = (decode_beam, [z])
    if model.head.has_density:
        endpoints["score"] = (score, [x, num_samples, seed])
        if model.takes_target:
            endpoints["score"] = (score_target, [x, target, num_samples, seed])
    if model.conditional:
        return {name: _conditional(model, *endpoint) for name, endpoint in endpoints.items()}
    return endpoints


def _conditional(model, function, inputs):
    """A function of tensors and conditions, and the specifications of all of these."""
    import tensorflow as tf

    kinds = model.encoder.condition
    specs = [
        tf.TensorSpec(
            (None, *kind.value_shape), "string" if _texts(kind) else kind.value_dtype, name
        )
        for name, kind in kinds.items()
    ]

    def conditioned(*tensors):
        given = zip(kinds.items(), tensors[len(inputs) :], strict=True)
        condition = {name: _read_condition(name, kind, value) for (name, kind), value in given}
        return function(*tensors[: len(inputs)], condition=condition)

    specs = [*inputs, *specs]
    usual = inspect.Parameter.POSITIONAL_OR_KEYWORD
    conditioned.__signature__ = inspect.Signature(
        [inspect.Parameter(spec.name, usual) for spec in specs]
    )
    return conditioned, specs


def _texts(kind):
    classes = getattr(kind, "classes", None)
    return isinstance(classes, (list, tuple)) and isinstance(classes[0], str)


def _read_condition(name, kind, value):
    """The values of a condition, refused where they are unknown."""
    import tensorflow as tf

    if not isinstance(kind, LabelCondition):
        return _checked(value, name, kind.value_shape)
    classes = kind.classes
    known = tf.constant(list(range(classes)) if isinstance(classes, int) else list(classes))
    found = tf.equal(value[:, None], known[None])
    rule = f"`{name}` must hold {described_classes(classes)}"
    with tf.control_dependencies(
        [tf.debugging.Assert(tf.reduce_all(tf.reduce_any(found, 1)), [rule])]
    ):
        if _texts(kind):
            return tf.argmax(tf.cast(found, "int32"), axis=1, output_type="int32")
        return tf.identity(value)


def _readers(model):
    """Functions of a tensor and its name that check what is encoded, and what is scored."""
    import tensorflow as tf

    event, support = _event_shape(model), model.likelihood.support
    of_text = bool(_text_details(model))

    def read_scored(x, name):
        return _checked(x, name, event, support)

    def read(x, name):
        if of_text:
            return _checked(x, name, event, support)
        x = _checked(x, name, event)
        if not refuses_8bit(model):
            return x
        slip = tf.reduce_all(tf.equal(x, tf.round(x))) & (tf.reduce_max(x) > 1)
        slip &= (tf.reduce_min(x) >= 0) & (tf.reduce_max(x) <= 255)
        rule = f"`{name}` must be scaled as in training: divide 8-bit images by 255"
        with tf.control_dependencies([tf.debugging.Assert(~slip, [rule])]):
            return tf.identity(x)

    return read, read_scored


def _checked(x, name, event, support=(-float("inf"), float("inf"))):
    """A tensor that passes only with this shape of an example, and finite values in an interval."""
    import tensorflow as tf

    # A server may hand over any shape. What is known of it here would make the check be left out.
    given = tf.compat.v1.placeholder_with_default(x, shape=None)
    x = tf.ensure_shape(given, (None, *event), name=f"shape_of_{name}")
    low, high = support
    value = tf.cast(x, "float32")
    good = tf.math.is_finite(value) & (value >= low) & (value <= high)
    rule = f"`{name}` must hold finite numbers"
    if support != (-float("inf"), float("inf")):
        rule = f"`{name}` must hold finite numbers in [{low:g}, {high:g}]"
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(good), [rule])]):
        return tf.identity(x)


def _event_shape(model):
    shape = model.get_build_config()["input_shape"]
    if _text_details(model):
        # Whatever length the first batch had.
        shape = getattr(model.encoder, "input_shape", shape)
    return tuple(shape[1:])


def _describe(spec):
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}


def _scale(likelihood):
    """The standard deviation of a Gaussian whose scale is one number, or None."""
    scale = getattr(likelihood, "scale", "decoder")
    if scale == "decoder":
        return None
    return float(keras.ops.convert_to_numpy(likelihood.distribution(0.0).stddev()))


def _text_details(model):
    """The ids of a model of text and the length of what it writes, or nothing."""
    names = ("vocabulary_size", "pad_id", "start_id", "end_id", "unknown_id")
    if not all(hasattr(model.decoder, name) for name in names):
        return {}
    # Start and end included.
    max_length = model.decoder.grid[0] + 1
    return {"max_length": max_length, **{name: getattr(model.decoder, name) for name in names}}


def _condition_details(model):
    if not model.conditional:
        return {}
    kinds = model.encoder.condition.items()
    return {"condition": {name: kind.described for name, kind in kinds}}


def _details(model, signatures):
    import tensorflow as tf

    return {
        "model": model.name,
        "latent_dim": model.latent_dim,
        "event_shape": list(_event_shape(model)),
        "likelihood": type(model.likelihood).__name__,
        "likelihood_scale": _scale(model.likelihood),
        "prior": type(model.prior).__name__,
        "prior_scale": model.prior.scale if isinstance(model.prior, IsotropicNormal) else None,
        "autoregressive": model.autoregressive,
        **_condition_details(model),
        **_text_details(model),
        "signatures": signatures,
        "versions": {
            "vaezoo": metadata.version("vaezoo"),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    }


def _write_in_child(model, folder, beam_size=None, length_penalty=0.0):
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            "`export` writes a TensorFlow SavedModel: `pip install tensorflow tf-keras`. Received: "
            f"KERAS_BACKEND={keras.backend.backend()!r} without TensorFlow"
        )
    source = folder.with_name("model.keras")
    model.save(source)
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        # This process may have taken all memory of the accelerators.
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    options = json.dumps(
        {"beam_size": beam_size and int(beam_size), "length_penalty": float(length_penalty)}
    )
    run = f"import {__name__} as e; e._run_child()"
    child = subprocess.run(
        [sys.executable, "-c", run, str(source), str(folder), options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        raise RuntimeError(
            "`export` failed in its child process on TensorFlow, which loads the model from a "
            "`.keras` file and so knows no layers but those of Keras and vaezoo. It said:\n"
            f"{child.stderr.rpartition(_MARK)[2].strip()}"
        )


def _run_child():
    source, folder, options = sys.argv[1:]
    try:
        keras.saving.load_model(source, compile=False).export(folder, **json.loads(options))
    except Exception as error:
        print(_MARK, file=sys.stderr)
        while error is not None:
            # Keras appends the configuration of the whole model to some messages.
            print(f"{type(error).__name__}: {error}"[:400], file=sys.stderr)
            error = error.__cause__ or error.__context__
        sys.exit(1)
