"""What makes a planned cell of a cell: the part of a plan that does not grow with its grid, and that travels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mpg.models.control_tokens import control_tokens_of
from mpg.models.template import reads_clock
from mpg.settings import DecoderSettings
from personas import Cell, Grid
from pipeline.plan.cells import ControlRule, PlannedCell, Sources, TemplateRule, plan_cells, resolved
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

    def identity(self) -> str:
        """What cells are made of beside their grid, in words that are the same on every machine: no place is named."""
        known = self.sources
        parts = (known.model_label, known.adapter_revisions, known.dtype, known.as_listed, known.style)
        systems = tuple(sorted(map(repr, vars(self.systems).items())))
        return repr((self.settings, parts, self.seed, systems, self.control, self.ends))

    def n_control(self, grid: Grid, tokenizer: Any) -> int:
        """How many cells of a grid have control tokens in their texts."""
        prompts, personas = self.marked(grid, tokenizer)
        n_prompts, n_personas = sum(prompts), sum(personas)
        pairs = n_prompts * len(personas) + (len(prompts) - n_prompts) * n_personas
        return pairs * grid.samples_per_cell

    def marked(self, grid: Grid, tokenizer: Any) -> tuple[list[bool], list[bool]]:
        """Of each prompt, and of what models are told of each persona, whether it has control tokens in it."""
        marks, told = self._control_rule(tokenizer).marks, list[bool]()
        for persona in grid.personas:
            found = resolved(persona, self.settings, self.systems)
            told.append(marks((found.system, *found.own.values())))
        return [marks(message.content for message in prompt.messages) for prompt in grid.prompts], told

    def _control_rule(self, tokenizer: Any) -> ControlRule:
        return ControlRule(self.control, control_tokens_of(tokenizer).in_text)

    def cells(self, cells: Iterable[Cell], tokenizer: Any, places: Iterable[int] | None = None) -> list[PlannedCell]:
        """Planned cells, once each.

        Args:
            tokenizer: of the reference.
            places: of the cells in the grid that they are of; ``None``: they are that grid.
        """
        control = self._control_rule(tokenizer)
        template = TemplateRule(self.sources.style, self.ends, partial(reads_clock, tokenizer))
        return plan_cells(cells, self.settings, self.sources, self.seed, self.systems, control, template, places)
