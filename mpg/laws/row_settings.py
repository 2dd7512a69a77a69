"""What some rows are decoded with, as the laws take it: of each setting a number for all, or one a row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mpg.settings import DecoderSettings

# The horizon of a row that has none, beside rows that have one: no position is a multiple of it but 0.
_NEVER = 2**62


@dataclass(frozen=True)
class RowSettings:
    """Settings of some rows: one number where all agree, a tensor ``[rows]`` where they do not.

    A row's numbers are the same to the last bit either way: what a setting does not touch in a row that has it off
    stays as it is, and no row is divided, raised or cut by another's.

    Attributes:
        temperature: divides logits (:attr:`mpg.DecoderSettings.law_temperature`); float64. Where it is one for all and
            not 1, a tensor without dimensions: a GPU multiplies by the reciprocal of a plain number, which is another
            result than a division by one of several.
        strengths: exponents of the density ratios, per attribute; float64.
        top_k, top_p: see :func:`mpg.laws.drawing.truncate`; ``most_k``: the largest top-k, known without a look at it.
        greedy: whether every token is the target's most probable one.
        horizon: positions after which the sum's weights are reset; ``None``: no row's ever are.
        max_new_tokens: of the longest response.
    """

    temperature: float | Tensor
    strengths: tuple[float | Tensor, ...]
    top_k: int | Tensor
    most_k: int
    top_p: float | Tensor
    greedy: bool | Tensor
    horizon: int | Tensor | None
    max_new_tokens: int | Tensor

    @classmethod
    def of(
        cls,
        settings: Sequence[DecoderSettings],
        attributes: Sequence[str],
        *,
        carried: Sequence[Collection[str]] | None = None,
        device: torch.device | None = None,
    ) -> RowSettings:
        """Of rows with these settings, at least one.

        Args:
            carried: the attributes of each row: what strength another has plays no part in it. ``None``: all.
            device: of the tensors.
        """
        strengths = []
        for name in attributes:
            found = [own.strength_of(name) for own in settings]
            if carried is not None:
                mine = [s for s, names in zip(found, carried, strict=True) if name in names] or [1.0]
                found = mine[:1] if len(set(mine)) == 1 else found
            strengths.append(_real(found, device))
        temperature = _real([own.law_temperature for own in settings], device)
        if not isinstance(temperature, Tensor) and temperature != 1.0:
            temperature = torch.full((), temperature, dtype=torch.float64, device=device)
        horizons = [own.horizon for own in settings]
        never = set(horizons) == {None}
        return cls(
            temperature=temperature,
            strengths=tuple(strengths),
            top_k=_whole([int(own.top_k) for own in settings], device),
            most_k=max(int(own.top_k) for own in settings),
            top_p=_real([own.top_p for own in settings], device),
            greedy=_either([bool(own.greedy) for own in settings], device),
            horizon=None if never else _whole([_NEVER if each is None else int(each) for each in horizons], device),
            max_new_tokens=_whole([int(own.max_new_tokens) for own in settings], device),
        )

    def at(self, rows: Tensor | slice) -> RowSettings:
        """Of some of the rows, ``[n]``; the temperature, which lines of logits are divided by, stays."""
        if self.alike:
            return self
        pick: dict[str, Any] = {name: value[rows] for name, value in self._by_row.items()}
        strengths = tuple(each[rows] if isinstance(each, Tensor) else each for each in self.strengths)
        return replace(self, strengths=strengths, **pick)

    @property
    def truncates(self) -> bool:
        """Whether top-k or top-p cut any row's token law."""
        return self.most_k > 0 or isinstance(self.top_p, Tensor) or self.top_p < 1.0

    @cached_property
    def at_strength_1(self) -> bool:
        """Whether every strength of every row is 1."""
        return not any(isinstance(each, Tensor) or each != 1.0 for each in self.strengths)

    @cached_property
    def _by_row(self) -> dict[str, Tensor]:
        each = {name: getattr(self, name) for name in ("top_k", "top_p", "greedy", "horizon", "max_new_tokens")}
        return {name: value for name, value in each.items() if isinstance(value, Tensor)}

    @cached_property
    def alike(self) -> bool:
        """Whether all rows have the same, temperatures aside."""
        return not self._by_row and not any(isinstance(each, Tensor) for each in self.strengths)


def _real(values: Sequence[float], device: torch.device | None) -> float | Tensor:
    alike = len(set(values)) == 1
    return float(values[0]) if alike else torch.tensor(values, dtype=torch.float64, device=device)


def _whole(values: Sequence[int], device: torch.device | None) -> int | Tensor:
    return values[0] if len(set(values)) == 1 else torch.tensor(values, dtype=torch.long, device=device)


def _either(values: Sequence[bool], device: torch.device | None) -> bool | Tensor:
    return values[0] if len(set(values)) == 1 else torch.tensor(values, dtype=torch.bool, device=device)
