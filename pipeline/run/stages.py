"""A run in two stages, each a command that can be given again by itself: one decodes, another judges.

The first leaves rows in the work folder; the second has the job's judges look at them and makes the data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from pipeline.beam.work import Work
from pipeline.exit_status import ExitStatus
from pipeline.plan.errors import RunError
from pipeline.run.coming import Coming
from pipeline.run.judges import RunJudges
from pipeline.run.rows import Rows
from pipeline.run.run import Run
from pipeline.store.dataset import TRANSIENT, done_ids
from pipeline.store.files import remove_tree
from pipeline.store.shards import read_shards


class Decoding(Run):
    """Every cell that can be decoded is; no judge is loaded, and a data set that is there stays as it is."""

    def with_judges(self) -> RunJudges:
        return RunJudges(self.job.changed(judges=[]), self.work)

    def keep(self, coming: Coming, run: dict[str, Any]) -> None:
        """All rows were read and are whole; they go into the data set with what judges will say of them."""
        remove_tree(coming.folder)


class Judging(Run):
    """What is decoded is judged, and made a data set. Nothing is decoded: rows that are lacking are an error."""

    decodes = False

    def left_of(self, rows: Rows) -> tuple[Work, int]:
        """Raises RunError: some rows are not decoded."""
        work, n_dead = super().left_of(rows)
        if work.shards is None:
            return work, n_dead
        lacking = work.n_cells - self._n_to_try_again()
        if lacking > 0:
            raise RunError(
                f"{lacking} of {rows.n} rows are not decoded; give mpg run --only decode first (or again)",
                ExitStatus.BAD_INPUT,
            )
        return replace(work, shards=None), n_dead

    def _n_to_try_again(self) -> int:
        """Dead letters that another run may decode; as of any run, the data set does not wait for them."""
        dead = read_shards(self.work / "rejected", "rejected", ["row_id", "reason"]).to_pylist()
        return len({row["row_id"] for row in dead if row["reason"] in TRANSIENT} - done_ids(self.work))


# What `mpg run --only` takes -> the run that it is.
STAGES: Mapping[str | None, type[Run]] = MappingProxyType({None: Run, "decode": Decoding, "judge": Judging})
