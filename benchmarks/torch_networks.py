"""Networks of the presets in plain PyTorch, as an expert would write them for images.

Channels last where there are convolutions, masked kernels without the rows that are always zero,
and a kernel as large as the map as a matrix product. They have as many parameters as ours.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def normalized(direction, gain, axis):
    """A kernel as direction and gain, the outputs on an axis."""
    others = [number for number in range(direction.dim()) if number != axis]
    shape = [-1 if number == axis else 1 for number in range(direction.dim())]
    norm = torch.sqrt((direction * direction).sum(others, keepdim=True) + 1e-16)
    return direction / norm * gain.exp().view(shape)


def gaussian(features):
    """Draws of a diagonal posterior: mean, log-variance, noise and code."""
    mean, log_var = features.chunk(2, dim=1)
    noise = torch.randn_like(mean)
    return mean, log_var, noise, mean + torch.exp(0.5 * log_var) * noise


def bernoulli(logits, x):
    """The distortion, summed over pixels and averaged over images."""
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


class Normed(nn.Module):
    """A convolution's weights under batch or weight normalization."""

    def __init__(self, shape, norm, axis=0, bias=None):
        super().__init__()
        self.axis, outputs = axis, shape[axis]
        self.weight = nn.Parameter(torch.randn(*shape) * math.sqrt(2 / (shape[2] ** 2 * outputs)))
        has_bias = norm != "batch" if bias is None else bias
        self.bias = nn.Parameter(torch.zeros(outputs)) if has_bias else None
        self.gain = nn.Parameter(torch.zeros(outputs)) if norm == "weight" else None
        self.batch_norm = nn.BatchNorm2d(outputs) if norm == "batch" else None

    def kernel(self):
        if self.gain is None:
            return self.weight
        return normalized(self.weight, self.gain, self.axis)

    def finish(self, y):
        return y if self.batch_norm is None else self.batch_norm(y)


class Conv(Normed):
    """A convolution; pointwise ones of stride 2 see every other pixel alone."""

    def __init__(self, inputs, outputs, size, norm, stride=1, padding=0):
        super().__init__((outputs, inputs, size, size), norm)
        self.stride, self.padding = stride, padding

    def forward(self, x):
        kernel, size = self.kernel(), self.weight.shape[-1]
        if size == 1 and self.stride == 2:
            y = F.conv2d(x[:, :, ::2, ::2].contiguous(), kernel, self.bias)
        elif size == x.shape[-1]:
            y = F.linear(x.flatten(1), kernel.flatten(1), self.bias)[:, :, None, None]
        else:
            y = F.conv2d(x, kernel, self.bias, self.stride, self.padding)
        return self.finish(y)


class Deconv(Normed):
    """A transposed convolution."""

    def __init__(self, inputs, outputs, size, norm, stride=1, padding=0, surplus=0):
        super().__init__((inputs, outputs, size, size), norm, axis=1)
        self.options = stride, padding, surplus

    def forward(self, x):
        return self.finish(F.conv_transpose2d(x, self.kernel(), self.bias, *self.options))


class Masked(Normed):
    """A convolution of earlier pixels."""

    def __init__(self, inputs, outputs, size, norm, first=False, unmasked=0, bias=None):
        super().__init__((outputs, inputs, size, size), norm, bias=bias)
        self.cropped = size > 1 and not unmasked
        mask, half = torch.zeros(outputs, inputs, size, size), size // 2
        mask[:, :, :half] = 1
        mask[:, :, half, : half + (not first)] = 1
        if unmasked:
            mask[:, inputs - unmasked :] = 1
        self.register_buffer("mask", None if mask.all() else mask)

    def kernel(self):
        kernel = self.weight if self.mask is None else self.weight * self.mask
        return kernel if self.gain is None else normalized(kernel, self.gain, self.axis)

    def forward(self, x):
        half = self.weight.shape[-1] // 2
        if self.cropped:
            x = F.pad(x, (half, half, half, 0))
            y = F.conv2d(x, self.kernel()[:, :, : half + 1], self.bias)
        else:
            y = F.conv2d(x, self.kernel(), self.bias, 1, half)
        return self.finish(y)


class EncoderBlock(nn.Module):
    """Halves the map."""

    def __init__(self, inputs, outputs, norm):
        super().__init__()
        self.shortcut = Conv(inputs, outputs, 1, norm, 2)
        self.first = Conv(inputs, outputs, 3, norm, 2, 1)
        self.second = Conv(outputs, outputs, 3, norm, 1, 1)

    def forward(self, x):
        return F.elu(self.second(F.elu(self.first(x))) + self.shortcut(x))


