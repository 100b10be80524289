"""One side of a slice on a GPU: `gpu_worker.py device|roofline|flop|ours|torch [KIND STEPS]`.

The last argument `dry-run` asks for tiny sizes. No TensorFlow is needed.
"""

import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np  # noqa: E402
import protocol  # noqa: E402

SMALL = "ResNet + PixelCNN", "sampling"


def device():
    """What JAX computes on, and the versions of what is there."""
    import jax

    found = jax.devices()[0]
    versions = []
    for package in ("keras", "jax", "torch", "numpy"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return {
        "gpu": found.platform == "gpu",
        "name": found.device_kind,
        "versions": ", ".join(versions),
    }


def roofline(dry_run):
    """Speed of a large product of matrices and of a copy, the best of some tries."""
    import jax

    size, values = (256, 1 << 16) if dry_run else (8192, 1 << 28)
    factor = jax.numpy.ones((size, size), "float32")
    vector = jax.numpy.ones(values, "float32")
    product, copy = jax.jit(jax.numpy.matmul), jax.jit(lambda v: v + 1.0)

    def fastest(call):
        call().block_until_ready()
        found = []
        for _ in range(10):
            start = time.perf_counter()
            call().block_until_ready()
            found.append(time.perf_counter() - start)
        return min(found)

    return {
        "flop_a_second": 2 * size**3 / fastest(lambda: product(factor, factor)),
        "bytes_a_second": 8 * values / fastest(lambda: copy(vector)),
    }


def set_text(steps, dry_run):
    """Lets a burst of text have a number of steps, before its workers are imported."""
    sizes = {"steps": steps}
    if dry_run:
        sizes |= {"vocabulary_size": 50, "units": 16, "batch_size": 4}
    protocol.TEXT = protocol.TEXT._replace(**sizes)


def ours(kind, steps, dry_run):
    """A burst of vaezoo: `fit` from an array as the preset says, or images from the prior."""
    if kind == "LSTM":
        set_text(steps, dry_run)
        import text_worker

        return protocol.in_steps(text_worker.make_burst())
    import keras

    from vaezoo import zoo

    keras.utils.set_random_seed(0)
    name = "ResNet + PixelCNN" if kind == "sampling" else kind
    networks = protocol.NETWORKS[name]._replace(steps=steps)
    # The large PixelCNN compiles for a minute on a CPU.
    small = dry_run and kind in SMALL
    preset = zoo.load("du_vae_digits_pixelcnn" if small else networks.preset)
    shape = preset.model.encoder.input_shape[1:]
    preset.model.compile(**preset.compile_args)
    if kind == "sampling":
        preset.model.build((None, *shape))

        def sample():
            preset.model.generate(steps, seed=0, mean=False, batch_size=steps)
            return 1

        return sample
    x = np.random.default_rng(0).random((steps * networks.batch_size, *shape)) < 0.3
    x = x.astype("float32")

    def burst():
        preset.model.fit(x, batch_size=networks.batch_size, epochs=1, verbose=0)
        return steps

    return burst


def torch_on():
    """PyTorch on the GPU if there is one, with the precision of products that JAX has there."""
    import torch

    on = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.set_default_device(on)
    return torch, on


def peer(kind, steps, dry_run):
    """A burst of plain PyTorch: steps over batches on the device, or images pixel by pixel."""
    torch, on = torch_on()
    if kind == "LSTM":
        set_text(steps, dry_run)
        import torch_text_worker

        return protocol.in_steps(torch_text_worker.make_burst(on))
    import torch_networks
    from torch_networks_worker import make_step

    if kind != "sampling":
        step, batches = make_step(kind, steps, on)

        def burst():
            for number in torch.randperm(len(batches), device="cpu"):
                loss = step(batches[number], int(number))
            loss.item()
            return len(batches)

        return burst
    model = torch_networks.DUVAE().eval().to(memory_format=torch.channels_last)
    height, width = model.shape[1:]
    pixels = [(row, column) for row in range(height) for column in range(width)]
    if dry_run:
        pixels = pixels[:2]

    @torch.no_grad()
    def sample():
        z, x = torch.randn(steps, 32), torch.zeros(steps, *model.shape)
        for row, column in pixels:
            logits = model.decoder(z, x)[:, 0, row, column]
            x[:, 0, row, column] = (torch.rand(steps) < logits.sigmoid()).float()
        x.sum().item()
        # A dry run stops early.
        return len(pixels) / (height * width)

    return sample


def main(command, *rest):
    """Answers once, or serves bursts."""
    dry_run = "dry-run" in rest
    if command == "device":
        print(json.dumps(device()))
    elif command == "roofline":
        print(json.dumps(roofline(dry_run)))
    elif command == "flop":
        from torch_networks_worker import flop

        print(json.dumps(flop(rest[0])))
    else:
        kind, steps = rest[0], int(rest[1])
        protocol.serve({"ours": ours, "torch": peer}[command](kind, steps, dry_run))


if __name__ == "__main__":
    main(*sys.argv[1:])
