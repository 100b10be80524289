"""Trains, measures and records the rows of a study; what was begun goes on by itself."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from .. import metrics
from ..core.conditions import data_of
from ..data.spec import FIELDS
from ..runs import Run, RunSpec
from ..runs import directory as _directory
from ..runs.settings import parse_value
from . import data as _data
from . import records
from .beside import WATCHED, label_classifier
from .likelihood import measured_in_parts
from .listing import chosen_rows
from .measures import MEASURES, Measured
from .small import shrink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .study import Row, Study

#: Sets with more values than this are not hashed, as they would not fit the memory.
_HASHED = 2**30
_LIKELIHOOD = "negative_log_likelihood"
#: Seconds between records of a run that is being trained.
_NOTED = 600.0
#: Seconds of an epoch that is stopped within rather than not begun; how often such a run is saved.
_LONG, _SAVED = 600.0, "10m"


class OutOfTime(BaseException):
    """Ends a training whose next epoch would exceed the budget; the last one is saved."""


@dataclasses.dataclass
class Job:
    """A row of a study with a seed, and what is known of it.

    Attributes:
        study: `Study`.
        row: `Row`.
        seed: Int.
        directory: Of the run.
        record: Where the record is.
        small: Whether it is shrunk to what takes a minute.
    """

    study: Study
    row: Row
    seed: int
    directory: Path
    record: Path
    small: bool = False

    @property
    def said(self) -> str:
        """Study, row and seed in words."""
        return f"{self.study.key} {self.row.name} seed {self.seed}"


def job_of(study: Study, row: Row, seed: int, root: Path, results: Path, small: bool) -> Job:
    """Returns a `Job`; its run lies where every study that has the same run looks for it."""
    name = row.run.name if row.run else row.name
    directory = Path(root) / study.paper / name / f"seed-{seed}"
    return Job(study, row, seed, directory, records.path_of(results, study, row.name, seed), small)


def specification(job: Job, located: _data.Located) -> RunSpec:
    """Returns the `RunSpec` of a job for data that were found."""
    run: Any = job.row.run
    if job.small:
        run = shrink(run, located)
    reading = {**located.arguments, **_parsed(run.reading)}
    options = {"monitor": False, "checkpoint_every": _SAVED, **_parsed(run.options)}
    if run.classifier is not None:
        options["regularizers"] = [_classifier(run, reading)]
    return RunSpec(
        run.preset,
        model=_parsed(run.model),
        networks=_parsed(run.networks),
        training=_parsed(run.training),
        data=reading,
        seed=job.seed,
        **options,
    )


def _classifier(run, reading):
    from .. import data, zoo

    if run.classifier == "labels":
        _, labels = data.load_arrays(**{k: v for k, v in reading.items() if k != "with_index"})
        return label_classifier(labels)
    size = data.describe(**{k: v for k, v in reading.items() if k != "with_index"}).num_examples
    return zoo.auxiliary_softmax(size, num_labels=min(run.classifier, size) or None)


def _parsed(settings):
    """Settings with the objects that their text stands for."""
    return {
        key: parse_value(value) if isinstance(value, str) and value.endswith(")") else value
        for key, value in settings.items()
    }


def progress_of(directory: Path, epochs: int | None = None) -> tuple[int, bool]:
    """Returns how many epochs a run has, and whether it has ended."""
    try:
        config = _directory.read_config(directory)
        progress = _directory.read_progress(directory)
    except FileNotFoundError:
        return 0, False
    wanted = epochs or config["settings"]["training"]["epochs"]
    count = len(progress.history)
    return count, progress.ended or count >= wanted


def reproduce(
    study: Any,
    rows: Iterable[str] | None = None,
    seeds: Iterable[int] = (0,),
    *,
    places: _data.Places | None = None,
    root: str | Path = "runs/reproduce",
    results: str | Path = "results",
    budget: float | None = None,
    small: bool = False,
    say: Callable[[str], Any] = print,
) -> list[Job]:
    """Trains, measures and records rows of a study, each as far as it is not done.

    Args:
        study: Its key, such as "vae_as/table2", or a `Study`.
        rows: Names of rows; all that can be run by default.
        seeds: Seeds of the runs.
        places: Where data are looked for.
        root: Folder of the runs.
        results: Folder of the records.
        budget: Seconds, after which nothing new begins; a training ends with the last epoch that
            fits.
        small: Whether rows are shrunk to what takes a minute.
        say: Called with each line that tells what is done.

    Returns:
        List of the `Job`s that are not done.

    Raises:
        ValueError: If there is no such study or row.
    """
    from . import find

    study = find(study) if isinstance(study, str) else study
    chosen = chosen_rows(study, rows)
    jobs = [
        job_of(study, row, seed, Path(root), Path(results), small)
        for seed in seeds
        for row in chosen
    ]
    return run_jobs(jobs, places or _data.Places(made=Path(root) / "data"), budget, say)


def run_jobs(
    jobs: list[Job], places: _data.Places, budget: float | None, say: Callable[[str], Any]
) -> list[Job]:
    """Does jobs one after the other; returns those that are left."""
    deadline = None if budget is None else time.monotonic() + budget
    left: list[Job] = []
    for place, job in enumerate(jobs):
        if deadline is not None and time.monotonic() >= deadline:
            left += jobs[place:]
            break
        located = _data.find(job.row.run.data, places, job.small)
        if located is None:
            wanted = _data.SETS[job.row.run.data]
            say(f"{job.said}: not run, as {wanted.title} is not there ({wanted.missing})")
            left.append(job)
        elif not _done(job, located, deadline, say):
            left.append(job)
        keras.backend.clear_session()
    return left


def _done(job, located, deadline, say):
    """Does a job; says why it cannot be done, so that the others are."""
    try:
        return do(job, located, deadline, say)
    except (FloatingPointError, OSError, ValueError) as error:
        say(f"{job.said}: {' '.join(str(error).split())}")
        return False


def do(job: Job, located: _data.Located, deadline: float | None, say: Callable[[str], Any]) -> bool:
    """Trains, measures and records a job as far as it is not done; returns whether it is."""
    held = records.read(job.record)
    if held is not None and held["run"] != _run_of(job):
        # Of other settings, which the row has had before.
        held = None
    wanted = _protocol(job)
    if held and held["state"] == records.MEASURED and held["protocol"] == records.compact(wanted):
        say(f"{job.said}: done")
        return True
    spec = specification(job, located)
    run = _opened(job, spec)
    epochs = run.epochs
    count, ended = progress_of(job.directory)
    if not (ended and (job.directory / _directory.MODEL).is_file()):

        def note():
            _write(job, run, located, records.TRAINING, held)

        watch = _Watch(job, epochs, run.history, deadline, say, note)
        few = {"limit": _protocol(job)["limit"]} if job.small else {}
        watched = [WATCHED[name](run, **few) for name in job.row.run.watched]
        try:
            run.fit([watch, *watched], verbose=0)
        except (OutOfTime, KeyboardInterrupt) as stopped:
            in_time = watch.out_of_time or isinstance(stopped, OutOfTime)
            note()
            count, _ = progress_of(job.directory)
            say(f"{job.said}: stopped after {count} of {epochs} epochs; the same command goes on")
            if not in_time:
                raise
            return False
    if held is None or held["state"] != records.MEASURED:
        _write(job, run, located, records.TRAINED, held)
    say(f"{job.said}: measuring")
    found = _measured(job, run, deadline, say)
    if found is None:
        say(f"{job.said}: stopped while measuring; the same command goes on")
        return False
    _write(job, run, located, records.MEASURED, held, found)
    say(f"{job.said}: {_summary(job, found['metrics'])}")
    return True


def _opened(job, spec):
    """The run of a job, which goes on if there is one."""
    if not (job.directory / _directory.CONFIG).is_file():
        return Run.create(job.directory, spec, command=None)
    options = {name: getattr(spec, name) for name in ("seed", "precision", "checkpoint_every")}
    changes = {"model": spec.model, "networks": spec.networks, "training": spec.training}
    changes = {key: value for key, value in changes.items() if value}
    # A run keeps what is not at its default.
    given = {key: value for key, value in spec.data.items() if key != "vocabulary"}
    data = {key: value for key, value in given.items() if value != FIELDS.get(key, given)}
    return Run.open(job.directory, preset=spec.preset, data=data, **changes, **options)


class _Watch(keras.callbacks.Callback):
    """Tells how a training comes along, and ends it in time."""

    def __init__(
        self,
        job: Job,
        epochs: int,
        history: list,
        deadline: float | None,
        say: Callable[[str], Any],
        note: Callable[[], Any],
    ) -> None:
        super().__init__()
        self.note, self.noted = note, time.monotonic()
        self.job, self.epochs, self.deadline, self.say = job, epochs, deadline, say
        self.out_of_time = False
        self.seconds = [record["seconds"] for record in history if record.get("seconds")]
        self.started = 0.0

    def on_train_begin(self, logs=None):
        if self.seconds:
            self.say(f"{self.job.said}: goes on after {len(self.seconds)} of {self.epochs} epochs")

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic()
        if self.started - self.noted > _NOTED:
            self.note()
            self.noted = time.monotonic()
        # The first epoch of a process compiles.
        usual = float(np.median(self.seconds[-5:])) if self.seconds else 0.0
        late = self.deadline is not None and self.started + usual > self.deadline
        # A longer epoch is begun all the same, and saved within.
        if late and (usual <= _LONG or self.started > self.deadline):
            raise OutOfTime

    def on_train_batch_begin(self, batch, logs=None):
        late = self.deadline is not None and time.monotonic() > self.deadline
        if late and not self.out_of_time:
            self.out_of_time = True
            # A run saves at the end of the batch, and then hands it on.
            signal.raise_signal(signal.SIGINT)

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.monotonic() - self.started)
        usual = float(np.median(self.seconds[-5:]))
        loss = (logs or {}).get("loss", float("nan"))
        self.say(
            f"{self.job.said}: epoch {epoch + 1} of {self.epochs}, loss {float(loss):.4f}, "
            f"{usual:.1f} s an epoch, {duration(usual * (self.epochs - epoch - 1))} left"
        )


def duration(seconds: float) -> str:
    """Returns seconds in words: "2 h 5 min", "40 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _run_of(job):
    return f"{job.study.paper}/{job.directory.parent.name}"


