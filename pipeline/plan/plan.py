"""The one way from a job to what will be decoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpg.models.ends import Ends
from personas import Cell, Grid
from pipeline.job.model import Job
from pipeline.plan.cells import PlannedCell, Sources, row_key
from pipeline.plan.cells import resolved as of_persona
from pipeline.plan.rule import Rule
from pipeline.plan.sources import decoder_settings, resolved
from pipeline.plan.systems import Systems

if TYPE_CHECKING:
    from mpg import DecoderSettings


@dataclass(frozen=True)
class Plan:
    """A job with all that its names stand for; what it comes to follows from it.

    Attributes:
        sources: of the weights, with their revisions.
        settings: of the decoder.
        systems: what models are told before a prompt.
        tokenizer, max_positions, n_embeddings, ends: of the reference; invocations: of adapters. See
            :class:`pipeline.plan.sources.Resolved`.
    """

    job: Job
    sources: Sources
    settings: DecoderSettings
    systems: Systems
    tokenizer: Any
    max_positions: int | None
    n_embeddings: int
    ends: Ends
    invocations: dict[str, list[tuple[int, ...]]]

    @classmethod
    def of(
        cls, job: Job, dtype: str | None = None, order: Sequence[str] = (), unreachable: list[str] | None = None
    ) -> Plan:
        """Resolve a job's names; no weights are loaded.

        Args:
            dtype: decided already, see :mod:`pipeline.plan.computed_with`; ``None``: by the job, on this machine.
            order: of the attributes, decided already; what it does not name comes after it, as in the job.
            unreachable: see :func:`pipeline.plan.sources.resolved`.

        Raises:
            RunError: see :func:`pipeline.plan.sources.resolved`.
        """
        systems = Systems.of(job.described_attributes(), job.model.system, job.decoder.wording)
        found = resolved(job, dtype, order, unreachable)
        known = found.tokenizer, found.max_positions, found.n_embeddings, found.ends, found.invocations
        return cls(job, found.sources, decoder_settings(job), systems, *known)

    @property
    def rule(self) -> Rule:
        """What makes cells of places, on any machine."""
        ends = None if self.ends.ids == self.ends.stated else tuple(sorted(self.ends.ids))
        return Rule(self.settings, self.sources, self.job.run_seed, self.systems, self.job.control_tokens, ends)

    def distinct(self, grid: Grid) -> Grid:
        """A grid whose cells all come to rows of their own, those of the grid, in its order: the first of each."""
        rows = [row_key(of_persona(persona, self.settings, self.systems)) for persona in grid.personas]
        personas = dict(zip(reversed(rows), reversed(grid.personas), strict=True))
        prompts = {prompt.messages: prompt for prompt in reversed(grid.prompts)}
        return Grid(
            [prompts[messages] for messages in dict.fromkeys(prompt.messages for prompt in grid.prompts)],
            [personas[row] for row in dict.fromkeys(rows)],
            grid.samples_per_cell,
        )

    def cells(self, grid: Iterable[Cell] | None = None, places: Iterable[int] | None = None) -> list[PlannedCell]:
        """Planned cells of a grid, once each; ``None``: of the job's own. Raises PromptError: of its prompts.

        Args:
            places: see :meth:`Rule.cells`.
        """
        if grid is None:
            grid = self.job.cells(self.job.load_prompts())
        return self.rule.cells(grid, self.tokenizer, places)
