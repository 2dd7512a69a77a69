"""What travels through the graph: the work of a run, its shards, and the counts of what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.decode.loading import LoadBank
from pipeline.job.known import Assignment
from pipeline.plan.cells import PlannedCell
from pipeline.plan.computed_with import ComputedWith
from pipeline.plan.stored import StoredPlan

if TYPE_CHECKING:
    import apache_beam as beam

BOOKS_FILE = "books.json"
PROGRESS = "progress"  # in the work folder


@dataclass(frozen=True)
class ToDo:
    """A file that says what is left to do (:mod:`pipeline.beam.to_do`), and for how many rows."""

    path: str
    n: int


@dataclass(frozen=True)
class Places:
    """Cells that one worker decodes together, by their places in the plan's grid.

    Attributes:
        runs: of neighbours: first and last of each.
        first_id: row id of the first: a worker that finds another there does not have the driver's plan, or version.
        of_range: what its files' names begin with (:mod:`pipeline.store.ranges`); empty: they are named by their rows.
    """

    runs: tuple[tuple[int, int], ...]
    first_id: str
    of_range: str = ""

    @property
    def n(self) -> int:
        return sum(last - first + 1 for first, last in self.runs)

    def all(self) -> list[int]:
        return [place for first, last in self.runs for place in range(first, last + 1)]


@dataclass(frozen=True)
class Shard:
    """Cells that one worker decodes together and writes as one file, see :class:`Places`."""

    cells: tuple[PlannedCell, ...]
    of_range: str = ""


@dataclass
class DecodedShard:
    """What a worker made of a shard: rows, dead letters, and the time it took (for `run.json` only)."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    of_range: str = ""
    started_s: float = 0.0
    ended_s: float = 0.0


@dataclass(frozen=True)
class WrittenShard:
    """A finished shard: its file (none if every cell was rejected), and counts."""

    path: str | None
    n_rows: int
    n_rejected: int
    n_tokens: int
    started_s: float
    ended_s: float


@dataclass(frozen=True)
class JudgeTask:
    """Rows of one generation file that one judge has not scored on some attributes yet; ``None``: all of them."""

    path: str
    row_ids: tuple[str, ...] | None = None


@dataclass(frozen=True)
class JudgeWork:
    """What one judge has to do: its attributes, and the rows of earlier runs that it has not judged.

    Attributes:
        earlier: those rows; ``None``: there are none.
        folder: of a judge beside an adapter, where workers elsewhere find it otherwise (:mod:`pipeline.beam.travel`).
    """

    judge: Assignment
    label: str
    earlier: ToDo | None = None
    folder: str | None = None


@dataclass(frozen=True)
class Books:
    """Counts, summed over shards; times in seconds since the epoch, of the decode stage alone."""

    n_rows: int = 0
    n_rejected: int = 0
    n_tokens: int = 0
    n_judgments: int = 0
    first_s: float = 1e18
    last_s: float = 0.0

    @property
    def decode_s(self) -> float:
        """Wall time from the first shard's start to the last one's end."""
        return max(0.0, self.last_s - self.first_s)

    def plus(self, other: Books) -> Books:
        return Books(
            self.n_rows + other.n_rows,
            self.n_rejected + other.n_rejected,
            self.n_tokens + other.n_tokens,
            self.n_judgments + other.n_judgments,
            min(self.first_s, other.first_s),
            max(self.last_s, other.last_s),
        )

    @staticmethod
    def of(shard: WrittenShard) -> Books:
        return Books(shard.n_rows, shard.n_rejected, shard.n_tokens, 0, shard.started_s, shard.ended_s)


class Graph(Protocol):
    """What is run as one graph of Beam's; it travels to the process that runs it."""

    @property
    def last(self) -> Path:
        """The file that it writes last."""
        ...

    def build(self, pipeline: beam.Pipeline, hints: Mapping[str, str]) -> None:
        """Add it to a pipeline. Args: hints: Beam's resource hints of steps that need a device: name -> value."""
        ...


@dataclass(frozen=True)
class Work:
    """What a run has left to do, where and with what.

    Attributes:
        shards: to decode; ``None``: there are none.
    """

    shards: ToDo | None
    judges: Sequence[JudgeWork]
    plan: StoredPlan
    folder: Path
    computed_with: ComputedWith
    load: LoadBank | None = None  # of the model bank, see ProcessBank
    progress: Path | None = None  # folder of this machine that workers on it tick in; None: in the work folder

    @property
    def last(self) -> Path:
        return self.folder / BOOKS_FILE

    def build(self, pipeline: beam.Pipeline, hints: Mapping[str, str]) -> None:
        from pipeline.beam import graph  # which knows what work is

        graph.build(pipeline, self, hints)

    @property
    def ticks(self) -> Path:
        """Where workers of this machine say that a row is done."""
        return self.progress or self.folder / PROGRESS

    @property
    def n_cells(self) -> int:
        return self.shards.n if self.shards is not None else 0

    @property
    def n_to_judge(self) -> int:
        """Texts, once for each judge."""
        return sum(self.n_cells + (judge.earlier.n if judge.earlier is not None else 0) for judge in self.judges)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to decode or to judge."""
        return not self.n_cells and not self.n_to_judge