def _protocol(job):
    protocol = job.study.protocol_of(job.row)
    found = protocol.to_dict()
    if job.small:
        found.update(num_samples=min(8, protocol.num_samples), num_images=32, limit=200)
    return found


def _measured(job, run, deadline, say):
    """Metrics and figure of a trained run, and how long that took; None if time ran out."""
    start, protocol = time.monotonic(), _protocol(job)
    if not (protocol["metrics"] or protocol["measures"]):
        return {"metrics": {}, "figure": {}, "seconds": 0.0}
    limit = {"limit": protocol["limit"]} if protocol["limit"] else {}
    model = run.model(protocol["which"])
    labels = {"labels": "characters"} if "alphabet_probe" in protocol["metrics"] else {}
    x, y = run.arrays("test", **limit, **labels)
    found, figure = {}, {}
    names = [name for name in protocol["metrics"] if name != _LIKELIHOOD]
    if _LIKELIHOOD in protocol["metrics"]:
        count, _ = progress_of(job.directory)
        file = job.directory / f"likelihood-{protocol['num_samples']}-{protocol['which']}.json"
        of = [count, protocol["which"], protocol["limit"]]
        size = (protocol["num_samples"], protocol["num_images"])
        told = functools.partial(_told, job, say)
        numbers = measured_in_parts(model, x, *size, file, of, deadline, told)
        if numbers is None:
            return None
        found.update(numbers)
    if names:
        probes = any(name.endswith("_probe") for name in names)
        evaluation = metrics.evaluate(
            model,
            x,
            y if probes else None,
            names,
            train=run.arrays("train", **limit, **labels) if probes else None,
            options=_shrunk(protocol["options"]) if job.small else protocol["options"],
        )
        for name, estimate in evaluation.results.items():
            found[name] = {
                "value": estimate.value,
                "standard_error": _error(estimate),
                "unit": estimate.unit,
                "count": estimate.count,
                "estimator": estimate.estimator,
            }
        figure.update({f"skipped {k}": v for k, v in evaluation.skipped.items()})
    measured = Measured(run, model, x, y, 0, protocol["limit"])
    for name in protocol["measures"]:
        numbers, drawn = MEASURES[name](measured)
        found.update({k: {"value": v, "standard_error": e} for k, (v, e) in numbers.items()})
        figure.update(drawn)
    return {"metrics": found, "figure": figure, "seconds": time.monotonic() - start}


