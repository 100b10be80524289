"""Training speed as ratios within one run: `python -m benchmarks [--write]`."""

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from .protocol import Worker

HERE = Path(__file__).parent
PEERS = HERE.parent / ".venv-bench" / "bin" / "python"

OURS, TF, JAX = sys.executable, "tensorflow", "jax"
#: Contestant: interpreter, script with arguments, Keras backend.
CONTESTANTS = {
    "vaezoo VAE, TensorFlow": (OURS, ["worker.py", "VAE"], TF),
    "vaezoo VAE, single steps, TensorFlow": (OURS, ["worker.py", "VAE", "1"], TF),
    "vaezoo VAE with LatentMonitor, TensorFlow": (OURS, ["worker.py", "VAE", "monitored"], TF),
    "vaezoo DU-VAE, TensorFlow": (OURS, ["worker.py", "DUVAE"], TF),
    "hand-written loop, TensorFlow": (OURS, ["worker.py", "tensorflow_loop"], TF),
    "vaezoo VAE, JAX": (OURS, ["worker.py", "VAE"], JAX),
    "vaezoo VAE with LatentMonitor, JAX": (OURS, ["worker.py", "VAE", "monitored"], JAX),
    "vaezoo DU-VAE, JAX": (OURS, ["worker.py", "DUVAE"], JAX),
    "hand-written loop, JAX": (OURS, ["worker.py", "jax_loop"], JAX),
    "pythae VAE, PyTorch": (str(PEERS), ["pythae_worker.py"], TF),
    "ceiling: matrix products alone": (OURS, ["worker.py", "ceiling"], JAX),
}

#: What is compared: numerator, denominator, target if there is one, and whether less is better.
RATIOS = (
    ("vaezoo VAE, TensorFlow", "pythae VAE, PyTorch", 1.9, False),
    ("vaezoo VAE, JAX", "pythae VAE, PyTorch", 2.4, False),
    ("ceiling: matrix products alone", "pythae VAE, PyTorch", None, False),
    ("vaezoo VAE, TensorFlow", "hand-written loop, TensorFlow", 0.97, False),
    ("vaezoo VAE, single steps, TensorFlow", "hand-written loop, TensorFlow", None, False),
    ("vaezoo VAE, JAX", "hand-written loop, JAX", 0.98, False),
    ("vaezoo VAE, TensorFlow", "vaezoo DU-VAE, TensorFlow", 1.05, True),
    ("vaezoo VAE, JAX", "vaezoo DU-VAE, JAX", 1.05, True),
    ("vaezoo VAE, TensorFlow", "vaezoo VAE with LatentMonitor, TensorFlow", None, True),
    ("vaezoo VAE, JAX", "vaezoo VAE with LatentMonitor, JAX", None, True),
)


def measure(contestants, rounds):
    """Steps per second by contestant, a list with one entry per round."""
    found = bursts(contestants, rounds)
    return {name: [burst.speed for burst in found[name]] for name in found}


def bursts(contestants, rounds, cores=None):
    """Bursts by contestant, a list with one entry per round; each may use some cores or all."""
    workers = {}
    for name, (python, script, backend) in contestants.items():
        if not Path(python).exists():
            sys.exit(f"{name} needs {python}, which `make bench` sets up.")
        command = [python, str(HERE / script[0]), *script[1:]]
        workers[name] = Worker(command, {**os.environ, "KERAS_BACKEND": backend}, cores)
        workers[name].wait()
    found = {name: [] for name in workers}
    for _ in track(range(rounds), "Rounds"):
        for name, worker in workers.items():
            found[name].append(worker.burst())
    for worker in workers.values():
        worker.stop()
    return found