class Encoder(nn.Module):
    """The residual encoder and its head."""

    def __init__(self, filters, norm, latent_dim=32, features=512):
        super().__init__()
        widths = [1, *filters]
        self.blocks = nn.Sequential(
            *(EncoderBlock(i, o, norm) for i, o in zip(widths, filters, strict=False))
        )
        self.last = Conv(filters[-1], features, 4, norm)
        self.head = nn.Linear(features, 2 * latent_dim)

    def forward(self, x):
        return self.head(F.elu(self.last(self.blocks(x))).flatten(1))


class DecoderBlock(nn.Module):
    """Doubles the map, or nearly."""

    def __init__(self, inputs, outputs, norm, size, wanted):
        super().__init__()
        surplus = wanted - (2 * size - 1)
        self.shortcut = Deconv(inputs, outputs, 1, norm, 2, 0, surplus)
        self.first = Deconv(inputs, outputs, 3, norm, 2, 1, surplus)
        self.second = Deconv(outputs, outputs, 3, norm, 1, 1)

    def forward(self, x):
        x = F.elu(x)
        return self.second(F.elu(self.first(x))) + self.shortcut(x)


class ResNetDecoder(nn.Module):
    """The transposed decoder of the ResNet VAE."""

    def __init__(self, latent_dim=32, norm="weight"):
        super().__init__()
        self.start = Deconv(latent_dim, 64, 4, norm)
        self.blocks = nn.Sequential(
            DecoderBlock(64, 64, norm, 4, 7),
            DecoderBlock(64, 32, norm, 7, 14),
            DecoderBlock(32, 1, norm, 14, 28),
        )

    def forward(self, z):
        h = self.start(z[:, :, None, None]).to(memory_format=torch.channels_last)
        return self.blocks(F.elu(h))


