"""What is said of a data set's rows is the same however its files are cut, and however its judgments stand in them."""

from __future__ import annotations

import math
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import t

from evaluation.statistics.aggregate import ExactSum, clustered_mean
from pipeline.publish import digest as module
from pipeline.publish.digest import digest_of, digest_of_pieces
from pipeline.publish.sums import Digest
from pipeline.store.dataset import write_pieces
from pipeline.store.layout import Sizes
from pipeline.store.schema import GENERATIONS, JUDGMENTS, REJECTED, without_tokens
from tests.made_data_set import judged, row

LABELS = {"classifier@1", "persona-match@1"}


def tables(n: int = 240) -> tuple[pa.Table, pa.Table]:
    """Rows of four personas to six prompts, with an approximate decoder's bounds, and what three judges said."""
    drawn = random.Random(0)
    rows = []
    for i in range(n):
        name = ["reference", "E1.00", "J1.00", "E0.50+J0.50"][i % 4]
        weights = [{}, {"E": 1.0}, {"J": 1.0}, {"E": 0.5, "J": 0.5}][i % 4]
        more: dict[str, Any] = {"tv_bound": drawn.random() if i % 3 else None, "exact": i % 5 == 0}
        more |= {"finish_reason": "length" if i % 7 == 0 else "stop", "log_prob_reference": -drawn.random() * 99}
        more |= {"acceptance_rate": None if not weights else drawn.random(), "n_tokens": drawn.randrange(99)}
        rows.append(row(name, f"p{i // 4 % 6}", weights, f"text {i}", **more) | {"row_id": f"r{i:04d}"})
    said = [
        each
        for judge in ("classifier@1", "persona-match@1", "classifier@0")
        for attribute in "EJ"
        for each in judged(rows, attribute, [drawn.choice([None, drawn.random()]) for _ in rows], judge)
    ]
    order = {each["row_id"]: i for i, each in enumerate(rows)}
    said.sort(key=lambda each: (order[each["row_id"]], each["judge"], each["attribute"]))
    return (
        without_tokens(pa.Table.from_pylist(rows, schema=GENERATIONS)),
        pa.Table.from_pylist(said, schema=JUDGMENTS),
    )


def facts(found: Digest) -> dict[str, Any]:
    shown = {name: without_tokens(table).to_pylist() for name, table in found.shown.items()}
    rest = {name: getattr(found, name) for name in ("n_rows", "n_prompts", "n_tokens", "n_cut", "n_rejected", "judges")}
    return rest | {"summary": found.summary, "bound": asdict(found.bound), "first": found.first_rows, "shown": shown}


def whole(rows: pa.Table, judgments: pa.Table, n_rejected: int = 0) -> Digest:
    return digest_of_pieces([(rows, judgments)], ["E", "J"], LABELS, n_rejected=n_rejected)


@pytest.mark.parametrize("batch", [1, 7, 50, 8192])
@pytest.mark.parametrize("sizes", [Sizes(), Sizes(range_bytes=20_000, group_bytes=6_000)])
def test_files_say_what_the_whole_tables_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, sizes: Sizes
) -> None:
    monkeypatch.setattr(module, "_BATCH", batch)
    rows, judgments = tables()
    dead = pa.Table.from_pylist(
        [{"row_id": i, "reason": "x", "message": "y"} for i in ("a", None, "b")], schema=REJECTED
    )
    write_pieces(tmp_path, [{"generations": rows, "judgments": judgments, "rejected": dead}], sizes=sizes)
    seen: list[tuple[int, ...]] = []
    found = digest_of(tmp_path, ["E", "J"], LABELS, seen=lambda *piece: seen.append(tuple(t.num_rows for t in piece)))
    assert facts(found) == facts(whole(rows, judgments, n_rejected=2))
    assert [sum(each) for each in zip(*seen, strict=True)] == [240, 240 * 6] and max(n for n, *_ in seen) <= batch
    assert found.n_judgments == 240 * 6 and 0 < found.n_unscored == judgments["score"].null_count


@pytest.mark.parametrize("order", ["shuffled", "turned round", "of rows that are gone", "of one row last"])
def test_judgments_in_any_order_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    monkeypatch.setattr(module, "_BATCH", 16)
    rows, judgments = tables()
    places = list(range(judgments.num_rows))
    if order == "shuffled":
        random.Random(1).shuffle(places)
    elif order == "turned round":
        places.reverse()
    elif order == "of one row last":
        places = [*places[6:], *places[:6]]
    given = judgments.take(places)
    if order == "of rows that are gone":
        gone = judgments.slice(0, 6).set_column(0, JUDGMENTS.field(0), pa.array(["gone"] * 6, pa.string()))
        given = pa.concat_tables([judgments.slice(0, 300), gone, judgments.slice(300)])
    write_pieces(tmp_path, [{"generations": rows, "judgments": given}])
    found, wanted = digest_of(tmp_path, ["E", "J"], LABELS), whole(rows, judgments)
    assert found.summary == wanted.summary
    assert found.n_judgments == given.num_rows  # those of no row are counted, as the files have them


def test_of_very_many_rows_the_first_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, judgments = tables()
    monkeypatch.setattr(module, "MOST_SHOWN", 100)
    monkeypatch.setattr(module, "_BATCH", 40)
    write_pieces(tmp_path, [{"generations": rows, "judgments": judgments}])
    found = digest_of(tmp_path, ["E", "J"], LABELS)
    assert found.is_cut and without_tokens(found.shown["generations"]).to_pylist() == rows.slice(0, 120).to_pylist()
    assert set(found.shown["judgments"]["row_id"].to_pylist()) == set(rows["row_id"].to_pylist()[:120])
    assert found.n_rows == 240 and found.summary == whole(rows, judgments).summary


def test_nothing_has_a_digest(tmp_path: Path) -> None:
    found = digest_of(tmp_path, ["E"], LABELS)
    assert found.n_rows == found.n_judgments == 0 and found.summary.personas == () and not found.is_cut


def test_a_sum_does_not_depend_on_its_order() -> None:
    drawn = random.Random(2)
    values = [drawn.gauss(0, 1) * 10.0 ** drawn.randrange(-12, 12) for _ in range(3000)]
    totals = set()
    for _ in range(5):
        drawn.shuffle(values)
        total = ExactSum()
        for value in values:
            total.add(value)
        totals.add(total.total)
    assert totals == {math.fsum(values)}


def test_a_clustered_mean_is_liang_and_zegers() -> None:
    drawn = np.random.default_rng(3)
    clusters = drawn.integers(0, 9, 200)
    values = drawn.normal(size=200) + clusters
    found = clustered_mean([*values, None], [*clusters, 0])
    residuals = values - values.mean()
    sums = np.array([residuals[clusters == g].sum() for g in range(9)])
    wanted = float(t.ppf(0.975, 8)) * np.sqrt(9 / 8 * (sums**2).sum()) / 200
    assert (found.n, found.n_unscored, found.n_clusters) == (200, 1, 9)
    assert found.value == pytest.approx(values.mean()) and found.half_width == pytest.approx(wanted)
