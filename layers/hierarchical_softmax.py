"""Classifier heads over very many classes: a flat softmax and a binary tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import check_flag, check_integer, check_keras, check_real, check_seed
from ..core.gradients import with_gradient
from ..core.replicas import gather_batch
from ..core.serialization import ArgumentsConfig

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import KerasObject, Shape, Tensor

_DECAY = 0.9


class _ClassifierHead(ArgumentsConfig, keras.layers.Layer):
    """Base of the heads: what a call returns, and the checks.

    Its methods may be called outside of a model too: the first one builds.
    """

    def __init__(
        self, num_classes: int, use_bias: bool, kernel_initializer: KerasObject, **kwargs: Any
    ) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.num_classes = check_integer("num_classes", num_classes)
        self.use_bias = check_flag("use_bias", use_bias)
        self.kernel_initializer = check_keras(
            "kernel_initializer", kernel_initializer, keras.initializers
        )

    def call(self, h, index=None):
        return self.probabilities(h) if index is None else self.log_prob(h, index)

    def compute_output_shape(self, h_shape, index_shape=None):
        return (h_shape[0], self.num_classes) if index_shape is None else (h_shape[0],)

    def _features(self, h):
        h = ops.convert_to_tensor(h)
        if len(h.shape) != 2:
            raise ValueError(f"`h` must have shape (batch, H). Received: shape={tuple(h.shape)}")
        if not self.built:
            self.build(h.shape)
        # The caller may be computing in half precision.
        return ops.cast(h, self.variable_dtype)

    def _add_table_weight(self, name, shape, initializer="zeros", **kwargs):
        return self.add_weight(
            name=name, shape=shape, initializer=initializer, autocast=False, **kwargs
        )


@keras.saving.register_keras_serializable(package="vaezoo")
class FlatSoftmax(_ClassifierHead):
    """Softmax of one logit for each class.

        s(i|h) = exp(t_i) / sum_j exp(t_j),   t = h kernel + bias

    Everything costs O(H N) time an example, and O(batch N) memory.

    Args:
        num_classes: Positive int N.
        use_bias: Whether logits have a bias.
        kernel_initializer: Keras initializer of the kernel `(H, N)`.
        **kwargs: Keyword arguments of `keras.layers.Layer`. The dtype is float32 by default,
            whatever the policy.

    Call arguments:
        h: Float tensor `(batch, H)`.
        index: Optional integer tensor `(batch,)` with values from 0 to N-1.

    Returns:
        log s(index|h), `(batch,)` in nats; without an index the probabilities `(batch, N)`.

    Raises:
        ValueError: If `num_classes` is below 1; in a call, if a tensor is of another rank.
        TypeError: In a call, if `index` is not of integers.
    """

    def __init__(
        self,
        num_classes: int,
        use_bias: bool = True,
        kernel_initializer: KerasObject = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, use_bias, kernel_initializer, **kwargs)

    def build(self, h_shape: Shape, index_shape: Shape | None = None) -> None:
        self.kernel = self._add_table_weight(
            "kernel", (h_shape[-1], self.num_classes), self.kernel_initializer
        )
        self.bias = None
        if self.use_bias:
            self.bias = self._add_table_weight("bias", (self.num_classes,))

    def log_prob(self, h: Tensor, index: Tensor) -> Tensor:
        """Log s(index|h), `(batch,)` in nats, of `h (batch, H)` and `index (batch,)`."""
        index = _checked_index(index)
        log_probs = self._log_probs(h)
        return ops.take_along_axis(log_probs, index[:, None], axis=1)[:, 0]

    def entropy(self, h: Tensor) -> Tensor:
        """Entropy of s(.|h), `(batch,)` in nats."""
        return _entropy_of_logits(self._logits(h))

    def probabilities(self, h: Tensor) -> Tensor:
        """s(i|h) of all classes, `(batch, N)`."""
        return ops.softmax(self._logits(h), axis=1)

    def sample(self, h: Tensor, seed: Any = None) -> Tensor:
        """Draws one class for each row of `h`, int32 `(batch,)`.

        Args:
            h: Float tensor `(batch, H)`.
            seed: Int or `keras.random.SeedGenerator`; None takes Keras' global generator.
        """
        return keras.random.categorical(self._logits(h), 1, dtype="int32", seed=seed)[:, 0]

    def _log_probs(self, h):
        return ops.log_softmax(self._logits(h), axis=1)

    def _logits(self, h):
        logits = ops.matmul(self._features(h), self.kernel)
        return logits if self.bias is None else logits + self.bias


@keras.saving.register_keras_serializable(package="vaezoo")
class HierarchicalSoftmax(_ClassifierHead):
    """Softmax over the leaves of a balanced binary tree: log2 N decisions instead of N logits.

        log s(i|h) = sum_{v on the path to i} log sigmoid(+-t_v),   t_v = <kernel_v, h> + bias_v

    with + where the path goes left. Nodes are numbered as in a heap: the inner ones from 1, the
    root, to N-1, and the leaf of class i is node N + leaf_i, where `leaf` is a random permutation.
    The parent of node n is n // 2, its left child the even one. Every inner node has two
    children, so the probabilities of the N leaves add up to 1 for any N.

    Of an example, `log_prob`, `sample`, `sampled_entropy` and `update` read no more than
    ceil(log2 N) rows of the kernel, O(H log N) time and memory; `entropy` and `probabilities` need
    all of them, O(H N) time and O(N) memory. The gradient of `log_prob` is as large as the kernel
    all the same, and so is the step of an ordinary optimizer. With
    `row_learning_rate`, `update` trains kernel and bias instead of the optimizer, in O(H log N) per
    example.

    Args:
        num_classes: Positive int N.
        use_bias: Whether decisions have a bias.
        row_learning_rate: Optional positive float, the learning rate of `update`. Kernel and bias
            are trainable weights without it, and none with it.
        kernel_initializer: Keras initializer of the kernel `(max(N-1, 1), H)`, row n-1 for node n.
        seed: Int that fixes the permutation.
        **kwargs: Keyword arguments of `keras.layers.Layer`. The dtype is float32 by default,
            whatever the policy.

    Call arguments:
        h: Float tensor `(batch, H)`.
        index: Optional integer tensor `(batch,)` with values from 0 to N-1.

    Returns:
        log s(index|h), `(batch,)` in nats; without an index the probabilities `(batch, N)`.

    Raises:
        ValueError: If an argument is out of range; in a call, if a tensor is of another rank; in
            `update`, without a `row_learning_rate`.
        TypeError: In a call, if `index` is not of integers.

    Reference: Morin & Bengio (2005), Hierarchical probabilistic neural network language model,
    AISTATS.
    """

    def __init__(
        self,
        num_classes: int,
        use_bias: bool = True,
        row_learning_rate: float | None = None,
        kernel_initializer: KerasObject = "glorot_uniform",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, use_bias, kernel_initializer, **kwargs)
        self.row_learning_rate = check_real(
            "row_learning_rate", row_learning_rate, "(0, inf)", optional=True
        )
        self.seed = check_seed("seed", seed, optional=False)
        #: Decisions on the longest path, ceil(log2 N).
        self.depth = (self.num_classes - 1).bit_length()

    def build(self, h_shape: Shape, index_shape: Shape | None = None) -> None:
        nodes, lazy = max(self.num_classes - 1, 1), self.row_learning_rate is not None
        # Replicas make the step of the global batch, so the first one's is everybody's.
        aggregation = "only_first_replica" if lazy else None
        options = {"trainable": not lazy, "aggregation": aggregation}
        self.kernel = self._add_table_weight(
            "kernel", (nodes, h_shape[-1]), self.kernel_initializer, **options
        )
        self.bias = None
        if self.use_bias:
            self.bias = self._add_table_weight("bias", (nodes,), **options)
        if lazy:
            self.second_moment = self._add_table_weight("second_moment", (nodes,), **options)
            self.visits = self._add_table_weight("visits", (nodes,), **options)
        # Both ways, for log-probabilities and for draws.
        permutation = np.random.default_rng(self.seed).permutation(self.num_classes)
        self.leaf = self._add_permutation("leaf", permutation)
        self.label = self._add_permutation("label", np.argsort(permutation))

    def _add_permutation(self, name, values):
        return self._add_table_weight(
            name,
            values.shape,
            lambda shape, dtype: ops.convert_to_tensor(values, dtype=dtype),
            dtype="int32",
            trainable=False,
        )

    def log_prob(self, h: Tensor, index: Tensor) -> Tensor:
        """Log s(index|h), `(batch,)` in nats, of `h (batch, H)` and `index (batch,)`."""
        h = self._features(h)
        path = self._path_to(self._leaf_of(index))
        return _log_prob(self._path_logits(h, path), path)

    def entropy(self, h: Tensor) -> Tensor:
        """Entropy of s(.|h), `(batch,)` in nats: every decision's, weighed by its probability.

            H(s) = sum_v P(reach v) H_b(sigmoid(t_v))

        Args:
            h: Float tensor `(batch, H)`.
        """
        h = self._features(h)
        if not self.depth:
            return ops.zeros_like(h[:, 0])
        return _entropy_of_decisions(self._all_logits(h), self._bounds())

    def sampled_entropy(self, h: Tensor, seed: Any = None) -> Tensor:
        """Unbiased estimate of `entropy`, `(batch,)` in nats, from one path through the tree.

        The sum of the decisions' entropies along a path drawn from the tree. It carries no
        gradient: that of one path would leave out how the probabilities of paths change.

        Args:
            h: Float tensor `(batch, H)`.
            seed: Int or `keras.random.SeedGenerator`; None takes Keras' global generator.
        """
        h = ops.stop_gradient(self._features(h))
        path = self._path_to(self._descend(h, seed))
        _, _, inner = path
        _, _, entropies = _decision(self._path_logits(h, path))
        return ops.stop_gradient(ops.sum(ops.where(inner, entropies, 0.0), axis=1))

    def probabilities(self, h: Tensor) -> Tensor:
        """s(i|h) of all classes, `(batch, N)`."""
        h = self._features(h)
        lowest = ops.ones_like(h[:, :1])
        above = lowest[:, :0]
        for reach, logits in self._levels(h):
            left, right = ops.sigmoid(logits), ops.sigmoid(-logits)
            above, lowest = lowest, _children(reach, left, right)
        # Leaves are the lowest level, and above it the nodes behind the inner ones.
        inner = self.num_classes - 2**self.depth // 2
        leaves = ops.concatenate([above[:, inner:], lowest], axis=1)
        return ops.take(leaves, self.leaf, axis=1)

    def sample(self, h: Tensor, seed: Any = None) -> Tensor:
        """Draws one class for each row of `h`, int32 `(batch,)`, by descending from the root.

        Args:
            h: Float tensor `(batch, H)`.
            seed: Int or `keras.random.SeedGenerator`; None takes Keras' global generator.
        """
        node = self._descend(self._features(h), seed)
        return ops.take(self.label, node - self.num_classes, axis=0)

    def update(self, h: Tensor, index: Tensor) -> Tensor:
        """One step of maximum likelihood on the rows that the paths to `index` visit.

        The gradient g of a row sums that of -log s(index|h) over the batch. Each row has one step
        size, from the mean square of the gradients that it met:

            visits += 1
            second_moment <- 0.9 second_moment + 0.1 mean_j g_j^2
            row <- row - row_learning_rate g / (sqrt(second_moment / (1 - 0.9^visits)) + epsilon)

        which is Adam without momentum, with one scale a row, and with a clock of the row's own.
        A row has its bias among its entries. All other rows stay as they are. O(batch H log N) time
        and memory; compiled by XLA, in place.

        Args:
            h: Float tensor `(batch, H)`; no gradient reaches it.
            index: Integer tensor `(batch,)` with values from 0 to N-1.

        Returns:
            log s(index|h) before the step, `(batch,)` in nats.

        Raises:
            ValueError: Without a `row_learning_rate`.
        """
        if self.row_learning_rate is None:
            raise ValueError(
                "`update` needs a `row_learning_rate`: without one, kernel and bias are trained "
                "by an optimizer. Received: row_learning_rate=None"
            )
        h = ops.stop_gradient(self._features(h))
        path = self._path_to(self._leaf_of(index))
        node, left, inner = path
        logits = self._path_logits(h, path)
        error = ops.sigmoid(logits) - ops.cast(left, logits.dtype)
        # Rows beyond the end of a path stand for the root, to which they add nothing.
        error = ops.where(inner, error, 0.0)
        if self.depth:
            # Every replica makes the step of the global batch.
            self._step(*map(gather_batch, (h, node - 1, error)))
        return _log_prob(logits, path)

    def _step(self, h, row, error):
        """Updates `row (batch, depth)` from the gradients `error (batch, depth)` of its logits."""
        row = ops.reshape(row, (-1,))
        order = ops.argsort(row)
        row = ops.take(row, order)
        error = ops.take(ops.reshape(error, (-1,)), order)[:, None]
        gradient = error * ops.take(h, order // self.depth, axis=0)
        if self.use_bias:
            gradient = ops.concatenate([gradient, error], axis=1)
        gradient = _sum_of_equals(gradient, row)
        # From here on what holds of a row is computed as often as the row occurs, with one result.
        visits = ops.take(self.visits, row) + 1.0
        moment = _DECAY * ops.take(self.second_moment, row)
        moment = moment + (1.0 - _DECAY) * ops.mean(ops.square(gradient), axis=1)
        scale = ops.sqrt(moment / (1.0 - ops.power(_DECAY, visits))) + keras.config.epsilon()
        step = self.row_learning_rate * gradient / scale[:, None]
        _set_rows(self.visits, row, visits)
        _set_rows(self.second_moment, row, moment)
        if self.use_bias:
            _set_rows(self.bias, row, ops.take(self.bias, row) - step[:, -1])
            step = step[:, :-1]
        _set_rows(self.kernel, row, ops.take(self.kernel, row, axis=0) - step)

    def _leaf_of(self, index):
        return ops.take(self.leaf, _checked_index(index), axis=0) + self.num_classes

    def _path_to(self, leaf):
        """The path from above `leaf (batch,)` up to the root.

        Returns:
            `(node, left, inner)`, each `(batch, depth)`: inner nodes, whether the path leaves them
            to the left, and False in `inner` beyond the root, which `node` then repeats.
        """
        child = ops.right_shift(leaf[:, None], ops.arange(self.depth, dtype="int32"))
        node = ops.right_shift(child, 1)
        return ops.maximum(node, 1), ops.equal(child % 2, 0), node > 0

    def _path_logits(self, h, path):
        rows = path[0] - 1
        logits = ops.einsum("bh,bvh->bv", h, ops.take(self.kernel, rows, axis=0))
        return logits + ops.take(self.bias, rows) if self.use_bias else logits

    def _levels(self, h):
        """Yields `(reach, logits)`, `(batch, width)` each, of the inner nodes level by level."""
        if not self.depth:
            return
        logits = self._all_logits(h)
        reach = ops.ones_like(h[:, :1])
        for first, last in self._bounds():
            # On the last level of inner nodes these come first, and leaves after them.
            reach = reach[:, : last - first]
            level_logits = logits[:, first:last]
            yield reach, level_logits
            reach = _children(reach, ops.sigmoid(level_logits), ops.sigmoid(-level_logits))

    def _all_logits(self, h):
        logits = ops.matmul(h, ops.transpose(self.kernel))
        return logits + self.bias if self.use_bias else logits

    def _bounds(self):
        """Bounds of the levels among the rows of the kernel, the root's first."""
        return [
            (2**level - 1, min(2 ** (level + 1), self.num_classes) - 1)
            for level in range(self.depth)
        ]

    def _descend(self, h, seed):
        """Draws a leaf for each row of `h`, the number of its node `(batch,)`."""
        batch = ops.shape(h)[0]
        root = ops.ones((batch,), "int32")
        if not self.depth:
            return root
        uniform = keras.random.uniform((batch, self.depth), dtype=h.dtype, seed=seed)

        def decide(level, node):
            row = ops.where(node < self.num_classes, node, 1) - 1
            logits = ops.sum(h * ops.take(self.kernel, row, axis=0), axis=1)
            if self.use_bias:
                logits = logits + ops.take(self.bias, row)
            right = ops.take(uniform, level, axis=1) >= ops.sigmoid(logits)
            return ops.where(node < self.num_classes, 2 * node + ops.cast(right, "int32"), node)

        return ops.fori_loop(0, self.depth, decide, root)


