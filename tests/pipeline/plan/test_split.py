"""Which texts are the test split: by a prompt's content, or by a persona's weights; and splits that leave one empty."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pytest

from personas import Message, Prompt
from pipeline.job.split import Split
from pipeline.plan.split import is_test_persona, is_test_prompt, split_note, split_problems, test_ids
from pipeline.store.schema import GENERATIONS
from tests.card_desk import ROW
from tests.job_desk import Desk

test_ids.__test__ = False  # type: ignore[attr-defined]  # it is no test


def of_prompt(**fields: Any) -> Split:
    return Split(by="prompt", **fields)


def of_weights(**region: list[float]) -> Split:
    return Split(by="weights", region=region)


def side(split: Split, text: str) -> bool:
    return is_test_prompt(split, [("user", text)])


def test_a_share_of_the_prompts_is_the_test_split() -> None:
    texts = [f"question {i}" for i in range(4000)]
    for fraction in (0.1, 0.5, 0.9):
        found = [side(of_prompt(test_fraction=fraction), text) for text in texts]
        assert abs(sum(found) / 4000 - fraction) < 0.025  # five standard deviations of .5
    small, large = ([side(of_prompt(test_fraction=f), text) for text in texts] for f in (0.1, 0.3))
    assert all(b for a, b in zip(small, large, strict=True) if a)  # what a larger one adds is added
    assert [side(of_prompt(), text) for text in texts] == small
    other = [side(of_prompt(seed=1), text) for text in texts]
    assert 0.05 < sum(a and b for a, b in zip(other, small, strict=True)) / sum(small) < 0.2  # nearly as by chance


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is love?", "  what  IS\nlove?\t"),
        ("STRASSE", "straße"),
        ("caf\u00e9", "cafe\u0301"),
        ("\u00a0hello\u3000you", "hello you"),
        ("Ｈｅｌｌｏ", "hello"),
    ],
)
def test_case_and_white_space_do_not_matter(one: str, other: str) -> None:
    splits = [of_prompt(test_fraction=0.5, seed=seed) for seed in range(60)]
    assert [side(split, one) for split in splits] == [side(split, other) for split in splits]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("user", "a b")], [("user", "ab")]),
        ([("user", "a")], [("system", "a")]),
        ([("user", "a"), ("user", "b")], [("user", "a b")]),
        ([("user", "\ud83d")], [("user", "\ud83e")]),
    ],
)
def test_other_contents_are_other_prompts(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    splits = [of_prompt(test_fraction=0.5, seed=seed) for seed in range(60)]
    assert [is_test_prompt(split, one) for split in splits] != [is_test_prompt(split, other) for split in splits]


@pytest.mark.parametrize(
    ("weights", "region", "expected"),
    [
        ({"E": 0.5, "N": 0.5}, {"E": [0.4, 0.6], "N": [0.4, 1.0]}, True),
        ({"E": 0.5, "T": 0.5}, {"E": [0.4, 0.6], "N": [0.4, 1.0]}, False),  # N has weight 0
        ({"E": 0.5, "T": 0.5}, {"E": [0.4, 0.6]}, True),  # T may have any
        ({"E": 0.5, "T": 0.5}, {"E": [0.4, 0.6], "N": [0, 0]}, True),
        ({"E": 0.4, "T": 0.6}, {"E": [0.4, 0.6]}, True),  # ends included
        ({"E": 0.1 + 0.2, "T": 0.7}, {"E": [0, 0.3]}, True),  # .30000000000000004
        ({"E": 0.61, "T": 0.39}, {"E": [0.4, 0.6]}, False),
        ({}, {"E": [0, 1]}, False),  # the control
        ({"E": 0.0}, {"E": [0, 1]}, False),
    ],
)
def test_a_persona_lies_in_a_region_or_not(weights: dict[str, float], region: Any, expected: bool) -> None:
    assert is_test_persona(of_weights(**region), weights) is expected


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([ROW | {"row_id": f"{i}"} | row for i, row in enumerate(rows)], schema=GENERATIONS)


def test_rows_follow_their_prompts_or_personas() -> None:
    texts = [f"question {i}" for i in range(30)]
    rows = table(*({"prompt": [{"role": "user", "content": text}]} for text in texts for _ in "ab"))
    split = of_prompt(test_fraction=0.5)
    expected = {f"{2 * i + k}" for i, text in enumerate(texts) if side(split, text) for k in range(2)}
    assert 0 < len(expected) < 60 and test_ids(split, rows) == expected
    halves = test_ids(split, rows.slice(0, 31)) | test_ids(split, rows.slice(31))
    assert halves == expected  # a range by itself knows what is its own
    personas = table({"attributes": ["E", "N"], "weights": [0.5, 0.5]}, {"attributes": ["E"], "weights": [1.0]}, {})
    assert test_ids(of_weights(E=[0.4, 0.6]), personas) == {"0"}
    assert test_ids(None, rows) == test_ids(split, rows.slice(0, 0)) == frozenset()


def prompts(n: int) -> list[Prompt]:
    return [Prompt(f"p{i}", (Message("user", f"question {i}"),)) for i in range(n)]


@pytest.mark.parametrize(
    ("overrides", "n_prompts", "start"),
    [
        (
            ["split={by: prompt}"],
            1,
            "split.test_fraction: 0.1 leaves test without a prompt (of 1); raise it",
        ),
        (["split={by: prompt, test_fraction: .999}"], 1, "split.test_fraction: 0.999 leaves train without a prompt"),
        (["split={by: weights, region: {E: [.2, .3]}}"], 9, "split.region: {E: [0.2, 0.3]} leaves test without a pers"),
        (
            ["split={by: weights, region: {E: [0, 1]}}", "personas={kind: one-hot}"],
            9,
            "split.region: {E: [0.0, 1.0]} leaves train without a persona (of 4); narrow it",
        ),
        (["split={by: weights, region: {E: [0, 1]}}"], 9, None),  # the control is left to train on
        (
            ["split={by: weights, region: {E: [0, 1]}}", "decoder.name=reference"],
            9,
            "split.by: 'weights': decoder 'reference' reads no persona, so that all texts are the control's, which is",
        ),
        (["split={by: weights, region: {E: [.4, .6], N: [.4, 1]}}"], 9, None),
        (["split={by: prompt, test_fraction: .5}"], 50, None),
        (["split=null"], 1, None),
    ],
)
def test_a_split_that_leaves_nothing(desk: Desk, overrides: list[str], n_prompts: int, start: str | None) -> None:
    problems = split_problems(desk.load(*overrides), prompts(n_prompts))
    lines = [f"{problem.field}: {problem.text}" for problem in problems]
    assert len(lines) == (start is not None)
    assert start is None or lines[0].startswith(start)


def test_a_split_is_recorded_and_no_part_of_the_work(desk: Desk) -> None:
    split = desk.load("split={by: weights, region: {E: [0.4, 0.6]}}")
    assert split.work_hash() == desk.load().work_hash() and isinstance(hash(split), int)
    recorded = json.loads(split.model_dump_json())["split"]
    assert Split.model_validate(recorded) == split.split
    assert recorded == {"by": "weights", "test_fraction": None, "seed": None, "region": {"E": [0.4, 0.6]}}


def test_how_much_is_the_test_split(desk: Desk) -> None:
    assert split_note(desk.load(), prompts(9)) is None
    by_weights = desk.load("split={by: weights, region: {E: [0.4, 0.6]}}")
    assert split_note(by_weights, prompts(9)) == "split: 3 of 11 personas are the test split"
    by_prompt = desk.load("split={by: prompt, test_fraction: 0.5}")
    n = sum(side(of_prompt(test_fraction=0.5), f"question {i}") for i in range(40))
    assert split_note(by_prompt, prompts(40)) == f"split: {n} of 40 prompts are the test split"


def test_of_chats_that_begin_alike_as_many_are_told_as_rows_are_there(desk: Desk) -> None:
    chats = [
        Prompt(f"p{i}", (Message("user", "hello"), Message("assistant", "hm"), Message("user", f"question {i}")))
        for i in range(40)
    ]
    job = desk.load("split={by: prompt, test_fraction: 0.5}")
    n = len(test_ids(job.split, table(*({"prompt": [asdict(m) for m in chat.messages]} for chat in chats))))
    assert 0 < n < 40 and split_note(job, chats) == f"split: {n} of 40 prompts are the test split"
    assert split_problems(job, chats) == []
