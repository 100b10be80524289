"""Terms of a batch, from arrays or tensors."""

import pytest


@pytest.fixture(scope="session")
def make_terms():
    """`make_terms(mean, log_var, log_px=..., z=...)`: `Terms` under a standard normal prior."""
    from vaezoo import testing

    return testing.make_terms
