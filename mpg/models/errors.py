"""What a bank refuses."""

from __future__ import annotations


class BankError(ValueError):
    """A model or adapter that can't take part; the message names it and the remedy."""


class AdapterError(BankError):
    """An adapter that is damaged, of a kind that is not taken, or for another model."""
