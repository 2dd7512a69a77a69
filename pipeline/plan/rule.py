"""What makes a planned cell of a cell: the part of a plan that does not grow with its grid, and that travels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mpg.models.control_tokens import control_tokens_of
from mpg.models.template import reads_clock
from mpg.settings import DecoderSettings
from personas import Cell
from pipeline.plan.cells import ControlRule, PlannedCell, Sources, TemplateRule, plan_cells
from pipeline.plan.systems import Systems


@dataclass(frozen=True)
class Rule:
    """See the module.

    Attributes:
        settings: of the decoder.
        seed: of the run.
        systems: what models are told before a prompt.
        control: what becomes of control tokens in texts: the job's word.
        ends: the model's end tokens, where they are not those that it states.
    """

    settings: DecoderSettings
    sources: Sources
    seed: int
    systems: Systems
    control: str
    ends: tuple[int, ...] | None

    def cells(self, cells: Iterable[Cell], tokenizer: Any, places: Iterable[int] | None = None) -> list[PlannedCell]:
        """Planned cells, once each.

        Args:
            tokenizer: of the reference.
            places: of the cells in the grid that they are of; ``None``: they are that grid.
        """
        control = ControlRule(self.control, control_tokens_of(tokenizer).in_text)
        template = TemplateRule(self.sources.style, self.ends, partial(reads_clock, tokenizer))
        return plan_cells(cells, self.settings, self.sources, self.seed, self.systems, control, template, places)