def import_cost(repeats=7):
    """Seconds that `import vaezoo` adds to keras, its backend and TFP: median of pairs."""
    base = "import keras; import tensorflow_probability.python.distributions"
    timer = "import time; s = time.perf_counter(); import vaezoo; print(time.perf_counter() - s)"
    costs = [
        float(
            subprocess.run(
                [sys.executable, "-c", f"{base}; {timer}"],
                env={**os.environ, "KERAS_BACKEND": "tensorflow"},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()[-1]
        )
        for _ in range(repeats)
    ]
    return statistics.median(costs)


def report(found, cost):
    """The results as Markdown."""
    lines = [
        machine(),
        "",
        "| contestant | steps/s, median | min | max | CPU ms a step, median |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, times in found.items():
        speeds = [burst.speed for burst in times]
        cpu = statistics.median(1e3 * burst.cpu / burst.steps for burst in times)
        lines.append(
            f"| {name} | {statistics.median(speeds):.1f} | {min(speeds):.1f} | {max(speeds):.1f} "
            f"| {cpu:.1f} |"
        )
    lines += [
        "",
        "| ratio of speeds | by CPU, paired by round, median | by the clock, paired "
        "| fastest bursts | target | met, by CPU |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for above, below, target, less in RATIOS:
        if above in found and below in found:
            pairs = list(zip(found[above], found[below], strict=True))
            cpu = statistics.median((a.steps / a.cpu) / (b.steps / b.cpu) for a, b in pairs)
            paired = statistics.median(a.speed / b.speed for a, b in pairs)
            fastest = max(a.speed for a, _ in pairs) / max(b.speed for _, b in pairs)
            bound, met = "-", "-"
            if target is not None:
                bound = f"{'at most' if less else 'at least'} {target}"
                met = yes(cpu <= target if less else cpu >= target)
            lines.append(
                f"| {above} / {below} | {cpu:.2f} | {paired:.2f} | {fastest:.2f} | {bound} "
                f"| {met} |"
            )
    lines.append(
        f"| `import vaezoo` beyond keras, TensorFlow and TFP | {cost:.2f} s | - | - "
        f"| at most 0.3 s | {yes(cost <= 0.3)} |"
    )
    return "\n".join(lines)


def machine():
    """Date, machine and versions, in a line."""
    packages = ("keras", "tensorflow", "jax", "numpy")
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in packages)
    return (
        f"{datetime.date.today()}, {os.cpu_count()} cores of {processor()}, "
        f"Python {platform.python_version()}, {versions}."
    )


def yes(met):
    """A word for the table."""
    return "yes" if met else "no"


def processor():
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def write(text, marker="results"):
    """Puts the results between the markers in README.md."""
    path = HERE / "README.md"
    head, start, rest = path.read_text().partition(f"<!-- {marker} -->\n")
    tail = rest.partition("<!-- end -->")[2]
    path.write_text(f"{head}{start}{text}\n<!-- end -->{tail}")


def publish(title, lines, marker=None):
    """Prints Markdown: a title and, as they come, lines under it.

    With a marker README.md has each line as soon as it is there: nothing measured is lost.
    """
    text = f"{title}\n"
    for line in lines:
        text += f"\n{line}"
        if marker:
            write(text, marker)
    show(text)


def show(text):
    """Prints the Markdown tables as tables."""
    console = Console()
    table = None
    for line in [*text.splitlines(), ""]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ---"):
            continue
        if line.startswith("|") and table is None:
            table = Table(*cells)
        elif line.startswith("|"):
            table.add_row(*cells)
        elif table is not None:
            console.print(table)
            table = None
        else:
            console.print(line)


def main():
    """Runs the benchmark."""
    if "--gpu" in sys.argv[1:]:
        from . import gpu

        gpu.main([argument for argument in sys.argv[1:] if argument != "--gpu"])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="On a GPU: python -m benchmarks --gpu --help"
    )
    parser.add_argument("--rounds", type=int, default=6, help="epochs of 430 steps per contestant")
    parser.add_argument("--cores", type=int, default=1, help="cores that each may use")
    parser.add_argument("--only", nargs="*", help="parts of names of contestants to run")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    contestants = {
        name: contestant
        for name, contestant in CONTESTANTS.items()
        if not arguments.only or any(part in name for part in arguments.only)
    }
    text = report(bursts(contestants, arguments.rounds, arguments.cores), import_cost())
    show(text)
    if arguments.write:
        write(text)


if __name__ == "__main__":
    main()