def _checked_index(index):
    index = ops.convert_to_tensor(index)
    dtype = keras.backend.standardize_dtype(index.dtype)
    if "int" not in dtype:
        raise TypeError(f"`index` must be of integers. Received: dtype={dtype}")
    if len(index.shape) != 1:
        raise ValueError(f"`index` must have shape (batch,). Received: shape={tuple(index.shape)}")
    return ops.cast(index, "int32")


def _log_prob(logits, path):
    _, left, inner = path
    terms = ops.log_sigmoid(ops.where(left, logits, -logits))
    return ops.sum(ops.where(inner, terms, 0.0), axis=1)


def _entropy_of_logits(logits):
    """Entropy of the softmax of logits `(batch, N)`, `(batch,)` in nats."""

    def entropy(logits):
        # The entropy does not depend on what is subtracted.
        largest = ops.stop_gradient(ops.max(logits, axis=1, keepdims=True))
        shifted = logits - largest
        weight = ops.exp(shifted)
        total = ops.sum(weight, axis=1, keepdims=True)
        mean = ops.sum(weight * shifted, axis=1, keepdims=True) / total
        value = ops.log(total) - mean
        return value[:, 0], (largest + ops.log(total), value)

    def gradient(tensors, kept, by):
        # dH/dt_i = -s_i (log s_i + H)
        (logits,), (normalizer, value) = tensors, kept
        log_probs = logits - normalizer
        return (-by[:, None] * ops.exp(log_probs) * (log_probs + value),)

    return with_gradient(entropy, gradient)(logits)


