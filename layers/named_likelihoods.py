"""The likelihoods that have a name."""

from __future__ import annotations

from .likelihoods import Bernoulli, ContinuousBernoulli, Gaussian, Likelihood
from .logistic_mixture import DiscretizedLogisticMixture
from .tokens import Tokens


def get_likelihood(identifier: str | Likelihood) -> Likelihood:
    """The likelihood of a name, or the likelihood itself.

    Args:
        identifier: `"bernoulli"`, `"continuous_bernoulli"`, `"gaussian"`, `"logistic_mixture"`
            (`DiscretizedLogisticMixture()`), `"tokens"` (`Tokens()`), or a `Likelihood`.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If it is neither a name nor a `Likelihood`.
    """
    by_name = {
        "bernoulli": Bernoulli,
        "continuous_bernoulli": ContinuousBernoulli,
        "gaussian": Gaussian,
        "logistic_mixture": DiscretizedLogisticMixture,
        "tokens": Tokens,
    }
    if isinstance(identifier, Likelihood):
        return identifier
    if not isinstance(identifier, str):
        raise TypeError(
            "`likelihood` must be a name or a vaezoo likelihood. Received: "
            f"{type(identifier).__name__}"
        )
    if identifier not in by_name:
        raise ValueError(
            f"`likelihood` must be one of {', '.join(by_name)}, or an object such as "
            f"Categorical(num_classes=256). Received: likelihood={identifier!r}"
        )
    return by_name[identifier]()
