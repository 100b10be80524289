"""Pythae's `get_nll` on the weights of a vaezoo model: `pythae_nll.py WEIGHTS DRAWS`."""

import json
import sys
import time

import numpy as np
import torch
from protocol import LATENT_DIM
from pythae_worker import make_model


def load(model, arrays):
    """Copies kernels `(in, out)` and biases of vaezoo's encoder, head and decoder in that order."""
    first, second, head, *decoder = zip(arrays[::2], arrays[1::2], strict=True)
    kernel, bias = head
    parts = slice(LATENT_DIM), slice(LATENT_DIM, None)
    halves = [(kernel[:, part], bias[part]) for part in parts]
    encoder_layers = [model.encoder.stack[0], model.encoder.stack[2]]
    decoder_layers = [model.decoder.stack[index] for index in (0, 2, 4)]
    targets = [*encoder_layers, model.encoder.mean, model.encoder.log_var, *decoder_layers]
    sources = [first, second, *halves, *decoder]
    with torch.no_grad():
        for layer, (kernel, bias) in zip(targets, sources, strict=True):
            layer.weight.copy_(torch.tensor(np.ascontiguousarray(kernel.T)))
            layer.bias.copy_(torch.tensor(np.ascontiguousarray(bias)))


if __name__ == "__main__":
    stored = np.load(sys.argv[1])
    arrays = [stored[f"arr_{number}"] for number in range(len(stored.files) - 1)]
    model = make_model()
    load(model, arrays)
    model.eval()
    x = torch.tensor(stored["x"])
    torch.manual_seed(0)
    with torch.no_grad():
        model.get_nll(x[:2], int(sys.argv[2]))
        wall, cpu = time.perf_counter(), time.process_time()
        value = -model.get_nll(x, int(sys.argv[2]))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps({"cpu": cpu, "seconds": wall, "value": float(value)}))