def _entropy_of_decisions(logits, bounds):
    """Entropy of a tree's leaves, `(batch,)` in nats.

    From the lowest level up, with E_v that of the subtree below node v and p = sigmoid(t_v):

        E_v = H_b(p) + p E_left + (1 - p) E_right
        dH/dt_v = P(reach v) p (1 - p) (E_left - E_right - t_v)

    Args:
        logits: Tensor `(batch, nodes)`.
        bounds: List of the levels' `(first, last)`, the root's first.
    """

    def entropy(logits):
        below, kept = None, []
        for first, last in reversed(bounds):
            left, right, value = _decision(logits[:, first:last])
            if below is not None:
                # Children that are leaves have no entropy of their own.
                below = ops.pad(below, [[0, 0], [0, 2 * (last - first) - below.shape[1]]])
                below_left, below_right = _pairs(below)
                value = value + left * below_left + right * below_right
            kept.append(below)
            below = value
        return below[:, 0], kept[::-1]

    def gradient(tensors, kept, by):
        (logits,) = tensors
        reach, found = by[:, None], []
        for (first, last), below in zip(bounds, kept, strict=True):
            reach, t = reach[:, : last - first], logits[:, first:last]
            left, right, _ = _decision(t)
            gain = -t
            if below is not None:
                below_left, below_right = _pairs(below)
                gain = below_left - below_right - t
            found.append(reach * left * right * gain)
            reach = _children(reach, left, right)
        return (ops.concatenate(found, axis=1),)

    return with_gradient(entropy, gradient)(logits)


