"""Sums over parts of a data set, put together in any order, are those of its rows read one after the other."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from evaluation.statistics.aggregate import ClusterSums, ExactSum, clustered_mean
from pipeline.publish.digest import digest_of_pieces
from pipeline.publish.sums import Sums, of_json, to_json
from tests.pipeline.publish.test_digest import LABELS, facts, tables, whole


def in_prompts_order() -> tuple[pa.Table, pa.Table]:
    """The rows of a plan: all to one prompt are neighbours."""
    rows, judgments = tables()
    rows = rows.take(pc.sort_indices(rows, [("prompt_id", "ascending"), ("row_id", "ascending")]))
    order = {row_id: i for i, row_id in enumerate(rows["row_id"].to_pylist())}
    places = sorted(range(judgments.num_rows), key=lambda i: order[judgments["row_id"][i].as_py()])
    return rows, judgments.take(places)


def sides(rows: pa.Table, test: set[str]) -> list[pa.Table]:
    """Rows of train, and of test, which some personas are."""
    of_test = [persona in test for persona in rows["persona"].to_pylist()]
    return [rows.filter(pa.array([each == side for each in of_test], pa.bool_())) for side in (False, True)]


def part(rows: pa.Table, judgments: pa.Table, first: int, test: set[str]) -> Sums:
    """Of rows that stand in two splits; prompts whose rows are all here are closed."""
    sums = Sums(["E", "J"], LABELS)
    for side, mine in enumerate(sides(rows, test)):
        theirs = judgments.filter(pc.is_in(judgments["row_id"], value_set=mine["row_id"].combine_chunks()))
        sums.add(mine, theirs, (side, first))
    prompts = rows["prompt_id"]
    sums.close({prompts[0].as_py(), prompts[-1].as_py()} if rows.num_rows else ())
    return sums


@pytest.mark.parametrize("test", [set(), {"J1.00", "reference"}], ids=["one split", "two"])
@pytest.mark.parametrize("size", [1, 7, 40, 95, 240])
def test_parts_in_any_order_come_to_the_whole(size: int, test: set[str]) -> None:
    rows, judgments = in_prompts_order()
    wanted = whole(files := pa.concat_tables(sides(rows, test)), judgments)
    parts = [part(rows.slice(first, size), judgments, first, test) for first in range(0, 240, size)]
    random.Random(size).shuffle(parts)
    while len(parts) > 1:  # as a tree, as workers do
        left, right = parts.pop(0), parts.pop(0)
        left.merge(right)
        parts.append(left)
    found = parts[0].result({"generations": files, "judgments": judgments}, 0)
    assert facts(found) == facts(wanted)


def test_a_digest_travels_as_json() -> None:
    rows, judgments = tables()
    found = whole(rows, judgments, n_rejected=3)
    assert facts(of_json(json.loads(json.dumps(to_json(found))), found.shown)) == facts(found)
    nothing = digest_of_pieces([], ["E"], LABELS)
    assert facts(of_json(json.loads(json.dumps(to_json(nothing))), nothing.shown)) == facts(nothing)


def test_what_is_held_does_not_grow_with_closed_clusters() -> None:
    sums = ClusterSums()
    for i in range(1000):
        sums.add(i % 7 / 7, f"p{i // 3}")
        if i % 30 == 29:
            sums.close({f"p{i // 3}"})
    assert len(sums._open) < 12
    values: list[Any] = [i % 7 / 7 for i in range(1000)]
    assert sums.mean() == clustered_mean(values, [i // 3 for i in range(1000)])


def test_an_interval_of_equal_values_is_of_no_width() -> None:
    """What is multiplied out cancels without a rest, however the values are rounded."""
    found = clustered_mean([0.7] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    assert found.half_width == pytest.approx(0, abs=1e-15)
    far = clustered_mean([1e8 + i % 2 for i in range(40)], [i // 2 % 5 for i in range(40)])
    assert far.half_width == pytest.approx(0, abs=1e-15)  # each cluster has as many of either


def test_a_product_is_added_without_rounding() -> None:
    drawn = random.Random(4)
    for _ in range(200):
        a, b = drawn.uniform(0, 1e6), drawn.uniform(-1, 1)
        total = ExactSum()
        total.add_product(a, b)
        total.add(-(a * b))
        assert total.exact == Fraction(a) * Fraction(b) - Fraction(a * b)
