"""A plan on storage: whoever reads it makes the very cells that the driver planned."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from personas import Grid, Message, Persona, Prompt, control
from pipeline.beam.to_do import keep_shards, runs_of, shards_in
from pipeline.job.load import load_job
from pipeline.plan import stored
from pipeline.plan.plan import Plan
from pipeline.plan.stored import store_plan
from pipeline.store.files import files_below
from tests.tiny_job import make_job

PERSONAS = (
    control(),
    Persona("é", {"J": 0.1 + 0.2, "E": 0.7}, {"E": 1 / 3}, profile="a\nb", personality="\ud800 half"),
    Persona("both", {"E": 0.5, "J": 0.5}),
)
PROMPTS = tuple(
    Prompt(f"p{i}", (Message("system", "s\u2028"), Message("user", text)))
    for i, text in enumerate(["", "half \udc00", "tab\t", "same", "same", "<|im_end|>", "x" * 10_000])
)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan.of(load_job(make_job(tmp_path)))


@pytest.mark.parametrize("group", [2, 1024])
def test_a_worker_makes_the_cells_that_were_planned(
    plan: Plan, tmp_path: Path, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_GROUP", group)
    grid = Grid(PROMPTS, PERSONAS, 3)
    cells = plan.cells(grid)
    assert len(cells) == 6 * 3 * 3  # two prompts say the same
    kept = store_plan(tmp_path / ".work", plan.rule, grid)
    (read := kept.grid())[0]
    assert len(read) == len(grid) and read[5:9] == grid[5:9] and read[-1] == grid[-1]
    shuffled = random.Random(0).sample(cells, len(cells))
    for some in (cells, cells[7:8], sorted(shuffled[:20], key=lambda cell: cell.place)):
        made = kept.cells(read, [cell.place for cell in some], plan.tokenizer)
        assert made == some and [cell.place for cell in made] == [cell.place for cell in some]


def test_a_plan_is_written_once_and_another_takes_its_place(plan: Plan, tmp_path: Path) -> None:
    work = tmp_path / ".work"
    first = store_plan(work, plan.rule, Grid(PROMPTS, PERSONAS))
    files = [Path(first.folder) / name for name in ("prompts.parquet", "personas.parquet", "whole")]
    before = [path.stat().st_mtime_ns for path in files]
    assert store_plan(work, plan.rule, Grid(PROMPTS, PERSONAS)) == first
    assert [path.stat().st_mtime_ns for path in files] == before
    files[-1].unlink()  # killed before it was whole
    files[0].write_bytes(b"half")
    assert len(store_plan(work, plan.rule, Grid(PROMPTS, PERSONAS)).grid()) == 7 * 3
    other = store_plan(work, plan.rule, Grid(PROMPTS[::-1], PERSONAS))
    assert other.folder != first.folder and len(files_below(work / "plan")) == 3


def test_what_is_left_is_noted_as_runs_of_places(plan: Plan, tmp_path: Path) -> None:
    cells = plan.cells(Grid(PROMPTS[:2], PERSONAS, 4))
    shards = [cells[:5], [cells[i] for i in (5, 6, 9, 11, 12, 13)], cells[20:]]
    left = keep_shards(tmp_path, shards)
    assert left is not None and left.n == 5 + 6 + 4
    found = list(shards_in(left.path))
    assert [places.all() for places in found] == [[cell.place for cell in shard] for shard in shards]
    assert found[1].runs == ((5, 6), (9, 9), (11, 13)) and found[1].first_id == cells[5].row_id
    assert keep_shards(tmp_path, []) is None and runs_of([]) == []


def test_prompts_and_personas_lose_nothing_on_the_way() -> None:
    for prompt in PROMPTS:
        assert stored._prompt_of(json.loads(stored._of_prompt(prompt))) == prompt
    for persona in PERSONAS:
        read = stored._persona_of(json.loads(stored._of_persona(persona)))
        assert read == persona and list(read.weights.items()) == list(persona.weights.items())
        assert replace(read, name="") == replace(persona, name="")
