"""As many banks as devices, whatever the number of processes; nobody waits for the dead. Real processes, real locks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.decode.leases import FOLDER_VARIABLE, LeaseError, Leases, lease_folder
from pipeline.decode.per_device import PerDevice, whole

PROCESS = Path(__file__).with_name("lease_process.py")
ROOT = PROCESS.parents[3]
PATIENCE_S = 120.0


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name, whatever pytest's own folders are called."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def leases(short: Path) -> Leases:
    return Leases(short)


class Workers:
    """Processes that share a machine's devices."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, list[subprocess.Popen[str]]()

    def start(self, devices: int, tasks: str, *, tag: str = "a", seconds: float = 0.01, idle_s: float = 60.0) -> None:
        arguments = [str(self.folder), str(devices), tasks, tag, str(seconds), str(idle_s)]
        # Of each process its own folder for temporary files, as Beam's worker pools may have.
        own = self.folder / f"tmp-{len(self.processes)}"
        own.mkdir()
        environment = os.environ | {"TMPDIR": str(own), "HOME": str(own), "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        self.processes.append(
            subprocess.Popen(
                [sys.executable, str(PROCESS), *arguments], stdin=pipe, stdout=pipe, text=True, env=environment
            )
        )

    def lines(self, process: int, n: int) -> list[str]:
        """The next lines that a process says."""
        out = self.processes[process].stdout
        assert out is not None
        return [out.readline().strip() for _ in range(n)]

    def log(self) -> list[list[str]]:
        path = self.folder / "log"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for(self, what: str, n: int = 1) -> list[list[str]]:
        """The log's lines of a kind, as soon as there are so many."""
        deadline = time.monotonic() + PATIENCE_S
        while len(found := [line for line in self.log() if line[0] == what]) < n:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)
        return found


@contextmanager
def workers(folder: Path) -> Iterator[Workers]:
    found = Workers(folder)
    try:
        yield found
    finally:
        for each in found.processes:
            each.kill()
            each.communicate()


def most_at_once(log: list[list[str]]) -> dict[str, int]:
    """The most tasks that a device had at a time."""
    now, most = Counter[str](), Counter[str]()
    for what, device, _ in log:
        now[device] += (what == "begin") - (what == "end")
        most[device] = max(most[device], now[device])
    return dict(most)


def test_sixty_four_processes_load_eight_banks(short: Path) -> None:
    with workers(short) as found:
        for i in range(64):
            found.start(8, f"{i},{i + 1}", seconds=0.1)
        for i in range(64):
            assert found.lines(i, 2) == [str(i * i), str((i + 1) ** 2)]
        log = found.log()
    loads = [(device, pid) for what, device, pid in log if what == "load"]
    assert len(loads) == 8 == len({device for device, _ in loads})
    assert most_at_once(log) == {f"device-{i}": 1 for i in range(8)}
    done = Counter(device for what, device, _ in log if what == "end")
    assert done.total() == 128 and min(done.values()) >= 8  # 16 each, were they dealt out evenly


def test_who_is_killed_holds_nothing_up(short: Path) -> None:
    with workers(short) as found:
        found.start(1, "2,3,4,5", seconds=0.3)
        ((_, _, holder),) = found.wait_for("load")
        assert int(holder) == found.processes[0].pid
        found.start(1, "6", seconds=0.3)
        found.wait_for("begin", 2)  # the second process's task, or its own next one: with the holder either way
        os.kill(int(holder), signal.SIGKILL)
        assert found.lines(1, 1) == ["36"]
        loads = found.wait_for("load", 2)
    assert [int(pid) for _, _, pid in loads] == [each.pid for each in found.processes]


def test_an_asker_that_is_killed_leaves_the_device_to_others(short: Path) -> None:
    with workers(short) as found:
        found.start(1, "2", seconds=1.0)
        assert found.lines(0, 1) == ["4"]
        found.start(1, "3", seconds=1.0)
        found.wait_for("begin", 2)
        found.processes[1].kill()
        found.start(1, "5", seconds=1.0)
        assert found.lines(2, 1) == ["25"]
        log = found.log()
    assert most_at_once(log) == {"device-0": 1} and len([1 for what, *_ in log if what == "load"]) == 1


def test_an_error_reaches_who_asked_and_the_bank_stays(short: Path) -> None:
    with workers(short) as found:
        found.start(1, "2")
        assert found.lines(0, 1) == ["4"]
        found.start(1, "-1,3")
        assert found.lines(1, 2) == ["task -1; 1", "9"]  # with the traceback of where it was raised
        assert len([1 for what, *_ in found.log() if what == "load"]) == 1


