"""Which prompts each stage may use, who stands for the bare reference, and greedy arms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.compare.arms import Curve, Point, Stage, job_of
from pipeline.compare.load import load_comparison
from pipeline.compare.tasks import tasks_of
from pipeline.plan.errors import RunError
from tests.tiny_comparison import comparison_data, make_comparison
from tests.tiny_job import write_prompts

TASK: dict[str, Any] = comparison_data()["tasks"][0]


def loaded(folder: Path, tasks: list[dict[str, Any]], **changes: Any) -> Any:
    return load_comparison(make_comparison(folder, tasks=tasks, **changes))


def test_the_final_uses_no_prompt_that_the_screening_of_any_task_may_use(tmp_path: Path) -> None:
    """Eight prompts: half of them screen; a task of the final alone, of six of these, has what comes after."""
    screening = TASK | {"stage": "screening"}
    other = TASK | {"name": "other", "stage": "final", "prompts": {"file": "prompts.jsonl", "limit": 6}}
    found = tasks_of(loaded(tmp_path, [screening, other]))
    assert (found["both"].n_screening, found["other"].skip, found["other"].n_final) == (8 // 2, 4, 2)
    (tmp_path / "others").mkdir()
    write_prompts(tmp_path / "others", ("a new one", "and another", "the third"))
    free = other | {"prompts": {"file": "others/prompts.jsonl"}}  # the same ids, other words
    found = tasks_of(loaded(tmp_path, [screening, free]))
    assert (found["other"].skip, found["other"].n_final) == (0, 3)
    short = other | {"prompts": {"file": "prompts.jsonl", "limit": 5}}
    with pytest.raises(RunError, match=r"tasks\[1\]\.prompts: 5, of which 1 come after all that the screening may use"):
        tasks_of(loaded(tmp_path, [screening, short]))


def test_who_is_told_something_is_not_the_bare_reference(tmp_path: Path) -> None:
    methods = [
        {"name": "told", "decoder": {"name": "reference"}, "system": "Be kind."},
        {"name": "cold", "decoder": {"name": "reference", "temperature": 0.3}},
        {"name": "bare", "decoder": {"name": "reference"}, "baseline": True},
    ]
    comparison = loaded(tmp_path, [TASK], methods=methods, final={"finalists": 0})
    assert [each.is_bare for each in comparison.methods] == [False, False, True]


def test_a_greedy_arm_writes_one_text_to_a_prompt(tmp_path: Path) -> None:
    methods = [{"name": "greedy", "decoder": {"name": "mod", "temperature": 0}}, *comparison_data()["methods"]]
    comparison = loaded(tmp_path, [TASK], methods=methods)
    (task,), stage = comparison.tasks, Stage("screening", 0, 4, 3)
    arms = [job_of(comparison, task, Point(Curve(name)), stage) for name in ("greedy", "reference")]
    assert [job.samples_per_cell for job in arms] == [1, 3]
