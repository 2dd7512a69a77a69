"""Who is who: which branch of a bank plays which part, and where its lines stand in a pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mpg.settings import UNTOLD


@dataclass(frozen=True)
class Layout:
    """Which branch of a bank plays which part. Branch 0 is the reference ``pi_0``.

    Attributes:
        attributes: names, in the order of the weights.
        policy: branch of each attribute's ``pi_i``.
        reference: branch of each attribute's ``rho_i`` (0: ``pi_0``).
        untold: branch of ``pi_0`` once more, under the prompt that does not tell it what the attributes are like;
            ``None``: it is told nothing, or nobody asks what it would say otherwise.
    """

    attributes: tuple[str, ...]
    policy: tuple[int, ...]
    reference: tuple[int, ...]
    untold: int | None = None

    @property
    def n_branches(self) -> int:
        return 1 + max((*self.policy, *self.reference, self.untold or 0))

    def with_untold(self, *, divides: bool) -> Layout:
        """The same with the untold reference, as the last branch.

        Args:
            divides: whether it is the ``rho_i`` of all attributes whose ``rho_i`` is ``pi_0``.
        """
        untold = self.n_branches
        rho = tuple(branch or untold for branch in self.reference) if divides else self.reference
        return replace(self, reference=rho, untold=untold)

    @property
    def booked_late(self) -> int | None:
        """The untold reference where no law needs it: its books can wait for a text's end, which costs one pass."""
        return None if self.untold in self.reference else self.untold

    def owner(self, branch: int) -> str | None:
        """The attribute whose prompt a branch reads, or ``UNTOLD``; ``None``: the reference's, as the soup's."""
        return self._owners.get(branch)

    def branches_of(self, attributes: Collection[str], *, told: bool = False) -> list[int]:
        """What a row of some attributes needs: the reference, and the attributes' ``pi_i`` and ``rho_i``.

        Args:
            told: whether the row has a prompt of the untold reference: then its books need that, too.
        """
        needed = [0]
        for name, *models in zip(self.attributes, self.policy, self.reference, strict=True):
            needed += [branch for branch in models if name in attributes and branch not in needed]
        if told and self.untold is not None and self.untold not in needed:
            needed.append(self.untold)
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
        if branch == self.untold:
            return "the reference model (told nothing)"
        if branch >= self.n_branches:
            return "the soup of the attributes' adapters"
        own = " (its own reference)" if branch in self.reference else ""
        return f"attribute {self.owner(branch)!r}{own}"

    @cached_property
    def _owners(self) -> dict[int, str]:
        models = zip(self.attributes, self.policy, self.reference, strict=True)
        own = {branch: name for name, *pair in models for branch in pair if branch not in (0, self.untold)}
        return own if self.untold is None else own | {self.untold: UNTOLD}


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