def test_a_bank_that_nobody_uses_makes_room_for_another_run(short: Path) -> None:
    with workers(short) as found:
        found.start(2, "2,3,4", tag="a", idle_s=0.2)
        assert found.lines(0, 3) == ["4", "9", "16"]
        for _ in range(4):
            found.start(2, "5,6", tag="b", seconds=0.4)  # longer than a's is idle: one device is too few
        for i in range(4):
            assert found.lines(1 + i, 2) == ["25", "36"]
        log = found.log()
    counts = Counter(what for what, *_ in log)
    assert counts["close"] == 1 and counts["load"] == 3  # a's on one device; b's on both
    assert set(most_at_once(log).values()) == {1}


def test_a_bank_in_use_by_another_run_stays(short: Path) -> None:
    with workers(short) as found:
        found.start(1, ",".join("234567"), tag="a", seconds=0.2, idle_s=5.0)
        found.wait_for("begin")
        found.start(1, "5", tag="b", seconds=0.2, idle_s=5.0)
        assert found.lines(0, 6)[-1] == "49"
        assert [what for what, *_ in found.log()].count("load") == 1


class Own:
    """A worker of this process."""

    def __init__(self, made: list[tuple[str, ...]], unit: tuple[str, ...]) -> None:
        self._made, self._unit = made, unit
        made.append(unit)

    def __call__(self, task: int) -> int:
        if task == 0:
            raise OSError("no space left")  # of the task, not of the way to it
        return task + 1

    def close(self) -> None:
        self._made.remove(self._unit)


def test_threads_of_a_process_use_all_devices_and_another_run_in_it_takes_them_over(leases: Leases) -> None:
    made: list[tuple[str, ...]] = []
    units, both = [("t0",), ("t1",)], [("t0", "t1")]
    gate = threading.Barrier(2, timeout=PATIENCE_S)

    class Meeting(Own):
        def __call__(self, task: int) -> int:
            gate.wait()  # opens only if two tasks run at a time
            return task

    do = PerDevice[int, int](lambda unit: Meeting(made, unit), units, tag="meet", leases=leases)
    threads = [threading.Thread(target=do, args=(i,)) for i in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE_S)
    assert sorted(made) == units
    other = PerDevice[int, int](lambda unit: Own(made, unit), both, tag="other", leases=leases)
    assert other(3) == 4 and made == both
    with pytest.raises(OSError, match="no space"):
        other(0)
    unit, turn, lease = whole(units, leases)
    assert made == [] and unit in units
    for held in (turn, lease):
        held.release()


def test_a_model_that_can_not_be_loaded_leaves_its_device_free(leases: Leases) -> None:
    def make(unit: tuple[str, ...]) -> Own:
        raise RuntimeError("damaged")

    with pytest.raises(RuntimeError, match="damaged"):
        PerDevice[int, int](make, [("x",)], tag="a", leases=leases)(1)
    made: list[tuple[str, ...]] = []
    assert PerDevice[int, int](lambda unit: Own(made, unit), [("x",)], tag="b", leases=leases)(1) == 2
    whole([("x",)], leases)


def test_a_stop_ends_the_waiting(leases: Leases) -> None:
    _, *held = whole([("y",)], leases)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    assert PerDevice[int, int](lambda unit: Own([], unit), [("y",)], tag="a", leases=leases, stop=stop)(1) is None
    assert len(held) == 2


def test_a_lease_does_not_live_on_in_a_child(leases: Leases) -> None:
    turn = leases.turn(("z",))
    assert turn is not None and leases.turn(("z",)) is None
    is_there, here = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(here, b".")
        time.sleep(PATIENCE_S)
        os._exit(0)
    assert os.read(is_there, 1) == b"."
    turn.release()
    again = leases.turn(("z",))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert again is not None


def test_the_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    usual = lease_folder()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lease_folder() == usual and str(os.getuid()) in usual.name
    open_to_all = tmp_path / "all"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    monkeypatch.setenv(FOLDER_VARIABLE, str(open_to_all))
    for name, why in ((open_to_all, "you alone"), (tmp_path / ("x" * 99), "longer"), (PROCESS / "a", "ot a directory")):
        with pytest.raises(LeaseError, match=why) as caught:
            Leases(name)
        assert FOLDER_VARIABLE in str(caught.value) and "\n" not in str(caught.value)
