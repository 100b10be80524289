"""VAE-AS: a VAE with separately weighted mutual information and marginal divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from ..core.checks import check_choice, check_integer, check_integers, check_keras
from ..layers import FlatSoftmax, HierarchicalSoftmax
from ..losses import AuxiliarySoftmax, InformationWeightedELBO
from .recipes import dense_500, digits_mlp, with_index
from .vae.model import VAE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..core.types import KerasObject
    from ..layers.likelihoods import Likelihood

#: Number of classes above which the tree is the faster head, where it follows paths alone.
PATHS_FROM = 1000
#: The same for `"entropy"`, which takes all its logits. At 10,000, 24,345 and 55,000 classes a step
#: of a tree took 0.68, 0.74 and 0.76 of the flat head's processor time on TensorFlow, and 0.80,
#: 0.60 and 0.48 on JAX (`python -m benchmarks.softmax time`). Fewer were not measured.
TREE_FROM = 10_000
#: Step of a tree's rows, see `HierarchicalSoftmax`.
ROW_LEARNING_RATE = 0.01

PRESETS = {
    "digits_mlp": with_index(digits_mlp(num_examples=1257, hidden_units=(256, 256))),
    "mnist": with_index(dense_500("VAE-AS, table 2, VAE-AS (1.0, 1.0)", num_examples=55_000)),
    "omniglot": with_index(
        dense_500(
            "VAE-AS, table 3, VAE-AS (1.0, 1.0), on chardata.mat with num_examples=24345",
            "omniglot",
            num_examples=19_280,
        )
    ),
    "mnist_estimation": with_index(
        dense_500("VAE-AS, section 5.2", decoder=3, batch_size=100, epochs=120, num_examples=55_000)
    ),
}


def VAEAS(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer,
    *,
    latent_dim: int = 40,
    num_examples: int,
    alpha: float = 1.0,
    beta: float = 1.0,
    estimator: str = "entropy",
    softmax: str = "auto",
    num_labels: int | None = None,
    hidden_units: Sequence[int] = (500, 500),
    activation: str = "relu",
    row_learning_rate: float | None = ROW_LEARNING_RATE,
    classifier_grad: str = "detached",
    classifier_steps: int = 1,
    density: str = "sampled",
    classifier_optimizer: KerasObject = "adam",
    likelihood: str | Likelihood = "bernoulli",
    num_samples: int = 1,
    seed: int | None = None,
    name: str = "vae_as",
) -> VAE:
    """VAE whose rate is split in two, each weighted by itself, as a classifier measures them.

        KL(q(z|x) || p(z)) = I(z; x) + MD,   MD = KL(q(z) || p(z)),   in the mean over the data
        loss = E_q[-log p(x|z)] + alpha * I + beta * MD    (nats per example)

    I and MD come from `AuxiliarySoftmax`, a classifier s(i|z) of the training examples, so `fit`
    needs to know which example is which: arrays are numbered as they are; for other sources see
    `VAE.fit`. Evaluations charge distortion and rate, both at weight 1.

    Args:
        encoder: Layer `(batch, ...) -> (batch, F)`.
        decoder: Layer `(batch, D) -> (batch, ...)`, returning the likelihood's parameters, or an
            `AutoregressiveDecoder`.
        latent_dim: Positive int D.
        num_examples: Positive int N, number of training examples.
        alpha: Non-negative float, weight of mutual information (0.1 to 10).
        beta: Non-negative float, weight of marginal divergence (0.1 to 10).
        estimator: Of mutual information: `"entropy"` as in the paper's tables, `"ce"`,
            `"fano_low"`, `"fano_hat"`; see `AuxiliarySoftmax`.
        softmax: As in `auxiliary_softmax`.
        num_labels: As in `auxiliary_softmax`.
        hidden_units: As in `auxiliary_softmax`.
        activation: As in `auxiliary_softmax`.
        row_learning_rate: As in `auxiliary_softmax`.
        classifier_grad: `"detached"` or `"joint"`, see `AuxiliarySoftmax`.
        classifier_steps: Positive int, updates of the classifier a batch.
        density: `"sampled"` or `"analytic"` density of the posterior in MD.
        classifier_optimizer: Keras optimizer of the classifier, or its name.
        likelihood: Name or `Likelihood`.
        num_samples: Positive int K, draws per example.
        seed: Optional int that fixes the noise.
        name: Model name.

    Returns:
        An uncompiled `VAE`.

    Raises:
        ValueError: If an argument is out of range.

    Reference: VAE-AS, section 3 and eqs. 9, 13 and 14.
    """
    classifier_optimizer = check_keras(
        "classifier_optimizer", classifier_optimizer, keras.optimizers
    )
    measured = auxiliary_softmax(
        num_examples,
        alpha=alpha,
        beta=beta,
        estimator=estimator,
        softmax=softmax,
        num_labels=num_labels,
        hidden_units=hidden_units,
        activation=activation,
        row_learning_rate=row_learning_rate,
        classifier_grad=classifier_grad,
        classifier_steps=classifier_steps,
        density=density,
        optimizer=classifier_optimizer,
    )
    return VAE(
        encoder,
        decoder,
        latent_dim=latent_dim,
        likelihood=likelihood,
        objective=InformationWeightedELBO([measured]),
        num_samples=num_samples,
        seed=seed,
        name=name,
    )


def auxiliary_softmax(
    num_examples: int,
    *,
    alpha: float = 0.0,
    beta: float = 0.0,
    estimator: str = "entropy",
    softmax: str = "auto",
    num_labels: int | None = None,
    hidden_units: Sequence[int] = (500, 500),
    activation: str = "relu",
    row_learning_rate: float | None = ROW_LEARNING_RATE,
    **kwargs: Any,
) -> AuxiliarySoftmax:
    """Makes an `AuxiliarySoftmax` with a dense classifier; by default one that only measures.

    Example:
        model = zoo.DUVAE(encoder, decoder, latent_dim=32)
        model.add_regularizer(zoo.auxiliary_softmax(len(x)))
        model.compile("adam")
        model.fit(x)    # logs mutual_information, marginal_divergence, ...

    Args:
        num_examples: Positive int N, number of training examples.
        alpha: Non-negative float, weight of mutual information in the loss.
        beta: Non-negative float, weight of marginal divergence in the loss.
        estimator: Of mutual information, see `AuxiliarySoftmax`.
        softmax: `"flat"`, `"tree"`, or `"auto"`, the faster one: the tree above 1,000 classes; for
            `"entropy"`, which takes the logits of all classes by either head, above 10,000.
        num_labels: Optional positive int V of at most N, classes that the examples share.
        hidden_units: Widths of the classifier's hidden layers.
        activation: Their activation.
        row_learning_rate: Positive float: the tree's rows learn by `HierarchicalSoftmax.update`,
            at a cost that grows with log V; or None: by the optimizer, all V of them in each step.
        **kwargs: Further arguments of `AuxiliarySoftmax`.

    Returns:
        `AuxiliarySoftmax`, in float32 whatever the dtype policy.

    Raises:
        ValueError: If an argument is out of range.
    """
    check_choice("softmax", softmax, ("auto", "flat", "tree"))
    num_examples = check_integer("num_examples", num_examples, least=2)
    labels = check_integer("num_labels", num_labels, most=num_examples, optional=True)
    labels = num_examples if labels is None else labels
    activation = check_keras("activation", activation, keras.activations)
    if softmax == "auto":
        softmax = _faster_softmax(estimator, labels)
    if softmax == "tree":
        last = HierarchicalSoftmax(labels, row_learning_rate=row_learning_rate)
    else:
        last = FlatSoftmax(labels)
    hidden = [
        keras.layers.Dense(
            units, activation=activation, kernel_initializer="he_normal", dtype="float32"
        )
        for units in check_integers("hidden_units", hidden_units)
    ]
    return AuxiliarySoftmax(
        alpha,
        beta,
        num_examples=num_examples,
        network=keras.Sequential(hidden, name="classifier"),
        softmax=last,
        estimator=estimator,
        **kwargs,
    )


def _faster_softmax(estimator, labels):
    if estimator == "entropy_sampled":
        # It follows a path of the tree.
        return "tree"
    return "tree" if labels > (TREE_FROM if estimator == "entropy" else PATHS_FROM) else "flat"
