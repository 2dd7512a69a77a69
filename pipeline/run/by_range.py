"""What is written of a plan and what is left of it, told by the names of its ranges' files.

So it is where a run begins with an empty work folder, and where the same plan goes on: whatever the number of rows, no
more than one range's are held. A work folder with anything else in it (rows of another plan, or of a judge that was
asked apart) is looked at row by row, see :mod:`pipeline.run.rows`.
"""

from __future__ import annotations

import hashlib
import logging
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, overload

import pyarrow as pa

from personas import Grid
from pipeline.beam.to_do import forget, keep_places, places_of, runs_of
from pipeline.beam.work import JudgeTask, Places
from pipeline.plan.cells import PlannedCell
from pipeline.plan.plan import Plan
from pipeline.plan.rule import Rule
from pipeline.plan.stored import PlannedCells, content_of
from pipeline.publish.gather import RangeOfRows, ReadRange, read_range
from pipeline.run.asking import TextsOfFiles
from pipeline.run.judges import RunJudges
from pipeline.run.rows import LeftToDo, Written
from pipeline.store.dataset import FOLDERS, TRANSIENT
from pipeline.store.files import listing, move
from pipeline.store.ranges import PLAN_DIGITS, RangeFile, judgments_name, parsed, range_name
from pipeline.store.schema import TABLES
from pipeline.store.shards import free_name, manifest_of, set_aside, sound_table

logger = logging.getLogger(__name__)

# Table -> index of a range -> its files.
Files = dict[str, dict[int, list[RangeFile]]]


def by_range(work: Path, plan: Plan, grid: Grid, size: int, judges: RunJudges | None = None) -> ByRange | None:
    """The rows of a plan in a work folder; ``None``: it holds anything else than files of the plan's ranges.

    Args:
        grid: see :meth:`pipeline.plan.plan.Plan.distinct`. size: cells of a range. judges: of the run.

    Raises:
        OSError: nobody can tell.
    """
    cells = PlannedCells(plan.rule, grid, plan.tokenizer)
    ranges = PlanRanges(plan_name(plan.rule, grid, cells, size), len(cells), size)
    return ByRange(work, judges, ranges, cells) if plans_in(work) <= {ranges.plan} else None


def plan_name(rule: Rule, grid: Grid, cells: Sequence[PlannedCell], size: int) -> str:
    """A name for a plan, by all that its rows, their labels and its ranges are made of."""
    ends = [cells[0].row_id, cells[-1].row_id] if cells else []  # another version may make other ids of the same
    parts = (rule.identity(), content_of(grid), len(cells), size, *ends)
    return hashlib.sha256("\n".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:PLAN_DIGITS]


def plans_in(work: Path) -> set[str | None]:
    """The plans whose ranges' files are in a work folder; ``None`` among them: it holds others. Raises OSError."""
    found = (parsed(name) for table in FOLDERS for name in listing(work / table, ".parquet"))
    return {None if file is None else file.plan for file in found}


class Ranges(Protocol):
    """The ranges of a plan, numbered from 0."""

    @property
    def n(self) -> int:
        """Of how many cells they are."""
        ...

    def __len__(self) -> int: ...

    def places(self, index: int) -> Sequence[int]:
        """Of a range's cells in the plan's grid, ascending."""
        ...

    def name(self, index: int) -> str:
        """What the names of a range's files begin with."""
        ...

    def index_of(self, file: RangeFile) -> int | None:
        """Which range a file is of; ``None``: of none of these."""
        ...


