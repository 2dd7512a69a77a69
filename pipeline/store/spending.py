"""What a data set has cost so far, run by run: a budget counts all of it.

Every command that spends keeps a file of its own in ``.work/spent``, written anew while it runs, so that one that is
killed counts up to its last words.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.store.files import listing, make_folder, read_text, write_bytes

FOLDER = "spent"  # in the work folder
# How often a command writes down what it has spent, in seconds: what a killed one may leave out.
_NOTE_EVERY_S = 2.0


@dataclass(frozen=True)
class Spent:
    """In the currency of the job's prices.

    Attributes:
        devices: wall time of workers.
        judges: calls to endpoints, by the judge's name.
    """

    devices: float = 0.0
    judges: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Of devices and judges."""
        return self.devices + sum(self.judges.values())

    def plus(self, other: Spent) -> Spent:
        names = dict.fromkeys((*self.judges, *other.judges))
        judges = {name: self.judges.get(name, 0.0) + other.judges.get(name, 0.0) for name in names}
        return Spent(self.devices + other.devices, judges)


class Spending:
    """Of one command on a data set.

    Args:
        work: the work folder.

    Attributes:
        earlier: what other commands have spent, when this one began.
    """

    def __init__(self, work: Path) -> None:
        self.earlier = Spent()
        for each in _all(work / FOLDER):
            self.earlier = self.earlier.plus(each)
        self._noted = 0.0
        self._work, self._name = work, f"{time.time_ns()}-{os.getpid()}"

    def note_now_and_then(self, now: Spent) -> None:
        """The same as :meth:`note`, every few seconds."""
        if time.monotonic() - self._noted >= _NOTE_EVERY_S:
            self.note(now)

    def note(self, now: Spent) -> None:
        """Keep what this command has spent so far; nothing for nothing. Raises OSError."""
        self._noted = time.monotonic()
        note_spent(self._work, self._name, now)


def note_spent(work: Path, name: str, spent: Spent) -> None:
    """Keep what somebody of a name of its own has spent so far; nothing for nothing. Raises OSError."""
    if spent.total > 0:
        make_folder(work / FOLDER)
        content = json.dumps({"devices": spent.devices, "judges": dict(spent.judges)}).encode()
        write_bytes(content, work / FOLDER / f"{name}.json")


def _all(folder: Path) -> Iterator[Spent]:
    for name in listing(folder, ".json"):
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            found = json.loads(read_text(folder / name))
            yield Spent(float(found["devices"]), {str(name): float(cost) for name, cost in found["judges"].items()})
