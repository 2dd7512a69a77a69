"""What a bank refuses."""

from __future__ import annotations


class BankError(ValueError):
    """A model or adapter that can't take part; the message names it and the remedy."""
