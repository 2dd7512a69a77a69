"""The one way from a job to what will be decoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from personas import Cell
from pipeline.job.model import Job
from pipeline.plan.cells import PlannedCell, Sources, plan_cells
from pipeline.plan.sources import decoder_settings, resolve_sources
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
    """

    job: Job
    sources: Sources
    settings: DecoderSettings
    systems: Systems

    @classmethod
    def of(cls, job: Job, dtype: str | None = None, order: Sequence[str] = ()) -> Plan:
        """Resolve a job's names; no weights are loaded.

        Args:
            dtype: decided already, see :mod:`pipeline.plan.computed_with`; ``None``: by the job, on this machine.
            order: of the attributes, decided already; what it does not name comes after it, as in the job.

        Raises:
            RunError: see :func:`pipeline.plan.sources.resolve_sources`.
        """
        systems = Systems.of(job.described_attributes(), job.model.system)
        return cls(job, resolve_sources(job, dtype, order), decoder_settings(job), systems)

    def cells(self, grid: Iterable[Cell] | None = None) -> list[PlannedCell]:
        """Planned cells of a grid, once each; ``None``: of the job's own. Raises PromptError: of its prompts."""
        if grid is None:
            grid = self.job.cells(self.job.load_prompts())
        return plan_cells(grid, self.settings, self.sources, self.job.seed, self.systems)