class PlanRanges:
    """A plan's cells, so many a range.

    Args:
        plan: its name, see :func:`plan_name`. n: its cells. size: of a range.
    """

    def __init__(self, plan: str, n: int, size: int) -> None:
        self.plan, self.n, self._size = plan, n, size

    def __len__(self) -> int:
        return -(-self.n // self._size)

    def places(self, index: int) -> range:
        return range(self.n)[index * self._size : (index + 1) * self._size]

    def name(self, index: int) -> str:
        return range_name(self.plan, index)

    def index_of(self, file: RangeFile) -> int | None:
        return file.index if file.plan == self.plan else None


class ByRange:
    """See the module."""

    def __init__(self, work: Path, judges: RunJudges | None, ranges: Ranges, cells: PlannedCells) -> None:
        self._work, self._judges, self._ranges, self._cells = work, judges, ranges, cells
        self._before: dict[str, int] | None = None  # files of rows of earlier runs, with their numbers of rows
        self._known: dict[str, dict[str, dict[str, Any]]] = {}  # table -> what its manifest says
        self._in_doubt: set[int] = set()  # ranges that have less than their files' names say
        self._generated = self._tokens = self._n_dead = 0
        self.is_damaged = self._is_partly = False

    @property
    def n(self) -> int:
        return self._ranges.n

    @property
    def n_control(self) -> int:
        return self._cells.n_control

    def left(self) -> LeftToDo:
        files = self._files()
        if self._before is None:
            self._before = {f.name: f.n for some in files["generations"].values() for f in some}
            n = sum(self._before.values())
            if n:
                logger.info("%d of %d rows are there already and are kept", n, self.n)
        forget(self._work)
        judges = self._judges
        return LeftToDo(
            keep_places(self._work, self.to_do(files)),
            [] if judges is None else judges.of_workers_by_file(lambda *judge: self._unjudged(files, *judge)),
            self._n_dead,
            self._is_partly,
        )

    def to_do(self, files: Files | None = None) -> Iterator[Places]:
        """What is left of each range; notes what is dead, and whether a range is there in part.

        Args:
            files: that are there; ``None``: they are looked at now.
        """
        files, self._n_dead, self._is_partly = self._files() if files is None else files, 0, False
        for index in range(len(self._ranges)):
            places = self._ranges.places(index)
            rows, dead = files["generations"].get(index, []), files["rejected"].get(index, [])
            n_dead = sum(file.n for file in dead)
            of_range = self._ranges.name(index)
            if index not in self._in_doubt and _is_whole(rows, dead, len(places)):
                self._n_dead += n_dead
            elif not rows:  # its dead letters are tried again with it
                yield Places(_runs_of(places), self._cells[places[0]].row_id, of_range)
            else:
                left, n_dead = self._left_in(places, rows, dead)
                self._n_dead += n_dead
                if left:
                    self._is_partly = True
                    yield places_of(left, of_range)

    def cells_left(self) -> Sequence[PlannedCell]:
        """The cells that are left, each made when it is asked for."""
        return _Some(self._cells, [run for places in self.to_do() for run in places.runs])

    def _left_in(
        self, places: Sequence[int], rows: Sequence[RangeFile], dead: Sequence[RangeFile]
    ) -> tuple[list[PlannedCell], int]:
        """Cells of a range that are neither written nor dead letters, and how many of those it has."""
        done = {row_id for table in self._read("generations", rows) for row_id in table.column("row_id").to_pylist()}
        tables = self._read("rejected", dead)
        letters = [row for table in tables for row in table.select(["row_id", "reason"]).to_pylist()]
        gone = {row["row_id"] for row in letters if row["reason"] not in TRANSIENT} - done
        left = [cell for cell in self._cells.at(places) if cell.row_id not in done | gone]
        return left, len(gone)

    def _unjudged(self, files: Files, label: str, attributes: tuple[str, ...]) -> Iterator[tuple[JudgeTask, int]]:
        """Files of rows that a judge has not judged; a file of its judgments is there for all of its rows, or not."""
        for file, _ in self._lacking(files, label, attributes):
            yield JudgeTask(str(self._work / "generations" / file.name)), file.n

    def to_ask(self, label: str, attributes: tuple[str, ...]) -> TextsOfFiles:
        lacking = self._lacking(self._files(), label, attributes)
        files = [(file.name, file.n, judgments) for file, judgments in lacking]
        return TextsOfFiles(self._work, files, self._known["judgments"])

    def _lacking(
        self, files: Files, label: str, attributes: tuple[str, ...]
    ) -> Iterator[tuple[RangeFile, Sequence[str]]]:
        """Files of rows, in the plan's order, without the file that says that a judge has judged them; and others."""
        for index in sorted(files["generations"]):
            there = [file.name for file in files["judgments"].get(index, ())]
            for file in files["generations"][index]:
                if judgments_name(file.name, label, attributes) not in there:
                    yield file, [name for name in there if _of_rows(name) == file.name]

    def pieces(self) -> Iterator[dict[str, pa.Table]]:
        files = self._looked_at()
        for index in sorted({*files["generations"], *files["rejected"]}):
            yield self._of_range(files, index).arranged(partial(self._order, index))

    def ranges(self) -> Iterator[RangeOfRows]:
        """The files of :meth:`pieces`, for workers that read them; :meth:`were_read` is told of that."""
        files = self._looked_at()
        for index in sorted({*files["generations"], *files["rejected"]}):
            yield self._range(files, index)

    def were_read(self, damaged: Collection[int], lost: Collection[str], generated: int, n_tokens: int) -> None:
        """What workers have found of :meth:`ranges`.

        Args:
            damaged: those that have less than their files' names say. lost: files that were set aside.
            generated, n_tokens: new rows.
        """
        self._take_in(damaged, lost)
        self._generated, self._tokens = generated, n_tokens

    def _looked_at(self) -> Files:
        """What there is now, whose rows are about to be read and counted."""
        self.is_damaged, self._generated, self._tokens = False, 0, 0
        return self._files()

    def _range(self, files: Files, index: int) -> RangeOfRows:
        mine = {name: files[name].get(index, []) for name in FOLDERS}
        rows, dead, before = mine["generations"], mine["rejected"], self._before or {}
        n = sum(file.n for file in (*rows, *dead))
        named = {table: [file.name for file in some] for table, some in mine.items()}
        known = {
            table: {name: self._known[table][name] for name in some if name in self._known[table]}
            for table, some in named.items()
        }
        whole = n if _is_whole(rows, dead, len(self._ranges.places(index))) else 0
        return RangeOfRows(index, n, whole, named, [file.name for file in rows if file.name not in before], known)

    def _of_range(self, files: Files, index: int) -> ReadRange:
        """What there is of a range; notes what this run has added, and whether it is less than the names say."""
        read = read_range(self._work, self._range(files, index))
        self._generated += read.n_new
        self._tokens += read.new_tokens
        self._take_in([index] if read.is_damaged else [], read.lost)
        return read

    def _take_in(self, damaged: Collection[int], lost: Collection[str]) -> None:
        self._in_doubt.update(damaged)
        self.is_damaged |= bool(damaged)
        for name in lost:
            (self._before or {}).pop(name, None)  # what is made again bears its name

    def _order(self, index: int) -> dict[str, int]:
        """The places of a range's cells, by row id."""
        return {cell.row_id: i for i, cell in enumerate(self._cells.at(self._ranges.places(index)))}

    def written(self) -> Written:
        return Written(sum((self._before or {}).values()), self._generated, self._tokens)

    def _files(self) -> Files:
        """What there is, by range; judgments of files of rows that are gone are set aside."""
        found: Files = {name: {} for name in FOLDERS}
        rows: set[str] = set()
        for name in FOLDERS:
            folder = self._work / name
            known = self._known[name] = manifest_of(folder)
            for file, size in listing(folder, ".parquet").items():
                what, entry = parsed(file), known.get(file)
                index = None if what is None else self._ranges.index_of(what)
                if what is None or index is None:
                    continue
                if entry is not None and entry["bytes"] != size:
                    set_aside(folder / file, f"has {size} bytes that are not the {entry['bytes']} written")
                elif name == "judgments" and what.name not in rows:
                    move(folder / file, free_name((folder / file).with_suffix(".stale")))
                else:
                    each = what if name != "judgments" else RangeFile(what.plan, what.index, what.n, file)
                    found[name].setdefault(index, []).append(each)
                    rows.update([file] if name == "generations" else [])
        return found

    def _read(self, table: str, files: Sequence[RangeFile]) -> list[pa.Table]:
        """Some files; of one that is not as it was written nothing."""
        found = []
        for file in files:
            read = sound_table(self._work / table / file.name, table, self._known[table].get(file.name))
            if read is None:
                self.is_damaged = True
                self._take_in([], [file.name])
            found.append(TABLES[table].empty_table() if read is None else read)
        return found


class _Some(Sequence[PlannedCell]):
    """Cells at some places, which are given as runs of neighbours."""

    def __init__(self, cells: PlannedCells, runs: Sequence[tuple[int, int]]) -> None:
        self._cells, self._runs = cells, runs
        self._ends = list(accumulate(last - first + 1 for first, last in runs))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, i: int) -> PlannedCell: ...
    @overload
    def __getitem__(self, i: slice) -> list[PlannedCell]: ...
    def __getitem__(self, i: int | slice) -> PlannedCell | list[PlannedCell]:
        if isinstance(i, slice):
            return [self[each] for each in range(*i.indices(len(self)))]
        which = range(len(self))[i]
        run = bisect_right(self._ends, which)
        return self._cells[self._runs[run][1] - (self._ends[run] - 1 - which)]


def _of_rows(judgments: str) -> str | None:
    """Name of the file of rows that a file of judgments is of."""
    found = parsed(judgments)
    return None if found is None else found.name


def _runs_of(places: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Places that ascend, as runs of neighbours: of most ranges there is one, which is seen without a look at each."""
    is_one = places[-1] - places[0] + 1 == len(places)
    return ((places[0], places[-1]),) if is_one else tuple(runs_of(places))


def _is_whole(rows: Sequence[RangeFile], dead: Sequence[RangeFile], n: int) -> bool:
    """Whether a range is there, by the names of its files; where several may share rows, nobody can tell by these."""
    return max(len(rows), len(dead)) <= 1 and sum(file.n for file in (*rows, *dead)) == n
