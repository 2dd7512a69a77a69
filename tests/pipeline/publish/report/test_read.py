"""What a report reads of a data set: every schema, every split, whatever is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.publish.report.measures import Measures
from pipeline.publish.report.read import ReportError, read_data_set, read_rows
from tests.made_data_set import grid, judged, make, row

OLD = Path(__file__).parents[3] / "data" / "schema-3" / "out"


def test_an_older_schema_is_read(tmp_path: Path) -> None:
    found = read_data_set(OLD)
    assert (found.name, found.attributes, found.n, found.personas) == (
        "schema-3",
        ("E", "J"),
        12,
        ("reference", "ada", "bob"),
    )
    folder = tmp_path / "older"
    shutil.copytree(OLD, folder)
    path = next((folder / "data").glob("*.parquet"))
    needed = ["row_id", "prompt_id", "persona", "attributes", "weights", "n_tokens", "log_prob_reference"]
    pq.write_table(pq.read_table(path).select(needed), path)
    bare = read_data_set(folder)
    assert np.isnan(bare.acceptance).all() and not bare.exact.any() and bare.decoders == ()
    np.testing.assert_array_equal(bare.scores, found.scores)
    pq.write_table(pq.read_table(path).drop_columns(["weights"]), path)
    with pytest.raises(ReportError, match="has no column 'weights'; give the folder of a data set"):
        read_data_set(folder)


def test_a_newer_schema_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = make(tmp_path, *grid())
    path = next((folder / "data").glob("*.parquet"))
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"mpg.schema_version": b"99"}), path)
    with pytest.raises(ReportError, match="is of schema 99, and this mpg-scr knows") as caught:
        read_data_set(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_files_of_a_test_split_are_read_too(tmp_path: Path) -> None:
    rows, judgments = grid()
    folder = make(tmp_path, rows, judgments)
    path = next((folder / "data").glob("*.parquet"))
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 5), path)
    pq.write_table(table.slice(5), path.with_name("test-00000-of-00001.parquet"))
    found = read_data_set(folder)
    assert found.n == len(rows) and found.splits.count("test") == len(rows) - 5
    assert {r["row_id"] for r in read_rows(found, range(found.n), ["row_id"])} == {r["row_id"] for r in rows}
    order = found.row_ids.to_pylist()
    picked = read_rows(found, [0, 3, found.n - 1], ["row_id", "response", "tokens"])
    assert [r["row_id"] for r in picked] == [order[0], order[3], order[-1]]
    assert picked[0]["response"] == next(r for r in rows if r["row_id"] == order[0])["response"]


def test_what_is_damaged_is_one_line(tmp_path: Path) -> None:
    folder = make(tmp_path, *grid())
    path = next((folder / "judgments").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ReportError, match=r"can't be read .*; mpg verify says what is damaged") as caught:
        read_data_set(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_weights_scores_and_who_counts(tmp_path: Path) -> None:
    rows = [row("ada", "p0", {"b": 0.25, "a": 0.75}), row("bob", "p1", {"a": 1.0}), row("reference", "p1", {})]
    judgments = [
        *judged(rows, "a", [0.2, 0.4, 0.6], "classifier@1"),
        *judged(rows, "a", [0.6, None, 0.8], "openai@m+1"),
        *judged(rows, "a", [0.9, 0.9, 0.9], "log-ratio@1"),
        *judged(rows[:1], "naturalness", [0.7], "openai@m+1"),
        *judged([row("gone", "p9", {})], "a", [0.1]),  # of a text that is not there
    ]
    folder = make(tmp_path / "one", rows, judgments, job={"attributes": [{"name": "a"}, {"name": "b"}]})
    found = read_data_set(folder)
    assert found.attributes == ("a", "b") and found.judged == ("a", "b", "naturalness")
    np.testing.assert_array_equal(found.weights, [[0.75, 0.25], [1, 0], [0, 0]])
    np.testing.assert_allclose(found.scores, [[0.4, np.nan, 0.7], [0.4, np.nan, np.nan], [0.7, np.nan, np.nan]])
    assert found.is_judged.tolist() == [[True, False, True], [True, False, False], [True, False, False]]
    assert found.counting == ("classifier@1", "openai@m+1") and found.statuses["openai@m+1", "failed"] == 1
    # The run's own judges are those that count, and its job says how they are put together.
    job = {"attributes": [{"name": "b"}, {"name": "a"}], "panel": "majority"}
    again = read_data_set(make(tmp_path / "two", rows, judgments, job=job, run={"judges": ["openai@m+1"]}))
    assert again.attributes == ("b", "a") and again.counting == ("openai@m+1",)
    np.testing.assert_allclose(again.scores[:, 1], [1, np.nan, 1])
    assert again.control.tolist() == [False, False, True]


def test_the_state_changes_with_any_judgment(tmp_path: Path) -> None:
    rows, judgments = grid()
    states = {read_data_set(make(tmp_path / str(n), rows, judgments[:n])).state for n in (10, 11)}
    assert len(states) == 2 and all(len(state) == 12 for state in states)
    assert read_data_set(make(tmp_path / "again", rows, judgments[:10])).state in states


def test_measures_by_hand(tmp_path: Path) -> None:
    rows = [row("ab", f"p{k}", {"a": 0.5, "b": 0.5}, log_prob_reference=-2.0 * (k + 1), n_tokens=4) for k in range(3)]
    rows += [row("reference", f"p{k}", {}, exact=False, tv_bound=None, acceptance_rate=None) for k in range(3)]
    judgments = [
        *judged(rows, "a", [0.9, 0.9, 0.2, 0.1, 0.1, 0.1]),
        *judged(rows, "b", [0.7, None, 0.8, 0.3, 0.3, 0.3]),
    ]
    m = Measures(read_data_set(make(tmp_path, rows, judgments)))
    ab, reference = m.personas
    assert (ab.joint.value, ab.joint.n, ab.joint.n_unscored) == (0.5, 2, 1)
    assert ab.adherence.value == pytest.approx((0.8 + 0.5) / 2) and ab.adherence.n_unscored == 1
    assert ab.worst is not None and ab.worst[0] == "a" and ab.worst[1].value == pytest.approx(2 / 3)
    assert ab.perplexity == pytest.approx(np.exp(12 / 12)) and ab.on_front
    assert (ab.n_exact, ab.n_unbounded, ab.acceptance) == (3, 0, (0.5, 0.5, 0.5))
    assert reference.adherence.value is None and reference.joint.value is None and not reference.on_front
    assert (reference.n_exact, reference.n_unbounded, reference.acceptance, reference.tv_bound) == (0, 3, None, None)
    assert m.joint == ab.joint and m.joint_by_size == {2: ab.joint} and m.adherence == ab.adherence
    assert m.of_reference["b"].value == pytest.approx(0.3) and set(m.curves) == {"a", "b"}
    assert [point.weight for point in m.curves["a"].points] == [0.5]  # without the reference's own
    grid_of = m.grid(m.of.acceptance, [0, 1], [0, 2])
    np.testing.assert_array_equal(grid_of, [[0.5, 0.5], [np.nan, np.nan]])


def test_an_attribute_that_nobody_judged_is_in_no_share(tmp_path: Path) -> None:
    """It says nothing for or against; one that was judged for some texts only leaves the others unscored."""
    rows = [row("ab", f"p{k}", {"a": 0.5, "b": 0.5}) for k in range(3)]
    m = Measures(read_data_set(make(tmp_path / "one", rows, judged(rows, "a", [0.9, 0.9, 0.2]))))
    assert m.joint.value == pytest.approx(2 / 3) and m.columns_judged.tolist() == [True, False]
    some = [*judged(rows, "a", [0.9, 0.9, 0.2]), *judged(rows[:1], "b", [0.9])]
    m = Measures(read_data_set(make(tmp_path / "two", rows, some)))
    assert (m.joint.value, m.joint.n_unscored) == (1.0, 2)


def test_numbers_that_are_none_stop_nothing(tmp_path: Path) -> None:
    from pipeline.publish.report.page import page

    rows = [
        row("a", "p", {"a": 1.0}, log_prob_reference=float("nan")),
        row("b", "p", {"a": 1.0}, n_tokens=0, tv_bound=float("nan")),
    ]
    rows.append(
        row("c", "p", {"a": 1.0}, log_prob_reference=float("-inf"), acceptance_rate=None, log_ratios=[float("inf")])
    )
    folder = make(tmp_path, rows, judged(rows, "a", [0.1, 0.2, float("nan")]))
    assert "<h2" in page([Measures(read_data_set(folder))], 10)


def test_a_table_of_no_rows_is_no_data_set(tmp_path: Path) -> None:
    folder = make(tmp_path, *grid())
    path = next((folder / "data").glob("*.parquet"))
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(ReportError, match="holds no texts"):
        read_data_set(folder)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(ReportError, match="has no column 'row_id'"):
        read_data_set(folder)
