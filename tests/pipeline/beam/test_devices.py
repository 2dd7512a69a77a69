"""A run on a machine of several devices: as many banks as devices, each in the record, and the same data set."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpg import ModelBank
from pipeline.decode.bank import ProcessBank
from pipeline.decode.devices import SIMULATED_VARIABLE, Device, devices_here, named, units_of
from pipeline.decode.leases import FOLDER_VARIABLE, Leases
from pipeline.decode.per_device import whole
from pipeline.job.load import load_job
from pipeline.plan.plan import Plan
from pipeline.run.run import run_job
from tests.tiny_job import checksums

LOADED = "MPG_TEST_LOADED"


def noted_load(*args: Any, **kwargs: Any) -> ModelBank:
    """Loads, and says so."""
    with open(os.environ[LOADED], "a") as log:
        log.write(f"{os.getpid()}\n")
    return ModelBank.load(*args, **kwargs)


@pytest.fixture
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two simulated devices; what this process has loaded on them goes again."""
    monkeypatch.setenv(LOADED, str(tmp_path / "loaded"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "l"))
    monkeypatch.setenv(SIMULATED_VARIABLE, "2")
    yield tmp_path / "loaded"
    leases = Leases()
    for device in devices_here():
        _, turn, lease = whole([(device.name,)], leases)
        turn.release()
        lease.release()


TWO = ("--direct_num_workers=3", "--direct_running_mode=multi_processing")


@pytest.mark.long
@pytest.mark.parametrize(("beam", "most"), [((), 1), (TWO, 2)])
def test_a_run_loads_a_bank_a_device(
    job_file: Path, loads: Path, monkeypatch: pytest.MonkeyPatch, beam: tuple[str, ...], most: int
) -> None:
    changes = ["judges=[]", "threads=1"]
    run_job(load_job(job_file, changes), beam, load=noted_load)
    out = load_job(job_file).output_folder
    assert 1 <= len(loads.read_text().splitlines()) <= most
    machines = json.loads((out / "run.json").read_text())["computed_with"]["machines"]
    assert [machine["dtype"] for machine in machines] == ["float32"] * len(machines)
    found = {device["name"]: device for machine in machines for device in machine["devices"]}
    assert set(found) <= {"simulated 0", "simulated 1"} and len(found) == len(loads.read_text().splitlines())
    assert all(name.endswith(str(device["index"])) and device["memory"] == 0 for name, device in found.items())
    monkeypatch.delenv(SIMULATED_VARIABLE)
    run_job(load_job(job_file, [*changes, f"output={job_file.parent / 'plain'}"]))
    assert (
        checksums(out)["data/train-00000-of-00001.parquet"]
        == (checksums(job_file.parent / "plain")["data/train-00000-of-00001.parquet"])
    )


def test_a_command_has_a_device_for_itself_and_shares_it_with_its_own(job_file: Path, loads: Path) -> None:
    sources, leases = Plan.of(load_job(job_file)).sources, Leases()
    units = [named([device]) for device in devices_here()]

    def free() -> int:
        held = [turn for unit in units if (turn := leases.turn(unit)) is not None]
        for each in held:
            each.release()
        return len(held)

    first, second = (ProcessBank(sources, threads=1, load=noted_load) for _ in range(2))
    assert free() == 1 and first.on == second.on
    del first
    assert free() == 1
    del second
    assert free() == 2


def device(name: str, memory: int) -> Device:
    return Device(name, "cuda", 0, "card", memory)


def test_a_bank_takes_as_few_devices_as_hold_its_weights() -> None:
    five = [device(name, 100) for name in "edcba"]
    assert [named(unit) for unit in units_of(five, 80)] == [("a",), ("b",), ("c",), ("d",), ("e",)]
    assert [named(unit) for unit in units_of(five, 81)] == [("a", "b"), ("c", "d")]
    assert [named(unit) for unit in units_of(five, 450)] == [("a", "b", "c", "d", "e")]
    assert [named(unit) for unit in units_of(five[:1], 95)] == [("e",)]
    with pytest.raises(ValueError, match=r"model.id: the weights take .* take a smaller model"):
        units_of(five, 501)
