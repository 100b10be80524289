"""Flows and autoregressive decoders: `python -m benchmarks.flows [--write]`.

Sampling that computes each position once against a pass over the image for each pixel; what flows
add to a training step; how long the first step of every preset takes to compile.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys

from rich.progress import track

from vaezoo import zoo

from .__main__ import HERE, OURS, machine, measure, publish, yes

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX"}

#: Decoder: its network, and how many of the 784 full passes are run.
DECODERS = {
    "residual PixelCNN, 7 layers": ("residual", 784),
    "gated PixelCNN, 12 layers": ("gated", 196),
}

#: Models of the dense networks, the plain one first.
STEPS = ("VAE", "IAFVAE", "DUIAF", "VLAE")

#: Values of an image up to which a preset is measured without being asked for.
LARGEST = {"tensorflow": 28 * 28, "jax": 8 * 8}


def child(backend, limit, *arguments, worker="flows_worker.py"):
    """The JSON object that a worker prints last, or a few words on why there is none."""
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / worker), *map(str, arguments)],
            env={**os.environ, "KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return f"more than {limit:.0f} s"
    if done.returncode:
        print(f"{' '.join(map(str, arguments))}:\n{done.stderr[-3000:]}", file=sys.stderr)
        return "out of memory" if done.returncode == -9 else "failed"
    return json.loads(done.stdout.strip().splitlines()[-1])


def sampling(backend, arguments):
    """Yields the lines of the table of sampling."""
    yield (
        "| decoder | cached, seconds | full passes, seconds | ratio | target | met "
        "| pixels that differ |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name, (network, passes) in track(DECODERS.items(), "Decoders"):
        passes = min(passes, arguments.passes)
        found = child(backend, None, "sampling", network, passes)
        if isinstance(found, str):
            sys.exit(f"{name}: {found}")
        ratio = found["full"] / found["cached"]
        about = "" if passes == 784 else f" (from {passes} passes)"
        yield (
            f"| {name} | {found['cached']:.3f} | {found['full']:.1f}{about} | {ratio:.0f} "
            f"| at least 20 | {yes(ratio >= 20)} "
            f"| {found['different']:,} of {found['compared']:,} |"
        )


def steps(backend, arguments):
    """Yields the lines of the table of training steps."""
    contestants = {name: (OURS, ["worker.py", name], backend) for name in STEPS}
    speeds = measure(contestants, arguments.rounds)
    yield (
        "| model | steps/s, median | min | max | cost over VAE, paired by round, median "
        "| fastest bursts |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    plain = speeds[STEPS[0]]
    for name, found in speeds.items():
        paired = statistics.median(a / b for a, b in zip(plain, found, strict=True))
        yield (
            f"| {name} | {statistics.median(found):.1f} | {min(found):.1f} | {max(found):.1f} "
            f"| {paired:.2f} | {max(plain) / max(found):.2f} |"
        )


def compilation(backend, arguments):
    """Yields the lines of the table of first steps."""
    yield "| preset | batch | first step, CPU seconds | later steps, CPU seconds |"
    yield "| --- | --- | --- | --- |"
    names = chosen(backend, arguments)
    for name in track(names, "Presets"):
        batch = zoo.presets()[name][1]["data"]["batch_size"]
        found = child(backend, arguments.limit, "first_step", name)
        cells = f"{found} | -"
        if not isinstance(found, str):
            cells = f"{found['first']:.1f} | {found['later']:.3f}"
            if not found["finite"]:
                cells += ", loss not finite"
        yield f"| {name} | {batch} | {cells} |"


def chosen(backend, arguments):
    """Names of the presets to measure."""
    names = []
    for name, (_, settings) in zoo.presets().items():
        shape = settings["networks"]["input_shape"]
        if arguments.presets:
            wanted = any(part in name for part in arguments.presets)
        else:
            # Text has no shape, and needs a vocabulary first.
            wanted = None not in shape
            wanted = wanted and (arguments.all or math.prod(shape) <= LARGEST[backend])
        if wanted:
            names.append(name)
    return names


PARTS = {"sampling": sampling, "steps": steps, "compile": compilation}


def main():
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--backend", choices=BACKENDS, help="one backend")
    parser.add_argument("--passes", type=int, default=784, help="full passes at most, of 784")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of 430 steps per model")
    parser.add_argument(
        "--all", action="store_true", help="compile every preset, those of larger images, too"
    )
    parser.add_argument("--presets", nargs="+", help="parts of names of presets to compile")
    parser.add_argument("--limit", type=float, default=600, help="seconds for each preset")
    parser.add_argument("--write", action="store_true", help="put the results into README.md")
    arguments = parser.parse_args()
    if arguments.write and (arguments.presets or arguments.passes < 784):
        parser.error("`--write` takes whole tables: leave `--presets` and `--passes` out.")
    for part in [arguments.only] if arguments.only else PARTS:
        for backend in [arguments.backend] if arguments.backend else BACKENDS:
            publish(
                f"{BACKENDS[backend]}. {machine()}",
                PARTS[part](backend, arguments),
                f"{part} {backend}" if arguments.write else None,
            )


if __name__ == "__main__":
    main()
