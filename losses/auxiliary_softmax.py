"""VAE-AS: a classifier of training examples that measures, and weighs, what a code says of them."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from ..core.checks import (
    check_choice,
    check_integer,
    check_keras,
    check_kind,
    check_real,
    check_seed,
    shown,
)
from ..core.gradients import gradients, value_and_gradients_at
from ..core.posteriors import float32
from ..core.random import SeedGenerator
from ..core.replicas import batch_mean
from .objective import Loss, Objective, Regularizer

if TYPE_CHECKING:
    from typing import Any

    from ..core.types import Array, KerasObject, Tensor
    from .objective import Terms

ESTIMATORS = ("ce", "entropy", "entropy_sampled", "fano_low", "fano_hat")


@keras.saving.register_keras_serializable(package="vaezoo")
class InformationWeightedELBO(Objective):
    """Negative evidence lower bound whose rate is split, and charged by the regularizers.

        training:    loss = E_q[-log p(x|z)] + alpha * I + beta * MD
        evaluation:  loss = E_q[-log p(x|z)] + KL(q(z|x) || p(z))    (nats per example)

    `AuxiliarySoftmax(alpha, beta)` among the regularizers measures mutual information and marginal
    divergence, into which the mean rate falls: KL = I + MD. Examples outside the training set have
    no index to be classified by, so evaluations charge the rate as it is.

    Args:
        regularizers: Sequence of `Regularizer`s that are added.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Reference: VAE-AS, section 3 (auxiliary softmax).
    """

    masks_rows = True

    def bound(self, terms: Terms, training: bool) -> Loss:
        """The distortion; outside of training with the rate."""
        return Loss(terms.distortion if training else terms.distortion + terms.kl, 0.0, {})


@keras.saving.register_keras_serializable(package="vaezoo")
class AuxiliarySoftmax(Regularizer):
    """Measures mutual information and marginal divergence by classifying training examples.

    A classifier s(i|z) learns which of the N training examples a code was drawn for, and so
    approximates q(x_i|z) = q(z|x_i) / sum_j q(z|x_j). Of a batch (all in nats; V = N unless
    `softmax` has fewer classes):

        SC = mean -log s(i_b|z_b)                                  classifier loss
        I  = log V - SC                                            "ce", a lower bound
             log V - mean H(s(.|z_b))                              "entropy"
             log V - mean [ H_b(P_e) + P_e log(V - 1) ]            "fano_low"
             log V - mean H_b(P_e),     P_e = 1 - s(i_b|z_b)       "fano_hat"
        MD = mean [ log q(z_b|x_b) - log N - log s(i_b|z_b) - log p(z_b) ] = KL - log N + SC
        added to the loss: alpha * I + beta * MD

    With `InformationWeightedELBO` this is VAE-AS. With `alpha=0, beta=0` it only measures, beside
    any objective, and leaves the model's training as it is: the classifier is frozen for the
    model's optimizer, learns from SC alone by an optimizer of its own, within the same compiled
    step and after the loss of that step was taken, and draws its codes from the model's. The logs
    show `mutual_information` (the estimator's), `mutual_information_bound` ("ce"),
    `marginal_divergence` and `classifier_loss`, during training only.

    A penalty lowers what it weighs: a larger `alpha` means less information, a larger `beta` an
    aggregate posterior closer to the prior.

    Args:
        alpha: Non-negative float, weight of mutual information.
        beta: Non-negative float, weight of marginal divergence.
        num_examples: Positive int N, training examples; their indices 0..N-1 come with the batches,
            see `VAE.fit`.
        network: Keras layer `(batch, D) -> (batch, H)`, the hidden layers of the classifier.
        softmax: `vaezoo.layers.FlatSoftmax` or `HierarchicalSoftmax` over `(batch, H)`. With V < N
            classes examples share classes, by a fixed random permutation modulo V; then I is at
            most log V, and MD is right as far as posteriors within a class do not overlap (too low
            otherwise, by at most log(N/V)).
        estimator: Name of I above, or `"entropy_sampled"`: `"entropy"` along one sampled path of a
            `HierarchicalSoftmax`, unbiased in O(log N), for measuring only.
        classifier_grad: `"detached"`, or `"joint"`: SC is then added to the model's loss, too,
            which rewards information with a weight of 1.
        density: `"sampled"` density of the posterior at z in MD, or `"analytic"`: the closed-form
            rate in its place, of the same expectation.
        classifier_steps: Positive int, updates of the classifier a batch.
        optimizer: Keras optimizer of the classifier, or its name.
        seed: Int that fixes the shared classes and the sampled paths.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is out of range.

    Note: The paper leaves the flow of gradients open. Its printed Theorem 3.3 lacks a `1 -` inside
    a logarithm of the binary entropy; the corrected form is used.

    Reference: VAE-AS, eqs. 9, 13 and 14, Theorem 3.3.
    """

    report_names: tuple[str, ...] = (
        "mutual_information",
        "mutual_information_bound",
        "marginal_divergence",
        "classifier_loss",
    )
    needs_density = True
    masks_rows = True

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 1.0,
        *,
        num_examples: int,
        network: keras.layers.Layer,
        softmax: keras.layers.Layer,
        estimator: str = "entropy",
        classifier_grad: str = "detached",
        density: str = "sampled",
        classifier_steps: int = 1,
        optimizer: KerasObject = "adam",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        alpha, beta = check_real("alpha", alpha, "[0, inf)"), check_real("beta", beta, "[0, inf)")
        # A single example cannot be told from any other.
        num_examples = check_integer("num_examples", num_examples, least=2)
        classifier_steps = check_integer("classifier_steps", classifier_steps)
        seed = check_seed("seed", seed, optional=False)
        check_kind("network", network, keras.layers.Layer, "a Keras layer")
        if not hasattr(softmax, "num_classes"):
            raise TypeError(
                "`softmax` must be a vaezoo FlatSoftmax or HierarchicalSoftmax. Received: "
                f"softmax={shown(softmax)}"
            )
        check_choice("estimator", estimator, ESTIMATORS)
        check_choice("classifier_grad", classifier_grad, ("detached", "joint"))
        check_choice("density", density, ("sampled", "analytic"))
        if softmax.num_classes > num_examples:
            raise ValueError(
                "`softmax` must have at most `num_examples` classes. Received: "
                f"softmax.num_classes={softmax.num_classes}, num_examples={num_examples}"
            )
        if estimator == "entropy_sampled" and (alpha or not hasattr(softmax, "sampled_entropy")):
            raise ValueError(
                "`estimator` must not be 'entropy_sampled' unless `alpha` is 0 and `softmax` a "
                f"HierarchicalSoftmax. Received: alpha={alpha}, softmax={type(softmax).__name__}"
            )
        if estimator == "fano_hat" and alpha:
            warnings.warn(
                "estimator='fano_hat' is near its maximum for an untrained classifier: as a "
                "penalty (alpha > 0) it does not lower mutual information. Use another estimator.",
                stacklevel=2,
            )
        self.alpha, self.beta, self.num_examples = alpha, beta, num_examples
        self.network, self.softmax, self.estimator = network, softmax, estimator
        self.classifier_grad, self.density = classifier_grad, density
        self.classifier_steps, self.seed = classifier_steps, seed
        self.optimizer = check_keras("optimizer", optimizer, keras.optimizers)
        self.noise = SeedGenerator(seed)
        self._labels: Array | None = None
        if softmax.num_classes < num_examples:
            order = np.random.default_rng(seed).permutation(num_examples)
            self._labels = (order % softmax.num_classes).astype("int32")
        self._learned: Any = None

    @property
    def trainable(self) -> bool:
        """Always False: the classifier has its own update rule."""
        return False

    @trainable.setter
    def trainable(self, value: Any) -> None:
        pass

    def prepare(self, latent_dim: int) -> None:
        """Builds the classifier for codes `(batch, latent_dim)`, and its optimizer."""
        if self._learned is not None:
            return
        h = self.network(keras.KerasTensor((None, latent_dim), "float32"))
        if not self.softmax.built:
            self.softmax.build(tuple(h.shape))
        learned = [*self.network.trainable_variables, *self.softmax.trainable_variables]
        self.optimizer.build(learned)
        for variable in learned:
            variable.trainable = False
        # Tracked, for the compiled step to hand them on.
        self._learned, self._state = learned, list(self.optimizer.variables)

    def save_own_variables(self, store: Any) -> None:
        """Saves the noise; the optimizer, a part of its own, saves itself."""
        store["noise"] = ops.convert_to_numpy(self.noise.state.value)

    def load_own_variables(self, store: Any) -> None:
        """Restores the noise."""
        self.noise.state.assign(store["noise"])

    def call(self, terms: Terms, training: bool = False) -> Loss:
        """Returns both weighted terms by example; nothing outside of training."""
        if not training:
            return Loss(ops.zeros_like(terms.kl), 0.0, {})
        self.check_index(terms)
        z = float32(terms.z)
        samples, latent_dim = z.shape[1:]
        z = ops.reshape(z, (-1, latent_dim))
        label = ops.repeat(self.label_of(terms.index), samples)
        # The network may compute in half precision.
        h = float32(self.network(z))
        charge, slope, log_s, information = self._charge(h, label, samples)
        if self.density == "sampled":
            kl = ops.mean(terms.log_qz - terms.log_pz, axis=1)
        else:
            kl = terms.kl
        classifier_loss = -ops.mean(log_s, axis=1)
        divergence = kl - math.log(self.num_examples) + classifier_loss
        information = ops.mean(information, axis=1)
        # Of the value and the gradient that were taken above.
        change = ops.sum(slope * (h - ops.stop_gradient(h)), axis=1)
        charge = ops.mean(ops.reshape(charge + change, (-1, samples)), axis=1)
        per_example = charge + self.beta * (kl - math.log(self.num_examples))
        z = ops.stop_gradient(z)
        for _ in range(self.classifier_steps):
            self.update(z, label, after=slope)
        report = {
            "mutual_information": information,
            "mutual_information_bound": math.log(self.softmax.num_classes) - classifier_loss,
            "marginal_divergence": divergence,
            "classifier_loss": classifier_loss,
        }
        return Loss(per_example, 0.0, report)

    def check_index(self, terms: Terms) -> None:
        """Raises ValueError unless examples come with their index."""
        if terms.index is None:
            raise ValueError(
                f"`{type(self).__name__}` needs the index of each training example: train by "
                '`fit`, on batches (x, {"index": index}). Received: no index'
            )

    def _charge(self, h, label, samples):
        """What depends on the classifier, and its gradient, before the classifier changes.

        With the gradient at hand, nothing reads the tables of the classifier after they are
        updated, so that compiled steps update them in place. Left to differentiation it would come
        later, from copies.

        Returns:
            `(charge, slope, log_s, information)`: the charge of each draw `(batch * K,)`, its
            gradient by `h`, and both measures `(batch, K)`, all constants.
        """

        def charge(tensors):
            (h,) = tensors
            log_s = self.softmax.log_prob(h, label)
            by_draw = ops.reshape(log_s, (-1, samples))
            information = self.information(by_draw, h)
            charge = self.alpha * ops.reshape(information, (-1,)) - self.beta * log_s
            if self.classifier_grad == "joint":
                charge = charge - log_s
            return ops.sum(charge), (charge, by_draw, information)

        (_, found), (slope,) = value_and_gradients_at(charge, [ops.stop_gradient(h)])
        charge, log_s, information = map(ops.stop_gradient, found)
        return charge, ops.stop_gradient(slope), log_s, information

    def label_of(self, index: Tensor) -> Tensor:
        """The class of each example, int32 `(batch,)`."""
        index = ops.cast(index, "int32")
        return (
            index if self._labels is None else ops.take(ops.convert_to_tensor(self._labels), index)
        )

    def information(self, log_s: Tensor, h: Tensor) -> Tensor:
        """The estimator of I, `(batch, K)`.

        Args:
            log_s: Log-probability of the right class, `(batch, K)`.
            h: Hidden values of the classifier, `(batch * K, H)`; for the entropies.
        """
        return math.log(self.softmax.num_classes) - self._uncertainty(log_s, h)

    def _uncertainty(self, log_s, h):
        if self.estimator == "ce":
            return -log_s
        if self.estimator == "entropy":
            return ops.reshape(self.softmax.entropy(h), ops.shape(log_s))
        if self.estimator == "entropy_sampled":
            entropy = self.softmax.sampled_entropy(h, seed=self.noise)
            return ops.reshape(entropy, ops.shape(log_s))
        error = -ops.expm1(log_s)
        # Away from 0, where the logarithm has no gradient.
        error_or_tiny = ops.maximum(error, 1e-37)
        binary = -ops.exp(log_s) * log_s - error_or_tiny * ops.log(error_or_tiny)
        if self.estimator == "fano_hat":
            return binary
        return binary + error * math.log(max(self.softmax.num_classes - 1, 1))

    def update(self, z: Tensor, label: Tensor, after: Tensor | None = None) -> None:
        """One step of the classifier on SC.

        Args:
            z: Codes `(batch, D)`, taken as constants.
            label: Int `(batch,)`.
            after: Optional tensor that is computed before the classifier changes.
        """

        def loss():
            # Keras adds the replicas' gradients up.
            return -batch_mean(self.softmax.log_prob(self.network(z), label))

        learned = {id(variable) for variable in self._learned}
        constants = [
            variable
            for variable in (*self.network.variables, *self.softmax.variables)
            if id(variable) not in learned
        ]
        found = gradients(loss, self._learned, constants)
        if after is not None:
            # Nobody but us knows that it is 0.
            zero = ops.minimum(ops.sum(ops.square(after)), 0.0)
            found = [gradient + zero for gradient in found]
            z = z + zero
        if getattr(self.softmax, "row_learning_rate", None):
            self.softmax.update(self.network(z), label)
        self.optimizer.apply(found, self._learned)
