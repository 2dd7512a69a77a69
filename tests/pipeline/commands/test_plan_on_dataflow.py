"""``mpg plan --runner dataflow``: hours and money of workers, at prices that are given."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands.dataflow_options import _vcpus_of
from pipeline.run.dataflow_cost import Machine, bill
from pipeline.run.estimate import Estimate, Forecast

NOTHING = Estimate(0.0, 0.0, 0.0)
HOUR = Forecast("x", 1, 0, 0, 1, 4, NOTHING, 1.0, Estimate(3600.0, 1800.0, 7200.0), NOTHING, 0, NOTHING, NOTHING)
TWO = Machine("g2-standard-8", 8, 32.0, 2, 100.0, 2)
PRICES = {"vcpu-hour": 0.5, "gb-hour": 0.25, "accelerator-hour": 3.0, "disk-gb-hour": 0.01}


def test_a_bill_is_hours_of_workers_times_what_each_has() -> None:
    """2 workers for one hour (half, two) at 8 x 0.5 + 32 x 0.25 + 2 x 3 + 100 x 0.01 = 19 an hour."""
    found = bill(HOUR, TWO, PRICES)
    assert TWO.devices == 4 and found.rate == pytest.approx(19.0)
    assert found.hours == Estimate(2.0, 1.0, 4.0)
    assert found.cost == Estimate(pytest.approx(38.0), pytest.approx(19.0), pytest.approx(76.0))
    late = bill(HOUR, replace(TWO, startup_h=(0.1, 0.3)), PRICES)
    assert (late.hours.value, late.hours.low, late.hours.high) == (
        pytest.approx(2.4),
        pytest.approx(1.2),
        pytest.approx(4.6),
    )


def test_what_has_no_price_costs_nothing_and_is_named() -> None:
    some = {"vcpu-hour": 0.5}
    assert bill(HOUR, TWO, some).rate == 4.0
    assert TWO.unpriced(some) == ["gb-hour", "accelerator-hour", "disk-gb-hour"]
    assert Machine("n2-standard-8", 8, 32.0, 0, 0.0, 2).devices == 2


@pytest.mark.parametrize(
    ("machine", "n"),
    [
        ("g2-standard-8", 8),
        ("c3-standard-4-lssd", 4),
        ("n1-custom-4-1024", 4),
        ("custom-6-3072", 6),
        ("e2-custom-4-8192", 4),
        ("n2-custom-8-131072-ext", 8),
        ("n1-custom-0-1024", None),
        ("n2-custom-8192", None),
        ("e2-custom-medium-4096", None),
        ("n2-standard-0", None),
        ("f1-micro", None),
    ],
)
def test_a_machine_types_name_says_its_vcpus(machine: str, n: int | None) -> None:
    """The last number of a custom type is its memory."""
    assert _vcpus_of(machine) == n


WORKERS = ["--runner", "dataflow", "--machine", "g2-standard-8", "--memory-gb", "32", "--workers", "2"]
GPU = ["--accelerators", "1", "--price", "accelerator-hour=0.7"]
BASE = ["--price", "vcpu-hour=0.05", "--price", "gb-hour=0.005"]


def test_a_plan_prints_what_dataflow_comes_to(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*WORKERS, *GPU, *BASE, "--tokens-per-s", "0.01", "--startup-min", "6", "12"]
    assert main(["plan", str(job_file), *given, "--json"]) == 0
    said = capsys.readouterr()
    printed, found = said.err, json.loads(said.out)["on_dataflow"]
    assert "on Dataflow   2 x g2-standard-8 (8 vCPUs, 32 GB, 1 GPU), 1.26 each an hour, 0 tokens/s a device" in printed
    plan = json.loads((job_file.parent / "out" / ".work" / "plan.json").read_text())
    assert plan["workers"] == 2 and plan["tokens_per_s"] == 0.01
    assert plan["seconds"]["value"] > plan["tokens"]["value"] / 0.01 / 2  # judging and loading come to it
    hours = {name: 2 * (plan["seconds"][name] / 3600 + start) for name, start in
             (("value", 0.15), ("low", 0.1), ("high", 0.2))}  # fmt: skip
    figures = re.search(
        r"their cost    ([\d.]+) \(([\d.]+) to ([\d.]+)\), in the currency of the prices given$", printed, re.M
    )
    assert figures is not None
    for printed_cost, name in zip(figures.groups(), ("value", "low", "high"), strict=True):
        assert float(printed_cost) == pytest.approx(1.26 * hours[name], rel=1e-3)
        assert found["cost"][name] == pytest.approx(1.26 * hours[name])
    assert found["machine"]["name"] == "g2-standard-8" and found["rate"] == pytest.approx(1.26)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--machine", "g2-standard-8"], "--machine: has an effect with --runner dataflow alone"),
        (["--price", "gb-hour=1"], "--price: has an effect with --runner dataflow alone"),
        (["--runner", "dataflow", "--memory-gb", "4"], "--machine: is missing"),
        (
            ["--runner", "dataflow", "--machine", "a2-highgpu-1g"],
            "--vcpus: a2-highgpu-1g does not say how many; add --vcpus N",
        ),
        (["--runner", "dataflow", "--machine", "n2-standard-0"], "--vcpus: n2-standard-0 does not say how many; add"),
        (["--runner", "dataflow", "--machine", "n2-standard-8"], "--memory-gb: is missing"),
        ([*WORKERS, "--price", "vcpu=1"], "--price vcpu=1: write WHAT=PRICE, with one of vcpu-hour, gb-hour"),
        (
            [*WORKERS, "--price", "vcpu-hour=free"],
            "--price vcpu-hour=free: 'free' is no price; give a number, 0 or more",
        ),
        ([*WORKERS, *BASE, "--price", "gb-hour=1"], "--price gb-hour=1: gb-hour is given twice"),
        ([*WORKERS, *BASE, "--accelerators", "1"], "--price: none is given for accelerator-hour; add --price accel"),
        ([*WORKERS, *BASE, "--tokens-per-s", "0"], "--tokens-per-s: 0 is out of range; give more than 0"),
        ([*WORKERS, *BASE, "--startup-min", "9", "3"], "--startup-min: 9 3 is no range"),
        ([*WORKERS, *BASE, "--no-pilot"], "--no-pilot: what it costs is told of a pilot; leave --no-pilot out"),
        ([*WORKERS, *BASE, "--vcpus", "0"], "--vcpus: 0 is out of range; give 1 or more"),
    ],
)
def test_a_mistake_in_a_worker_or_a_price_is_a_line(
    given: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "nowhere.yaml", *given]) == 2
    assert f"mpg: {words}" in capsys.readouterr().err
