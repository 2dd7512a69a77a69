"""One model for the whole text.

- :class:`SteeredRound`: ``prompting``, the reference, whose prompt describes the attributes
- :class:`SoupRound`: ``soup``, the reference with a weighted sum of the adapters' deltas
"""

from __future__ import annotations

from torch import Tensor

from mpg.decoding.rounds.lagging import LaggingRound
from mpg.decoding.rows import Rows
from mpg.models.errors import BankError
from mpg.models.lanes import BankSession
from mpg.request import Request
from mpg.settings import DecoderSettings


class SteeredRound(LaggingRound):
    """The reference for the whole text: what steers it is its prompt."""

    def step(self, session: BankSession, rows: Rows) -> None:
        self.draw_from(session, rows, session.references())


class SoupRound(LaggingRound):
    """One model for the whole text, which the row's own mix of adapters makes.

    Raises:
        BankError: the bank's models have no deltas that add up.
    """

    def __init__(self, *args: object, draft_len: int | None) -> None:
        super().__init__(*args, draft_len=draft_len)  # type: ignore[arg-type]
        if not self.bank.can_mix:
            raise BankError(
                f"decoder {self.settings.name!r} adds up LoRA adapters over the reference: an attribute here is a "
                "whole model or has its own reference; use 'mod' or 'scr-exact'"
            )

    def branches(self, request: Request) -> list[int]:
        return [*super().branches(request), self.bank.layout.n_branches]

    def soup(self, request: Request, settings: DecoderSettings) -> Tensor | None:
        strengths = [settings.strength_of(name) for name in self.bank.attributes]
        return self.bank.soup_mix(request.weights, strengths)

    def step(self, session: BankSession, rows: Rows) -> None:
        self.draw_from(session, rows, session.pick([(row, session.soup) for row in range(len(rows))]))
