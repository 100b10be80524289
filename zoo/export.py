"""SavedModels with named signatures, which serve without vaezoo and without Keras."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import keras

from ..losses._replicas import GivenSeed

#: Where the details lie in a SavedModel. TensorFlow leaves `assets.extra` to its writers.
DETAILS_FILE = "assets.extra/vaezoo.json"

#: What the child process says comes behind this; TensorFlow writes to the same stream.
_MARK = "vaezoo.export:"


def export_saved_model(model, filepath, format="tf_saved_model", *, overwrite=False, verbose=False):
    """Writes a `VAE` as a SavedModel for inference.

        encode(x)                       the posterior's fields, such as {mean, log_var}
        decode(z)                       {x}, E[x|z]
        sample(count, seed)             {x}, E[x|z] at z ~ p(z), as `generate` returns it
        reconstruct(x)                  {x}, E[x|z] at the posterior mean
        score(x, num_samples, seed)     {log_prob}, in nats, as `log_prob` returns it for one batch
        serving_default                 encode

    An autoregressive decoder has no mean of x at hand: `decode` and `reconstruct` are greedy then,
    as `VAE.decode` is, and `sample` draws, as `generate(mean=False)` does.

    `x` is float32 `(batch, *event)`, `z` float32 `(batch, D)`, for any batch; the other inputs are
    int32 scalars. On TensorFlow equal seeds give what the model itself gives; the noise of JAX is
    another. A deterministic encoder (WAE, `AE(deterministic=True)`) has no density and no `score`.

    `assets.extra/vaezoo.json` describes the model and its signatures. The SavedModel appears when
    it is complete, or not at all. On the JAX backend a child process on TensorFlow writes it; that
    must be able to load the model from a `.keras` file.

    Args:
        model: Built `VAE`.
        filepath: Local path of the folder; its parents are made where missing.
        format: `"tf_saved_model"`.
        overwrite: Whether to replace a SavedModel at `filepath`. Nothing else is ever replaced.
        verbose: Whether to print the signatures.

    Raises:
        ValueError: If the model is not built, `format` is another one, or `filepath` is no local
            path.
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
    target = _checked_target(filepath, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the finished folder can be moved into place in one step.
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        folder = Path(scratch) / "new"
        if keras.backend.backend() == "tensorflow":
            _write(model, folder)
        else:
            _write_in_child(model, folder)
        _move(folder, target, Path(scratch) / "old", overwrite)
    if verbose:
        _print_signatures(target)


def _checked_target(filepath, overwrite):
    if "://" in os.fspath(filepath):
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


def _write(model, folder):
    # `ExportArchive` tracks the variables that the endpoints use and nothing else, and keeps
    # scalars, several inputs and dict outputs under their names: a `tf.Module` would repeat that.
    archive = keras.export.ExportArchive()
    signatures = {}
    # The first endpoint becomes `serving_default`.
    for name, (function, inputs) in _endpoints(model).items():
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


def _endpoints(model):
    """Functions of tensors and their inputs' `tf.TensorSpec`s, by name."""
    import tensorflow as tf

    x = tf.TensorSpec((None, *_event_shape(model)), "float32", "x")
    z = tf.TensorSpec((None, model.latent_dim), "float32", "z")
    count, num_samples, seed = (
        tf.TensorSpec((), "int32", name) for name in ("count", "num_samples", "seed")
    )

    def encode(x):
        return model.encode(x)._asdict()

    def decode(z):
        return {"x": model.decode(z)}

    def sample(count, seed):
        tf.debugging.assert_positive(count, "`count` must be positive")
        z = model.prior.sample(count, GivenSeed(seed))
        if model.autoregressive:
            return {"x": model.draw_from_noise(z, model.draw_noise(z, seed))}
        return {"x": model.decode(z)}

    def reconstruct(x):
        return {"x": model.decode(model.encode(x).mean)}

    def score(x, num_samples, seed):
        tf.debugging.assert_positive(num_samples, "`num_samples` must be positive")
        return {"log_prob": model.score(x, num_samples, seed)}

    endpoints = {
        "encode": (encode, [x]),
        "decode": (decode, [z]),
        "sample": (sample, [count, seed]),
        "reconstruct": (reconstruct, [x]),
    }
    if model.head.has_density:
        endpoints["score"] = (score, [x, num_samples, seed])
    return endpoints


def _event_shape(model):
    return tuple(model.get_build_config()["input_shape"][1:])


def _describe(spec):
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}


def _scale(likelihood):
    """The standard deviation of a Gaussian whose scale is one number, or None."""
    scale = getattr(likelihood, "scale", "decoder")
    if scale == "decoder":
        return None
    return float(keras.ops.convert_to_numpy(likelihood.distribution(0.0).stddev()))


def _details(model, signatures):
    import tensorflow as tf

    return {
        "model": model.name,
        "latent_dim": model.latent_dim,
        "event_shape": list(_event_shape(model)),
        "likelihood": type(model.likelihood).__name__,
        "likelihood_scale": _scale(model.likelihood),
        "prior": type(model.prior).__name__,
        "autoregressive": model.autoregressive,
        "signatures": signatures,
        "versions": {
            "vaezoo": metadata.version("vaezoo"),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    }


def _write_in_child(model, folder):
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
    child = subprocess.run(
        [sys.executable, "-c", f"import {__name__} as e; e._run_child()", str(source), str(folder)],
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
    source, folder = sys.argv[1:]
    try:
        keras.saving.load_model(source, compile=False).export(folder)
    except Exception as error:
        print(_MARK, file=sys.stderr)
        while error is not None:
            # Keras appends the configuration of the whole model to some messages.
            print(f"{type(error).__name__}: {error}"[:400], file=sys.stderr)
            error = error.__cause__ or error.__context__
        sys.exit(1)
