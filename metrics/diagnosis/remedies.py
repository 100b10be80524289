"""What to do about a finding: settings and parts that help, each with its line of code."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import TYPE_CHECKING

from .rules import decoder_reads, dimensions, presses
from .tried import ordered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .measure import Measurements
    from .rules import Finding


@dataclasses.dataclass(frozen=True)
class Remedy:
    """One thing to change.

    Attributes:
        what: The change.
        why: What it does about the fault.
        code: Python line that does it, in names of vaezoo with starting values.
        cause: Name of the cause that it removes; empty where it treats what is seen.
        change: What `try_remedies` changes to try it; empty where that cannot be tried.
    """

    what: str
    why: str
    code: str
    cause: str = dataclasses.field(default="", compare=False)
    change: dict = dataclasses.field(default_factory=dict, compare=False)


#: Whatever the scale of the likelihood, training is slow on unscaled data: of digits brought to a
#: standard deviation of 10, the optimal scale reached in 100 epochs the bound that it reached in 20
#: on the same data divided by 10, and left posteriors wider than the prior until then.
_STANDARDIZE = Remedy(
    "Standardize the data, whatever the likelihood's scale",
    "Networks are initialized for values of order 1; with larger inputs the codes start far from "
    "the prior, and need many more epochs.",
    # Pixels of a border have no spread.
    "x = (x - x.mean(0)) / (x.std(0) + 1e-6)",
)
_OF_LARGE_INPUTS = {"variance_blow_up", "prior_hole", "lagging_encoder", "under_regularized"}


def remedies(findings: Sequence[Finding], found: Measurements) -> tuple[Remedy, ...]:
    """Remedies for the faults that are no mere consequence of others, without repeats.

    Those of a fault are in the order of what trials have shown.
    """
    size = len(found.arrays["capacity"]) if "capacity" in found.arrays else 32
    chosen = []
    for finding in findings:
        if finding.consequence_of is None:
            if "large inputs" in found.traits and finding.name in _OF_LARGE_INPUTS:
                chosen.append(_STANDARDIZE)
            chosen += ordered(finding.name, _REMEDIES.get(finding.name, _none)(found, size))
    if "text" in found.traits:
        chosen = [_for_text(remedy) for remedy in chosen]
    return tuple(dict.fromkeys(chosen))


def _for_text(remedy):
    code = re.sub(r"(zoo\.\w+\(encoder, decoder), ", r'\1, likelihood="tokens", ', remedy.code)
    return dataclasses.replace(remedy, code=code)


def _scale_remedies(found, size):
    optimal = f"{found.value('residual_scale'):.2g}"
    if "foreign" in found.traits:
        return [
            Remedy(
                f"Divide the squared error by 2 * {optimal}^2, the variance of the residuals",
                "That is a Gaussian likelihood of the optimal scale; take the variance of each "
                "batch's residuals, and it follows them as they shrink.",
                "variance = stop_gradient(mean((x - x_mean) ** 2)); "
                "loss = sum((x - x_mean) ** 2) / (2 * variance) + kl",
            ),
        ]
    return [
        Remedy(
            f"Let the likelihood have the scale of the residuals, now {optimal}",
            "The maximum-likelihood scale of each batch takes no tuning and follows the residuals "
            "as they shrink.",
            f"zoo.VAE(encoder, decoder, latent_dim={size}, "
            'likelihood=layers.Gaussian(scale="optimal"))',
        ),
        Remedy(
            "Or give it the size of the errors that you take for noise",
            "A scale of your own keeps the bound comparable between models.",
            f"zoo.VAE(encoder, decoder, latent_dim={size}, "
            f"likelihood=layers.Gaussian(scale={optimal}))",
        ),
        _STANDARDIZE
        if "large inputs" in found.traits
        else Remedy(
            "Or standardize the data",
            "A scale of 1 suits data of a standard deviation of 1, decoded to a part of that.",
            _STANDARDIZE.code,
        ),
    ]


def _full_collapse_remedies(found, size):
    anneal = Remedy(
        "Raise the KL weight from 0",
        "The encoder becomes informative while the KL costs little.",
        "callbacks=[callbacks.KLAnnealing(epochs=10, start=0.0)]",
        change={"ramp": 1.0 / 3.0},
    )
    first = [anneal] if decoder_reads(found) else []
    strong = "autoregressive" in found.traits
    return [
        *first,
        _du(found, size, 0.8),
        *([_diverse(size)] if strong else []),
        Remedy(
            "Batch-normalize the means of your model",
            "Pinned gains keep the means apart: one line at the mean output; objective and decoder "
            "stay.",
            'z_mean = layers.MeanBatchNorm(gamma=0.5, mode="fixed")(z_mean)',
            change={"gamma": 0.5},
        ),
        Remedy(
            "Make the first nats free",
            "Below the floor the KL has no gradient, so collapsing a dimension brings no gain.",
            f"zoo.FreeBitsVAE(encoder, decoder, latent_dim={size}, free_bits=0.1)",
            change={"free_bits": 0.1},
        ),
        anneal,
        _less_seen(found, size) if strong else _skip(size),
    ]


def _decoder_ignores_z_remedies(found, size):
    weaker = Remedy(
        "Weaken the decoder",
        "A strong decoder, such as an autoregressive one, can model x without z.",
        f"networks.mlp_decoder({size}, output_shape, hidden_units=(256,))",
    )
    strong = "autoregressive" in found.traits
    return [
        *([_less_seen(found, size), _du(found, size, 0.8)] if strong else [_skip(size)]),
        *([] if "text" in found.traits else [weaker]),
        Remedy(
            "Lower the KL weight while the decoder learns to use z",
            "Under a small weight the codes are precise, and the decoder can use them.",
            "callbacks=[callbacks.KLAnnealing(epochs=10, start=0.0)]",
            change={"ramp": 1.0 / 3.0},
        ),
        Remedy(
            "Reward diverse posteriors in the objective",
            "The objective then contains the divergence between posteriors.",
            "losses.ELBO(regularizers=[losses.MutualPosteriorDivergence(diversity=1.0, "
            "smoothness=0.2)])",
        ),
        *([_diverse(size)] if strong else []),
    ]


def _partial_collapse_remedies(found, size):
    active = max(1, len(dimensions(found)["active"]))
    lower = Remedy(
        "Lower the KL weight to that of the bound",
        "A larger weight collapses dimensions that the bound would keep.",
        f"zoo.BetaVAE(encoder, decoder, latent_dim={size}, beta=1.0)",
        change={"beta": 1.0},
    )
    return [
        *([lower] if presses(found) else []),
        _du(found, size, 0.9),
        Remedy(
            "Pin the gain of every dimension",
            "Each dimension keeps Var(mean_d) = gamma^2, so none can collapse.",
            'z_mean = layers.MeanBatchNorm(gamma=0.5, mode="fixed")(z_mean)',
            change={"gamma": 0.5},
        ),
        Remedy(
            "Give every dimension free bits",
            "The first 0.1 nats of each dimension are free.",
            f"zoo.FreeBitsVAE(encoder, decoder, latent_dim={size}, free_bits=0.1)",
            change={"free_bits": 0.1},
        ),
        Remedy(
            f"If the model is good enough: use {active} dimensions",
            "Unused dimensions cost little; reducing `latent_dim` states the size actually used.",
            f"zoo.VAE(encoder, decoder, latent_dim={active})",
        ),
    ]


def _lagging_encoder_remedies(found, size):
    return [
        Remedy(
            "Start with a small KL weight",
            "Under a small KL weight it follows the decoder's true posterior more easily.",
            "callbacks=[callbacks.KLAnnealing(epochs=10, start=0.0)]",
            change={"ramp": 1.0 / 3.0},
        ),
        Remedy(
            "Make the encoder stronger",
            "A lag that remains after training shows a lack of capacity.",
            "networks.lstm_encoder((None,), vocabulary_size, units=1024)"
            if "text" in found.traits
            else "networks.mlp_encoder(input_shape, hidden_units=(800, 800))",
        ),
        Remedy(
            "Train on a tighter bound",
            "Importance weights tolerate inaccurate posteriors.",
            f"zoo.IWAE(encoder, decoder, latent_dim={size}, num_samples=10)",
        ),
        Remedy(
            "Let posteriors have a full covariance",
            "A diagonal posterior cannot fit correlated latent dimensions.",
            f"zoo.HEBAE(encoder, decoder, latent_dim={size})",
        ),
    ]


def _prior_hole_remedies(found, size):
    return [
        Remedy(
            "Match the aggregate posterior to the prior in the objective",
            "The discrepancy acts on the codes of a whole batch, not on each posterior.",
            "losses.ELBO(regularizers=[losses.MaximumMeanDiscrepancy(weight=10.0)])",
        ),
        Remedy(
            "Pin the moments of the means",
            "Batch-normalized means are centered and of one size.",
            'z_mean = layers.MeanBatchNorm(gamma=0.7, mode="fixed")(z_mean)',
            change={"gamma": 0.7},
        ),
        *([] if "learned_prior" in found.traits else _learned_priors(found, size)),
        Remedy(
            "Charge the full KL",
            "Below weight 1 codes can move away from the prior.",
            "objective=losses.ELBO(beta=1.0)",
            change={"beta": 1.0},
        ),
        Remedy(
            "Learn the moments of the codes",
            "The empirical-Bayes posterior puts a covariance on the means themselves.",
            f"zoo.HEBAE(encoder, decoder, latent_dim={size})",
        ),
    ]


def _variance_blow_up_remedies(found, size):
    return [
        Remedy(
            "Charge both terms of the KL",
            "Its terms var - log var keep the variance at or below the prior's.",
            "objective=losses.ELBO(beta=1.0)",
            change={"beta": 1.0},
        ),
        Remedy(
            "Clip gradients and start with a smaller step",
            "One large step through exp(log_var) can make training diverge.",
            "model.compile(optimizer=keras.optimizers.Adam(1e-4, clipnorm=1.0))",
            change={"rate": 0.1, "clip": 1.0},
        ),
        Remedy(
            "Bound the log-variance in the encoder",
            "Keeps exp(log_var) between 5e-5 and 1.",
            "z_log_var = keras.ops.clip(z_log_var, -10.0, 0.0)",
        ),
        Remedy(
            "Clip the means",
            "Means beyond the ball are pulled back to its surface.",
            "z_mean = layers.LatentClip(factor=3.0)(z_mean)",
        ),
    ]


def _over_regularized_remedies(found, size):
    return [
        Remedy(
            "Lower the KL weight",
            f"The variances imply a weight of {found.value('implied_weight'):.2g}; the bound's "
            "own is 1.",
            f"zoo.BetaVAE(encoder, decoder, latent_dim={size}, beta=1.0)",
            change={"beta": 1.0},
        ),
        Remedy(
            "Make the first nats free",
            "Information up to the floor is not charged.",
            f"zoo.FreeBitsVAE(encoder, decoder, latent_dim={size}, free_bits=0.5)",
            change={"free_bits": 0.5},
        ),
        Remedy(
            "Raise the weight slowly",
            "The code becomes informative before the KL counts in full.",
            "callbacks=[callbacks.KLAnnealing(epochs=20, start=0.0, stop=1.0)]",
            change={"ramp": 1.0 / 3.0},
        ),
        Remedy(
            "Set the rate by the size of the means instead",
            "Batch-normalized means have a rate of at least D gamma^2 / 2 nats at any weight.",
            f"zoo.DUVAE(encoder, decoder, latent_dim={size}, gamma=0.5, keep_prob=0.9)",
            change={"gamma": 0.5, "keep_prob": 0.9},
        ),
        *_held_rate(found),
    ]


def _held_rate(found):
    """A multiplier that holds the rate which the same decoder is worth, where that was measured."""
    rate = found.value("rate_after")
    if not (math.isfinite(rate) and rate > 0.1):
        return []
    return [
        Remedy(
            f"Hold the rate at {rate:.2g} nats",
            "The same decoder would pay for so many. A Lagrange multiplier finds the KL weight "
            "that keeps them.",
            f"objective=losses.TargetRate({rate:.2g})",
        )
    ]


def _under_regularized_remedies(found, size):
    return [
        Remedy(
            "Charge the KL at weight 1",
            "Samples from the prior and the likelihood are valid only then.",
            f"zoo.VAE(encoder, decoder, latent_dim={size}, objective=losses.ELBO(beta=1.0))",
            change={"beta": 1.0},
        ),
        Remedy(
            "Floor the variances",
            "Every dimension keeps a non-negative entropy; dropout holds the decoder to it.",
            "z_log_var = layers.VarianceDropout(keep_prob=0.9)(z_log_var)",
        ),
        Remedy(
            "Or stay deterministic and match the codes to the prior",
            "A Wasserstein auto-encoder makes its prior samples decodable.",
            f"zoo.WAE(encoder, decoder, latent_dim={size}, weight=10.0)",
        ),
        *_held_rate(found),
    ]


def _du(found, size, keep_prob):
    """DU-VAE, or what it is with a flow."""
    flow = "flow" in found.traits
    name, model = ("DU-IAF", "DUIAF") if flow else ("DU-VAE", "DUVAE")
    return Remedy(
        f"Train a {name}: batch-normalized means, dropout on the variances",
        f"Pinned gains keep the means{' below the flow' if flow else ''} apart (a rate of at least "
        f"D gamma^2 / 2 = {size * 0.125:.1f} nats{' there' if flow else ''}), dropped variances "
        "keep the posteriors diverse.",
        f"zoo.{model}(encoder, decoder, latent_dim={size}, gamma=0.5, keep_prob={keep_prob})",
        change={"gamma": 0.5, "keep_prob": keep_prob},
    )


def _diverse(size):
    return Remedy(
        "Train an MAE, which rewards diverse posteriors",
        "Meant for decoders that can model x without z: the objective contains the divergence "
        "between posteriors, and the prior is learned.",
        f"zoo.MAE(encoder, decoder, latent_dim={size}, diversity=1.0, smoothness=0.5)",
    )


def _less_seen(found, size):
    """An autoregressive decoder that sees less of what it decodes."""
    if "text" in found.traits:
        return Remedy(
            "Withhold words from the decoder",
            "Without some of the preceding words the decoder needs z.",
            f"networks.LSTMDecoder({size}, (None,), vocabulary_size, word_dropout=0.4)",
        )
    return Remedy(
        "Narrow the decoder's field of view",
        "With few pixels in view the decoder models texture, and z the global structure.",
        f"networks.ResidualPixelCNN({size}, output_shape, kernels=(5, 3, 3))",
    )


def _learned_priors(found, size):
    flow = Remedy(
        "Learn the prior",
        "A flow learns the density of the codes, and samples come from there.",
        f"zoo.VAE(encoder, decoder, latent_dim={size}, prior=layers.AutoregressiveFlowPrior())",
    )
    mixture = Remedy(
        "Or make it a mixture of posteriors",
        "Pseudo-inputs are learned whose posteriors cover those of the data.",
        f"zoo.VAE(encoder, decoder, latent_dim={size}, prior=layers.VampPrior(500))",
    )
    # A gradient cannot move ids.
    return [flow] if "text" in found.traits else [flow, mixture]


def _skip(size):
    return Remedy(
        "Feed z to every layer of the decoder",
        "Skip connections shorten the path from z to x.",
        f"zoo.SkipVAE(encoder, networks.mlp_decoder({size}, output_shape, skip=True), "
        f"latent_dim={size})",
    )


def _none(found, size):
    """Of faults that a cause alone tells of, which has the remedy."""
    return []


_REMEDIES = {
    "scale_too_large": _scale_remedies,
    "scale_too_small": _scale_remedies,
    "full_collapse": _full_collapse_remedies,
    "decoder_ignores_z": _decoder_ignores_z_remedies,
    "partial_collapse": _partial_collapse_remedies,
    "lagging_encoder": _lagging_encoder_remedies,
    "prior_hole": _prior_hole_remedies,
    "variance_blow_up": _variance_blow_up_remedies,
    "over_regularized": _over_regularized_remedies,
    "under_regularized": _under_regularized_remedies,
}
