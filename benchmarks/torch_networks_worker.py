"""Trains the same networks in plain PyTorch: `python torch_networks_worker.py KIND [flop]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch  # noqa: E402
import torch_networks  # noqa: E402
from protocol import NETWORKS, PEAK, PRODUCT_SIZE, check_weights, images, in_steps, serve  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

#: Model, learning rate, Adam's epsilon, bound of the gradients' norm, momentum of the averages.
MODELS = {
    "dense": (torch_networks.Dense, 1e-3, 1e-7, None, None),
    "CNN of mu-VAE": (torch_networks.MuVAE, 1e-4, 1e-7, None, None),
    "ResNet": (torch_networks.ResNetVAE, 1e-3, 1e-8, 5.0, 0.999),
    "ResNet + PixelCNN": (torch_networks.DUVAE, 1e-3, 1e-8, 5.0, None),
}


def make_step(kind, steps=None, on="cpu"):
    """A training step of a batch, and the batches, on a device."""
    torch.manual_seed(0)
    # As TensorFlow and XLA do: tiny numbers would make steps slow here alone.
    torch.set_flush_denormal(True)
    make, rate, epsilon, norm, momentum = MODELS[kind]
    networks, model = NETWORKS[kind], make()
    networks = networks._replace(steps=steps or networks.steps)
    weights = list(model.parameters())
    check_weights(sum(weight.numel() for weight in weights), networks)
    x = torch.from_numpy(images(networks)).to(on).view(networks.steps, -1, *model.shape)
    batches = list(x)
    if len(model.shape) == 3:
        model = model.to(memory_format=torch.channels_last)
        batches = [batch.contiguous(memory_format=torch.channels_last) for batch in x]
    optimizer = torch.optim.Adam(weights, lr=rate, eps=epsilon)
    averages = [weight.detach().clone() for weight in weights]

    def step(batch, number):
        optimizer.zero_grad()
        loss = model(batch, number)
        loss.backward()
        if norm is not None:
            torch.nn.utils.clip_grad_norm_(weights, norm)
        optimizer.step()
        if momentum is not None:
            with torch.no_grad():
                torch._foreach_lerp_(averages, weights, 1 - momentum)
        if hasattr(model, "after_step"):
            model.after_step()
        return loss.detach()

    return step, batches


def products():
    """Products of two large matrices."""
    factor = torch.rand(PRODUCT_SIZE, PRODUCT_SIZE)

    def burst():
        for _ in range(5):
            factor @ factor
        return 5

    return burst


def make_burst(kind):
    """Some steps over batches in memory, in a random order."""
    if kind == PEAK:
        return products()
    if kind == "LSTM":
        import torch_text_worker

        return in_steps(torch_text_worker.make_burst())
    step, batches = make_step(kind)

    def burst():
        for number in torch.randperm(len(batches)):
            loss = step(batches[number], int(number))
        loss.item()
        return len(batches)

    return burst


def flop(kind):
    """Floating-point operations of the products of a step, convolutions included."""
    step, batches = make_step(kind)
    with FlopCounterMode(display=False) as counter:
        step(batches[0], 0)
    return counter.get_total_flops()


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if rest:
        print(flop(kind))
    else:
        serve(make_burst(kind))
