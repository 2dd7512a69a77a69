"""Models given as functions: toys whose law can be enumerated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mpg.models.errors import BankError


@dataclass(frozen=True)
class FunctionModel:
    """A model given as a function: ``LongTensor [batch, time] -> next-token logits [batch, vocab]``."""

    fn: Callable[[Tensor], Tensor]
    vocab_size: int
    eos_id: int


# Coefficients of the adapters -> the model with that weighted sum of their deltas.
SoupFunction = Callable[[Sequence[float]], FunctionModel]


class FunctionBackbone:
    """Function models as branches, without any cache: the slow, obvious backbone of the law tests.

    Args:
        models: one a branch.
        soup: the model of a lane whose mix is not one-hot.
    """

    device = torch.device("cpu")

    def __init__(self, models: Sequence[FunctionModel], soup: SoupFunction | None = None) -> None:
        self.models, self.soup = tuple(models), soup
        self.n_branches = len(self.models)

    def model(self, mix: Sequence[float]) -> FunctionModel:
        """The model of a lane's mix."""
        if not any(mix):
            return self.models[0]
        if sorted(mix)[-1] == 1.0 and sum(map(bool, mix)) == 1:
            return self.models[1 + list(mix).index(1.0)]
        if self.soup is None:
            raise BankError("soup: these function models have no deltas to add up; give from_functions a soup")
        return self.soup(mix)

    def session(self, lanes: int, capacity: int) -> FunctionSession:
        return FunctionSession(self, lanes, capacity)


class FunctionSession:
    """The lanes' tokens; their logits are computed from the whole prefix each time."""

    def __init__(self, backbone: FunctionBackbone, lanes: int, capacity: int) -> None:
        self._backbone = backbone
        self._tokens = torch.zeros(lanes, capacity, dtype=torch.long)

    def append(
        self,
        lanes: Sequence[int],
        mixes: Tensor,
        tokens: Tensor,
        starts: Tensor,
        extents: Tensor | None = None,
        *,
        trunks: Sequence[int] | None = None,
        reach: int | None = None,
        fresh: bool = False,
    ) -> Tensor:
        index = torch.tensor(lanes)
        positions = starts[:, None] + torch.arange(tokens.shape[1])  # [lanes, time]
        self._tokens[index[:, None], positions] = tokens
        groups: dict[tuple[float, ...], list[int]] = {}
        for i, mix in enumerate(mixes.tolist()):
            groups.setdefault(tuple(mix), []).append(i)
        out = torch.empty(*tokens.shape, self._backbone.models[0].vocab_size, dtype=torch.float64)
        for mix, members in groups.items():
            model, member = self._backbone.model(mix), torch.tensor(members)
            for t in range(tokens.shape[1]):
                lengths = positions[member, t] + 1
                for length in lengths.unique().tolist():
                    which = member[lengths == length]
                    out[which, t] = model.fn(self._tokens[index[which], :length]).to(out)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def copy(self, source: int, target: int, length: int) -> None:
        self._tokens[target, :length] = self._tokens[source, :length]

    def read(self, lane: int, length: int) -> list[Tensor]:
        return [self._tokens[lane, :length].clone()]

    def write(self, lane: int, kept: Sequence[Tensor]) -> None:
        self._tokens[lane, : len(kept[0])] = kept[0]

    def close(self) -> None:
        pass
