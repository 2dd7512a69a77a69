"""A progress bar over rows that several processes finish.

Every worker process appends one byte a row to a file of its own; the driver adds up the sizes. It
needs no queue, survives a worker's death and costs one small write a row. Of workers on other machines
Beam's counters tell, shard by shard.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType

from tqdm import tqdm


class Ticker:
    """A worker's side: one tick a row. A disk that takes none ends the run where rows are written, not here."""

    def __init__(self, folder: Path) -> None:
        self._file: FileIO | None = None
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = FileIO(folder / f"{os.getpid()}-{threading.get_ident()}", "ab")

    def tick(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.write(b".")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def ticks(folder: Path) -> int:
    """All ticks in a folder."""
    n = 0
    for file in folder.glob("*"):
        with suppress(OSError):  # it may be emptied while it is looked at
            n += file.stat().st_size
    return n


class ProgressBar:
    """The driver's side: rows done, rows/s, time left, on stderr while the body runs.

    On a terminal the bar moves twice a second; in a log file it is a line every ten seconds or more.

    Args:
        folder: the tickers' files stand in sub-folders of it, one a phase; emptied first.
        phases: (sub-folder, label, rows) of each phase, in order; the next one's bar follows when a
            phase is complete.
    """

    def __init__(self, folder: Path, phases: Sequence[tuple[str, str, int]]) -> None:
        self._folder, self._phases = folder, [phase for phase in phases if phase[2] > 0]
        self._counted: dict[str, int] = {}
        self._interactive = sys.stderr.isatty()
        tqdm.monitor_interval = 0  # its watchdog would repeat lines in a log file
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def seen(self, counts: Mapping[str, int]) -> None:
        """What Beam has counted so far, see :mod:`pipeline.beam.metrics`."""
        self._counted = {"decode": counts.get("rows", 0) + counts.get("rejected", 0), "judge": counts.get("judged", 0)}

    def _watch(self) -> None:
        for name, label, total in self._phases:
            bar = tqdm(
                total=total,
                desc=label,
                file=sys.stderr,
                dynamic_ncols=self._interactive,
                mininterval=0.2 if self._interactive else 10.0,
                bar_format="{desc}: {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} rows, "
                "{rate_noinv_fmt}, {elapsed} gone, {remaining} left" + ("" if self._interactive else "\n"),
                unit="row",
            )
            stopped = False
            while bar.n < total and not stopped:
                stopped = self._stop.wait(0.5)
                done = max(ticks(self._folder / name), self._counted.get(name, 0))
                step = min(done, total) - bar.n
                if step:
                    bar.update(step)
            bar.close()
            if stopped and bar.n < total:
                return

    def __enter__(self) -> ProgressBar:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)
