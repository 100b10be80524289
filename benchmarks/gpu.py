"""Speed on a GPU, on JAX and PyTorch alone: `python -m benchmarks --gpu [--write]`.

Every kind is a slice of a minute or two, whose rows are in `--rows FILE` as soon as it is done; an
interrupted run goes on after the last one. `--dry-run` runs the same code in tiny sizes on whatever
machine there is, and its numbers mean nothing.
"""

import argparse
import datetime
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from .__main__ import HERE, JAX, OURS, PEERS, bursts, publish
from .protocol import NETWORKS

#: Steps of a burst by kind; of sampling, images at once.
KINDS = {
    "dense": 2000,
    "CNN of mu-VAE": 1000,
    "ResNet + PixelCNN": 60,
    "LSTM": 600,
    "sampling": 64,
}
DRY_RUN = dict.fromkeys(KINDS, 2)
ROOFLINE = "roofline"
OUR_NAME, PEER = "vaezoo, JAX", "PyTorch"
WORKER = "gpu_worker.py"


def ask(*arguments, python=OURS):
    """The JSON object that a worker prints last, or None where it cannot run."""
    done = subprocess.run(
        [python, str(HERE / WORKER), *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments} died:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def environment():
    """Of the workers: none takes the whole memory of the device beforehand."""
    return {**os.environ, "KERAS_BACKEND": JAX, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def torch_python():
    """The interpreter that has PyTorch, or None."""
    if PEERS.exists():
        return str(PEERS)
    return OURS if importlib.util.find_spec("torch") else None


def contestants(kind, steps, dry_run):
    """Those that take turns: interpreter, script with arguments, Keras backend."""
    size = [str(steps), *(["dry-run"] if dry_run else [])]
    found = {OUR_NAME: (OURS, [WORKER, "ours", kind, *size], JAX)}
    if torch_python():
        found[PEER] = (torch_python(), [WORKER, "torch", kind, *size], JAX)
    return found


def measure(kind, steps, rounds, dry_run):
    """The slice of a kind: milliseconds of a step in each burst, by contestant, and its work."""
    os.environ.update(environment())
    found = bursts(contestants(kind, steps, dry_run), rounds)
    times = {
        name: [1e3 * burst.wall / burst.steps for burst in some] for name, some in found.items()
    }
    flop = None
    if torch_python() and kind in NETWORKS:
        flop = ask("flop", kind, *(["dry-run"] if dry_run else []), python=torch_python())
    return {"ms": times, "flop": flop}


def least(kind, slice_, roofline):
    """Milliseconds that a step needs at least, or None where nothing counts its products.

    Its products at the speed of the large one, and 28 bytes a weight for Adam's reads and writes.
    """
    if slice_["flop"] is None:
        return None
    products = slice_["flop"] / roofline["flop_a_second"]
    return 1e3 * (products + 28 * NETWORKS[kind].weights / roofline["bytes_a_second"])


def table(slices):
    """Yields the lines of the table."""
    roofline = slices[ROOFLINE]
    yield (
        f"A product of two matrices reaches {roofline['flop_a_second'] / 1e12:.1f} TFLOP/s, a copy "
        f"{roofline['bytes_a_second'] / 1e9:.0f} GB/s, reads and writes together."
    )
    yield ""
    yield (
        "| kind | by | ms, median | min | max | speed over PyTorch, paired "
        "| least by the roofline, ms | part of it that is reached |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for kind in KINDS:
        if kind not in slices:
            continue
        times, bound = slices[kind]["ms"], least(kind, slices[kind], roofline)
        for name, found in times.items():
            middle = statistics.median(found)
            ratio = "-"
            if PEER in times:
                pairs = zip(times[PEER], found, strict=True)
                ratio = f"{statistics.median(peer / ours for peer, ours in pairs):.2f}"
            reached = "- | -" if bound is None else f"{bound:.3f} | {100 * bound / middle:.0f} %"
            yield (
                f"| {kind} | {name} | {middle:.3f} | {min(found):.3f} | {max(found):.3f} "
                f"| {ratio} | {reached} |"
            )


def machine(device):
    """Date, device and versions, in a line."""
    return f"{datetime.date.today()}, {device['name']}, {device['versions']}."


def kept_rows(path, device):
    """What an interrupted run has measured on the same device, by kind."""
    if not path.exists():
        return {}
    kept = json.loads(path.read_text())
    return kept["slices"] if kept["device"] == device else {}


def keep(path, device, slices):
    """Writes what is measured, whole or not at all."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps({"device": device, "slices": slices}, indent=1))
    beside.replace(path)


def main(arguments=None):
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks --gpu", description=__doc__)
    parser.add_argument("--only", choices=KINDS, nargs="+", help="kinds to measure")
    parser.add_argument("--rounds", type=int, default=5, help="bursts of each contestant")
    parser.add_argument("--rows", type=Path, help="file of the rows that were measured")
    parser.add_argument("--again", action="store_true", help="measure what is in the file again")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    parser.add_argument(
        "--dry-run", action="store_true", help="check the code in tiny sizes, without a GPU"
    )
    arguments = parser.parse_args(arguments)
    if arguments.dry_run and arguments.write:
        parser.error("--dry-run measures nothing that could be written.")
    dry_run = arguments.dry_run
    device = ask("device")
    if not device["gpu"] and not dry_run:
        print(f"There is no GPU that JAX can use ({device['name']}): nothing was measured.")
        return
    path = arguments.rows or HERE / "gpu.json"
    if dry_run and not arguments.rows:
        path = Path(tempfile.mkdtemp()) / path.name
    if arguments.again:
        path.unlink(missing_ok=True)
    slices, sizes = kept_rows(path, device), DRY_RUN if dry_run else KINDS
    if torch_python() is None:
        print("PyTorch is not installed: vaezoo is measured alone.", file=sys.stderr)
    if ROOFLINE not in slices:
        slices[ROOFLINE] = ask(ROOFLINE, *(["dry-run"] if dry_run else []))
        keep(path, device, slices)
    failed = []
    for kind in arguments.only or KINDS:
        if kind in slices:
            continue
        try:
            slices[kind] = measure(kind, sizes[kind], arguments.rounds, dry_run)
        except RuntimeError as error:
            # The others are worth their time all the same.
            failed.append(kind)
            print(f"{kind}: {error}", file=sys.stderr)
            continue
        keep(path, device, slices)
        if arguments.write:
            publish(machine(device), table(slices), "gpu")
    title = "A check of the code; the numbers mean nothing." if dry_run else machine(device)
    publish(title, table(slices), "gpu" if arguments.write else None)
    if failed:
        sys.exit(f"Not measured: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
