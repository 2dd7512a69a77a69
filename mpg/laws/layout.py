"""Who is who: which branch of a bank plays which part, and where its lines stand in a pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Which branch of a bank plays which part. Branch 0 is the reference ``pi_0``.

    Attributes:
        attributes: names, in the order of the weights.
        policy: branch of each attribute's ``pi_i``.
        reference: branch of each attribute's ``rho_i`` (0: ``pi_0``).
    """

    attributes: tuple[str, ...]
    policy: tuple[int, ...]
    reference: tuple[int, ...]

    @property
    def n_branches(self) -> int:
        return 1 + max((*self.policy, *self.reference, 0))

    def owner(self, branch: int) -> str | None:
        """The attribute whose prompt a branch reads; ``None``: the reference's, which the soup reads too."""
        return self._owners.get(branch)

    def branches_of(self, attributes: Collection[str]) -> list[int]:
        """What a row of some attributes needs: the reference, and the attributes' ``pi_i`` and ``rho_i``."""
        needed = [0]
        for name, *models in zip(self.attributes, self.policy, self.reference, strict=True):
            needed += [branch for branch in models if name in attributes and branch not in needed]
        return needed

    def log_ratios(self, log_probs: Tensor) -> Tensor:
        """``log pi_i - log rho_i``: log-probabilities ``[..., branches]`` -> ``[..., attributes]``, in nats.

        Of a token as of a text, at the temperature of what is given, without strength or truncation.
        """
        return log_probs[..., list(self.policy)] - log_probs[..., list(self.reference)]

    def in_words(self, branch: int) -> str:
        """Whose model a branch is, for a message."""
        if branch == 0:
            return "the reference model"
        if branch >= self.n_branches:
            return "the soup of the attributes' adapters"
        own = " (its own reference)" if branch in self.reference else ""
        return f"attribute {self.owner(branch)!r}{own}"

    @cached_property
    def _owners(self) -> dict[int, str]:
        models = zip(self.attributes, self.policy, self.reference, strict=True)
        return {branch: name for name, *pair in models for branch in pair if branch != 0}


@dataclass(frozen=True)
class Part:
    """The rows of a block that carry one attribute, and where its models' log-probabilities stand.

    Attributes:
        attribute: index into the layout.
        rows: ``[n]``, indices into the block's rows.
        policy, rho: ``[n]``, lines of ``pi_i`` and ``rho_i`` among the block's log-policies.
        plain: whether ``rho_i`` is ``pi_0``.

    Indices that follow each other may be slices: what they name is read where it lies.
    """

    attribute: int
    rows: Tensor | slice
    policy: Tensor | slice
    rho: Tensor | slice
    plain: bool


def parts_of_one_row(layout: Layout, branches: Sequence[int] | None = None) -> list[Part]:
    """The parts of a single row whose lines are some of the bank's branches, in their order; ``None``: all."""
    row = torch.zeros(1, dtype=torch.long)
    held = range(layout.n_branches) if branches is None else branches
    line = {branch: row + i for i, branch in enumerate(held)}
    models = enumerate(zip(layout.policy, layout.reference, strict=True))
    return [Part(i, row, line[pi], line[rho], plain=rho == 0) for i, (pi, rho) in models if pi in line and rho in line]