class Bottleneck(nn.Module):
    """Half as wide in the middle, where its masked convolution is."""

    def __init__(self, filters, size, norm):
        super().__init__()
        self.reduce = Masked(filters, filters // 2, 1, norm)
        self.middle = Masked(filters // 2, filters // 2, size, norm)
        self.expand = Masked(filters // 2, filters, 1, norm)

    def forward(self, h):
        return F.elu(h + self.expand(F.elu(self.middle(F.elu(self.reduce(h))))))


class PixelCNN(nn.Module):
    """The residual PixelCNN with delayed skip connections, batch-normalized."""

    def __init__(self, kernels, latent_dim=32, filters=64, maps=4, norm="batch"):
        super().__init__()
        self.maps = nn.Linear(latent_dim, 784 * maps)
        self.first = Masked(1 + maps, filters, kernels[0], norm, True, maps)
        self.blocks = nn.ModuleList(Bottleneck(filters, size, norm) for size in kernels[1:])
        self.skips = nn.ModuleList(Bottleneck(filters, size, norm) for size in kernels[1:-1])
        self.head = Masked(filters, filters, 1, norm)
        self.last = Masked(filters, 1, 1, None, bias=False)

    def forward(self, z, x):
        maps = self.maps(z).view(len(z), 28, 28, -1).permute(0, 3, 1, 2)
        found = [F.elu(self.first(torch.cat([x, maps], 1)))]

        def delayed(h):
            number = len(found) - 3
            return h if number < 0 else h + self.skips[number](found[number])

        for block in self.blocks:
            found.append(block(delayed(found[-1])))
        return self.last(F.elu(self.head(delayed(found[-1]))))


class MADE(nn.Module):
    """A masked network of one hidden layer, with a direct path."""

    def __init__(self, dims, hidden):
        super().__init__()
        order = torch.arange(1, dims + 1.0)
        degrees = torch.ceil(torch.arange(1, hidden + 1.0) * (dims - 1) / hidden)
        masks = (
            order[None] <= degrees[:, None],
            degrees[None] < order[:, None],
            order[None] < order[:, None],
        )
        for number, mask in enumerate(masks):
            self.register_buffer(f"mask_{number}", mask.float())
        self.weights = nn.ParameterList(torch.randn(mask.shape) * 0.05 for mask in masks)
        self.gains = nn.ParameterList(torch.full((len(mask),), math.log(0.1)) for mask in masks)
        self.biases = nn.ParameterList(torch.zeros(len(mask)) for mask in masks)

    def _linear(self, number, x):
        direction = self.weights[number] * getattr(self, f"mask_{number}")
        return F.linear(x, normalized(direction, self.gains[number], 0), self.biases[number])

    def forward(self, z):
        return self._linear(1, F.relu(self._linear(0, z))) + self._linear(2, z)


class FlowPrior(nn.Module):
    """The autoregressive flow of MAE's prior, from codes to noise."""

    def __init__(self, dims=32, blocks=8, hidden=320):
        super().__init__()
        self.shift, self.scale = (
            nn.ModuleList(MADE(dims, hidden) for _ in range(blocks)) for _ in range(2)
        )

    def forward(self, z):
        total = 0.0
        for number in reversed(range(len(self.shift))):
            if number % 2:
                z = z.flip(-1)
            log_scale = 0.5 * self.scale[number](z)
            z = self.shift[number](z) + z * log_scale.exp()
            total = total + log_scale.sum(1)
            if number % 2:
                z = z.flip(-1)
        return (-0.5 * z * z).sum(1) + total


class Dense(nn.Module):
    """784-500-500-40 and back by five hidden layers."""

    shape = (784,)

    def __init__(self):
        super().__init__()
        self.encoder = self._stack(784, 500, 500, 80)
        self.decoder = self._stack(40, *[500] * 5, 784)

    @staticmethod
    def _stack(*widths):
        layers = []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def forward(self, x, step):
        mean, log_var, _, z = gaussian(self.encoder(x))
        rate = 0.5 * (mean * mean + log_var.exp() - log_var - 1).sum() / len(x)
        return bernoulli(self.decoder(z), x) + rate


class MuVAE(nn.Module):
    """mu-VAE's convolutional networks and loss."""

    shape = (1, 28, 28)

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList(
            [nn.Conv2d(1, 64, 3, 1, 1), nn.Conv2d(64, 64, 3, 2, 1), nn.Conv2d(64, 64, 3, 2, 1)]
        )
        self.head, self.dense = nn.Linear(3136, 20), nn.Linear(10, 3136)
        self.up = nn.ModuleList(
            [
                nn.ConvTranspose2d(64, 64, 3, 1, 1),
                nn.ConvTranspose2d(64, 32, 3, 2, 1, 1),
                nn.ConvTranspose2d(32, 1, 3, 2, 1, 1),
            ]
        )

    def forward(self, x, step):
        h = x
        for layer in self.down:
            h = F.leaky_relu(layer(h), 0.2)
        mean, log_var = self.head(h.flatten(1)).chunk(2, 1)
        norm = (mean * mean).sum(1, keepdim=True) / 90
        mean = mean * torch.rsqrt(norm.clamp(min=1))
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        h = F.leaky_relu(self.dense(z), 0.2).view(-1, 64, 7, 7)
        h = h.to(memory_format=torch.channels_last)
        h = F.leaky_relu(self.up[0](h), 0.2)
        h = F.leaky_relu(self.up[1](h), 0.2)
        error = (torch.sigmoid(self.up[2](h)) - x).square().sum()
        return (error + mean.sum().abs() + (torch.expm1(log_var) - log_var).sum()) / len(x)


class ResNetVAE(nn.Module):
    """MAE's baseline: residual networks under weight normalization and a flow prior."""

    shape = (1, 28, 28)

    def __init__(self):
        super().__init__()
        self.encoder = Encoder((32, 64, 64), "weight")
        self.decoder, self.prior = ResNetDecoder(), FlowPrior()

    def forward(self, x, step):
        _, log_var, noise, z = gaussian(self.encoder(x))
        log_q = (-0.5 * noise * noise - 0.5 * log_var).sum(1)
        return bernoulli(self.decoder(z), x) + (log_q - self.prior(z)).mean()


class DUVAE(nn.Module):
    """DU-VAE's networks for OMNIGLOT, its head and its loss."""

    shape = (1, 28, 28)

    def __init__(self):
        super().__init__()
        self.encoder = Encoder((64, 64, 64), "batch")
        self.norm = nn.BatchNorm1d(32)
        nn.init.constant_(self.norm.weight, 0.5)
        self.decoder = PixelCNN((7, 7, 7, 7, 7, 5, 5, 5, 5, 3, 3, 3, 3))

    def forward(self, x, step):
        mean, log_var = self.encoder(x).chunk(2, 1)
        mean = self.norm(mean)
        least = torch.full_like(log_var, -math.log(2 * math.pi * math.e))
        kept = torch.logaddexp(log_var - math.log(0.9), least)
        log_var = torch.where(torch.rand_like(log_var) < 0.9, kept, least)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        rate = 0.5 * (mean * mean + log_var.exp() - log_var - 1).sum() / len(x)
        return bernoulli(self.decoder(z, x), x) + min(1, step / 4470) * rate

    @torch.no_grad()
    def after_step(self):
        """Pins the root mean square of the gains."""
        gains = self.norm.weight
        gains.mul_(0.5 / gains.square().mean().sqrt())
