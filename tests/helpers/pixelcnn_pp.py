"""The PixelCNN++ of MAE once more, in NumPy's float64 and by loops, as an oracle.

Padding, cuts and moves are those that its publications' codes write out; nothing but the weights
comes from ours.
"""

import itertools

import numpy as np
from keras import ops


def params(decoder, z, x):
    """The output of a `PixelCNNPlusPlus` with a `latent_shape`, without dropout."""
    maps, x = z.astype("float64").reshape(-1, *decoder.latent_shape), 2.0 * x.astype("float64") - 1
    for layer in decoder.growing:
        maps = _elu(_grown(layer, maps))
    maps = _same(decoder.to_maps, maps)
    h = (_small if decoder.field == "small" else _full)(decoder.core, maps, x)
    return _down(decoder.outputs, _elu(_down(decoder.head, _elu(h))))


def _small(core, maps, x):
    direction, gain, bias = _weights(core.window)
    # Rows above, and what is left of the pixel.
    mask = np.ones((5, 7, 1, 1))
    mask[2, 3:] = mask[3:] = 0
    h = _convolved(x, _kernel(direction * mask, gain), (2, 2, 3, 3)) + bias
    for stage in core.stages:
        h = _gated(stage.stream, h, _condition(stage, maps), _down)
    return h


def _full(core, maps, x):
    u = _moved(_down(core.above, x), 1, 0)
    ul = _moved(_down(core.row_above, x), 1, 0) + _moved(_right(core.left, x), 0, 1)
    turn, kept = len(core.stages) // 2, []
    skips = zip(core.skips_down, core.skips_right, strict=True)
    for number, stage in enumerate(core.stages):
        if number > turn:
            (skip_u, skip_ul), (old_u, old_ul) = next(skips), kept.pop()
            u, ul = u + _down(skip_u, _celu(old_u)), ul + _down(skip_ul, _celu(old_ul))
        if hasattr(stage, "link"):
            condition = _condition(stage, maps)
            u = _gated(stage.down, u, condition, _down)
            ul = _gated(stage.right, ul, condition, _right, _down(stage.link, _celu(u)))
        elif stage.doubles:
            u, ul = _up(stage.down, u, 1), _up(stage.right, ul, 0)
            maps = _grown(stage.condition, maps)
        else:
            u, ul = _down(stage.down, u, 2), _right(stage.right, ul, 2)
            maps = _same(stage.condition, maps, 2)
        if number < turn - 1:
            kept.append((u, ul))
    return ul


def _gated(stream, h, condition, conv, link=0.0):
    inner = conv(stream.second, _celu(conv(stream.first, _celu(h)))) + link
    value, gate = np.split(conv(stream.last, _celu(inner)) + condition, 2, axis=-1)
    return h + value / (1.0 + np.exp(-gate))


def _condition(stage, maps):
    return _same(stage.condition.last, _celu(_same(stage.condition.first, _celu(maps))))


def _elu(h):
    return np.where(h > 0, h, np.expm1(np.minimum(h, 0)))


def _celu(h):
    return _elu(np.concatenate([h, -h], axis=-1))


def _moved(maps, down, right):
    moved = np.pad(maps, ((0, 0), (down, 0), (right, 0), (0, 0)))
    return moved[:, : maps.shape[1], : maps.shape[2]]


def _weights(layer):
    found = {v.path.rsplit("/", 1)[-1]: ops.convert_to_numpy(v) for v in layer.variables}
    # Keras' layers and ours name it differently.
    found["direction"] = found.get("direction", found.get("kernel"))
    return [found[name].astype("float64") for name in ("direction", "log_gain", "bias")]


def _kernel(direction, gain):
    norm = np.sqrt(np.sum(direction**2, axis=(0, 1, 2)))
    return direction / norm * np.exp(gain)


def _convolved(x, kernel, padding, stride=1):
    x = np.pad(x, ((0, 0), padding[:2], padding[2:], (0, 0)))
    rows, columns = kernel.shape[:2]
    height, width = (x.shape[1] - rows) // stride + 1, (x.shape[2] - columns) // stride + 1
    y = np.zeros((len(x), height, width, kernel.shape[3]))
    for i, j in itertools.product(range(height), range(width)):
        window = x[:, i * stride : i * stride + rows, j * stride : j * stride + columns]
        y[:, i, j] = np.tensordot(window, kernel, 3)
    return y


def _down(layer, x, stride=1):
    direction, gain, bias = _weights(layer)
    rows, side = direction.shape[0] - 1, direction.shape[1] // 2
    return _convolved(x, _kernel(direction, gain), (rows, 0, side, side), stride) + bias


def _right(layer, x, stride=1):
    direction, gain, bias = _weights(layer)
    rows, columns = direction.shape[0] - 1, direction.shape[1] - 1
    return _convolved(x, _kernel(direction, gain), (rows, 0, columns, 0), stride) + bias


def _same(layer, x, stride=1):
    direction, gain, bias = _weights(layer)
    side = direction.shape[0] // 2
    return _convolved(x, _kernel(direction, gain), (side,) * 4, stride) + bias


def _spread(x, kernel):
    """Each input times the kernel, added up two positions apart."""
    height, width, (rows, columns) = x.shape[1], x.shape[2], kernel.shape[:2]
    y = np.zeros((len(x), 2 * height + rows, 2 * width + columns, kernel.shape[3]))
    for i, j, a, b in itertools.product(*map(range, (height, width, rows, columns))):
        y[:, 2 * i + a, 2 * j + b] += x[:, i, j] @ kernel[a, b]
    return y


def _up(layer, x, left):
    direction, gain, bias = _weights(layer)
    y = _spread(x, _kernel(direction, gain)[::-1, ::-1])
    return y[:, : 2 * x.shape[1], left : left + 2 * x.shape[2]] + bias


def _grown(layer, x):
    direction, gain, bias = _weights(layer)
    # Keras has the axis of the outputs before that of the inputs.
    y = _spread(x, _kernel(direction.transpose(0, 1, 3, 2), gain))
    return y[:, 1 : 1 + 2 * x.shape[1], 1 : 1 + 2 * x.shape[2]] + bias