def _told(job, say, line):
    say(f"{job.said}: {line}")


def _error(estimate):
    # One run of a probe: what a test set of this size leaves open.
    error = estimate.standard_error
    return estimate.extra.get("test_standard_error", error) if np.isnan(error) else error


def _shrunk(options):
    def one(chosen):
        few = {"epochs": 2, "runs": 1, "num_samples": 32, "features": "pixels"}
        return {**chosen, **{key: value for key, value in few.items() if key in chosen}}

    return {
        name: [one(c) for c in chosen] if isinstance(chosen, list | tuple) else one(chosen)
        for name, chosen in options.items()
    }


def _write(job, run, located, state, held, found=None):
    """Writes what is known of a job; numbers that were measured before stay."""
    count, ended = progress_of(job.directory)
    history = _directory.recorded(job.directory)
    before = held or {}
    training = sum(record.get("seconds") or 0.0 for record in history)
    settings = run.spec.to_dict() if count else {}
    record = {
        "format": records.FORMAT,
        "study": job.study.key,
        "row": job.row.name,
        "seed": job.seed,
        "scale": "small" if job.small else "published",
        "state": state,
        "run": _run_of(job),
        "epochs": {"trained": count, "of": run.epochs, "ended": ended},
        "seconds": {"training": training, "measuring": (found or {}).get("seconds", 0.0)},
        "metrics": (found or {}).get("metrics", {}),
        "protocol": _protocol(job) if found else before.get("protocol", {}),
        "data": _fingerprint(job, run, located) if found else before.get("data", {}),
        "settings": records.without_paths(settings),
        "versions": _directory.versions(),
        "hardware": hardware(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "history": records.columns_of(history),
        "figure": (found or {}).get("figure", {}),
    }
    records.write(job.record, record)


def _fingerprint(job, run, located):
    found = {"name": located.name, "stand_in_for": located.stand_in_for or None}
    for split in ("train", "test"):
        x = None
        shape = [size or 1 for size in run.spec.networks["input_shape"]]
        if int(np.prod(shape)) * 60_000 < _HASHED:
            x, _ = run.arrays(split, **({} if run.vocabulary else {"binarize": None}))
            x = data_of(x)
        digest = x is not None and hashlib.sha256(np.ascontiguousarray(x)).hexdigest()
        found[split] = {"count": None if x is None else len(x), "sha256": digest or None}
    return found


def hardware() -> dict[str, Any]:
    """Returns what the machine computes with; nothing that names it."""
    processor = ""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        processor = next((line.partition(":")[2] for line in lines if "model name" in line), "")
        pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        pages = 0
    return {
        "processor": processor.strip(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1) or None,
        "accelerators": _accelerators(),
    }


def _accelerators():
    if keras.backend.backend() == "jax":
        import jax

        return [d.device_kind for d in jax.devices() if d.platform != "cpu"]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details
        gpus = tf.config.list_physical_devices("GPU")
        return [details(gpu).get("device_name", "GPU") for gpu in gpus]
    return []


def _summary(job, found):
    record = {"metrics": found, "history": {}}
    parts = []
    for column in job.study.columns:
        value = records.value_of(record, column.source) if ":" not in column.source else None
        if value is not None:
            parts.append(f"{column.title} {value[0] * column.scale:.4g}")
    return ", ".join(parts) or "trained"
