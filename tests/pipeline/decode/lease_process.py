"""A process that wants a device for each of its tasks, without torch: ``python lease_process.py FOLDER DEVICES TASKS``.

Lines ``load DEVICE PID``, ``begin DEVICE PID`` and ``end DEVICE PID`` go to ``FOLDER/log``; it ends when stdin does, as
Beam's worker processes outlive their own work.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from pipeline.decode.leases import Leases
from pipeline.decode.per_device import PerDevice


class Loaded:
    """Stands for a model bank: says when it is loaded and used."""

    def __init__(self, folder: Path, unit: tuple[str, ...], seconds: float) -> None:
        self._log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._name, self._seconds = "+".join(unit), seconds
        self._say("load")

    def _say(self, what: str) -> None:
        os.write(self._log, f"{what} {self._name} {os.getpid()}\n".encode())

    def __call__(self, task: int) -> int:
        self._say("begin")
        time.sleep(self._seconds)
        self._say("end")
        if task < 0:
            raise ValueError(f"task {task}")
        return task * task

    def close(self) -> None:
        self._say("close")


def main() -> None:
    """Do the tasks, say what came of them, wait for the end."""
    folder, n_devices, tasks = Path(sys.argv[1]), int(sys.argv[2]), [int(each) for each in sys.argv[3].split(",")]
    tag, seconds, idle_s = sys.argv[4], float(sys.argv[5]), float(sys.argv[6])
    units = [(f"device-{i}",) for i in range(n_devices)]
    do = PerDevice[int, int](
        lambda unit: Loaded(folder, unit, seconds), units, tag=tag, leases=Leases(folder / "leases"), idle_s=idle_s
    )
    for task in tasks:
        try:
            print(do(task), flush=True)
        except ValueError as error:
            print(f"{error}; {str(error.__cause__).count('raise ValueError')}", flush=True)
    assert "torch" not in sys.modules
    sys.stdin.read()


if __name__ == "__main__":
    main()