def _decision(logits):
    """Probabilities of both ways, and their entropy in nats, from one exponential."""
    # Not `abs`, whose derivative at 0 would be lost to second derivatives.
    positive = logits >= 0.0
    size = ops.where(positive, logits, -logits)
    odds = ops.exp(-size)
    likely = 1.0 / (1.0 + odds)
    unlikely = odds * likely
    # The sum of two terms that do not cancel anywhere.
    entropy = ops.log1p(odds) + size * unlikely
    return ops.where(positive, likely, unlikely), ops.where(positive, unlikely, likely), entropy


def _pairs(values):
    """Of the children of a level's nodes, `(batch, 2 width)`, the left ones and the right ones."""
    pairs = ops.reshape(values, (-1, values.shape[1] // 2, 2))
    return pairs[..., 0], pairs[..., 1]


def _children(reach, left, right):
    """Probabilities of reaching the children of a level's nodes, `(batch, 2 width)`."""
    return ops.reshape(ops.stack([reach * left, reach * right], axis=2), (-1, 2 * reach.shape[1]))


def _sum_of_equals(values, keys):
    """Sums `values (M, ...)` over the equal ones of the sorted `keys (M,)`, once for each."""
    changes = ops.cast(keys[1:] != keys[:-1], "int32")
    segment = ops.cumsum(ops.pad(changes, [[1, 0]]))
    sums = ops.segment_sum(values, segment, num_segments=ops.shape(keys)[0])
    return ops.take(sums, segment, axis=0)


def _set_rows(variable, rows, values):
    """Assigns `values (M, ...)` to `rows (M,)`; rows that occur again come with equal values."""
    variable.assign(ops.scatter_update(variable, rows[:, None], values))
