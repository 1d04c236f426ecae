"""Scikit-learn's warnings that a search has not converged, kept to ourselves: whoever asked is told by the result."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["unconverged_in_silence"]

_filters = threading.Lock()  # which warnings are shown is a setting of the whole process


@contextmanager
def unconverged_in_silence() -> Iterator[None]:
    """Nothing inside warns that it has not converged; one thread at a time."""
    from sklearn.exceptions import ConvergenceWarning

    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
