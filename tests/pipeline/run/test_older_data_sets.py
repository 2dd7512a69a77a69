"""A data set that an earlier version wrote (tests/data/schema-3) is resumed, judged and verified by this one.

It was written by version 0.1.0 as of schema 3 (one thread), before what a data set is computed with was noted: a tiny
float32 model, strengths, profiles, prompts of its own, dead letters. Nothing in it may ever be made anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from pipeline.job.load import load_job
from pipeline.plan.cells import identity, plan_cells
from pipeline.plan.sources import decoder_settings, resolve_sources
from pipeline.plan.systems import Systems
from pipeline.run.run import run_job
from pipeline.store import schema
from pipeline.store.errors import OutputError
from pipeline.store.shards import read_shards, write_rows
from tests.tiny_job import checksums, rows

WRITTEN = Path(__file__).parents[2] / "data" / "schema-3"
IDS = json.loads((WRITTEN / "row-ids.json").read_text())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of it, whose job file names the law that was the default then."""
    place = Path(shutil.copytree(WRITTEN, tmp_path / "place"))
    job = place / "job.yaml"
    job.write_text(job.read_text().replace("  name: scr-exact\n", "  name: scr-exact\n  aggregate: sum\n"))
    return place


def as_of_today(output: Path) -> list[dict[str, Any]]:
    """Its rows, with the columns that came since."""
    return [dict.fromkeys(schema.GENERATIONS.names) | row for row in rows(output)]


def go_on(place: Path, *more: str) -> dict[str, Any]:
    return run_job(load_job(place / "job.yaml", [f"output={place / 'out'}", *more])).run["counts"]


@pytest.mark.parametrize("decoder", IDS)
def test_rows_keep_their_ids_and_seeds(decoder: str) -> None:
    """Of every decoder, as that version planned them."""
    job = load_job(WRITTEN / "job.yaml", ["decoder.aggregate=sum", *IDS[decoder]["set"]])
    systems = Systems.of(job.described_attributes(), job.model.system)
    cells = plan_cells(job.cells(job.load_prompts()), decoder_settings(job), resolve_sources(job), job.seed, systems)
    n = len(IDS[decoder]["rows"])
    assert [[cell.row_id, cell.seed, cell.config_hash] for cell in cells[:n]] == IDS[decoder]["rows"]


@pytest.mark.parametrize("with_work_folder", [True, False])
def test_it_is_gone_on_with(place: Path, with_work_folder: bool) -> None:
    """Nothing is made anew, and what is added stands beside it."""
    before = as_of_today(place / "out")
    if not with_work_folder:
        shutil.rmtree(place / "out" / ".work")
    counts = go_on(place)
    assert (counts["generated"], counts["rows"], counts["judgments"], counts["rejected"]) == (0, 12, 24, 6)
    assert rows(place / "out") == before
    counts = go_on(place, "prompts.limit=4")
    assert (counts["generated"], counts["kept_from_earlier_runs"], counts["rows"]) == (6, 12, 18)
    assert rows(place / "out")[:12] == before


@pytest.mark.parametrize("command", ["check", "run", "verify"])
def test_its_own_file_names_no_law_which_is_said(place: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """The default is another now: nothing is written, and nothing judged to be other than it was."""
    job = str(shutil.copy(WRITTEN / "job.yaml", place))
    before = checksums(place / "out")
    of = [str(place / "out"), "--job", job] if command == "verify" else [job]
    assert main([command, *of]) == ExitStatus.BAD_INPUT
    said = capsys.readouterr()
    line = f"decoder.aggregate: rows of {place / 'out'} are of the sum, which was the default, and now product is; add"
    assert line in said.err + said.out
    assert checksums(place / "out") == before


@pytest.mark.parametrize("command", ["check", "run"])
def test_what_was_stopped_before_its_first_data_set_is_of_its_law_too(
    place: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Nothing but rows says of which: no ``job.json`` is there yet."""
    for path in (place / "out").iterdir():
        if path.name != ".work":
            (shutil.rmtree if path.is_dir() else Path.unlink)(path)
    job = str(shutil.copy(WRITTEN / "job.yaml", place))
    before = checksums(place / "out")
    assert main([command, job]) == ExitStatus.BAD_INPUT
    said = capsys.readouterr()
    assert "are of the sum, which was the default, and now product is; add aggregate: sum" in said.err + said.out
    assert checksums(place / "out") == before
    named = ["--set", "decoder.aggregate=product", "--set", "decoder.max_new_tokens=9"]
    assert main(["check", job, *named]) == 0  # a file that names its law means it


def test_a_shard_that_is_lost_comes_out_the_same(place: Path) -> None:
    """In its ids and texts; measured columns to rounding, which was another processor's."""
    before = {row["row_id"]: row for row in as_of_today(place / "out")}
    next((place / "out" / ".work" / "generations").glob("*.parquet")).unlink()
    assert go_on(place)["generated"] > 0
    after = {row["row_id"]: row for row in rows(place / "out")}
    measured = ("log_ratios", "log_prob_reference")
    assert list(after) == list(before)
    for row_id, row in after.items():
        assert {k: v for k, v in row.items() if k not in measured} == {
            k: v for k, v in before[row_id].items() if k not in measured
        }
        assert row["log_ratios"] == pytest.approx(before[row_id]["log_ratios"], abs=1e-3)


def test_it_is_judged(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", str(place / "out"), "--judge", "log-ratio"]) == 0
    judges = {row["judge"].partition("@")[0] for row in rows(place / "out", "judgments")}
    assert judges == {"classifier", "log-ratio"}


def test_it_is_verified(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(place / "out"), "--sample", "12", "--job", str(place / "job.yaml")]) == 0
    said = capsys.readouterr().out
    assert "files: all as they were written" in said
    assert "texts: 12 of 12 came out the same" in said
    assert "measured columns: 12 of 12 came out the same" in said


# --------------------------------------------------------------------------- schemas to come


def later_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Today's code with one column more, as a later version would have it."""
    more = schema.GENERATIONS.append(pa.field("to_come", pa.string()))
    metadata = {b"mpg.table": b"generations", b"mpg.schema_version": b"7"}
    monkeypatch.setitem(schema.TABLES, "generations", more.with_metadata(metadata))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 7)


def test_a_later_version_with_a_new_column_goes_on_with_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later_schema(monkeypatch)
    counts = go_on(place, "prompts.limit=4")
    assert (counts["generated"], counts["kept_from_earlier_runs"]) == (6, 12)
    written = pq.read_table(place / "out" / "data")
    assert written.schema.metadata[b"mpg.schema_version"] == b"7"
    assert written.column("to_come").null_count == 18


def test_rows_of_a_later_version_are_refused_and_not_cut_down(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as later:
        later_schema(later)
        go_on(place, "prompts.limit=4")
    before = {path: path.read_bytes() for path in (place / "out").rglob("*.parquet")}
    words = "is of schema 7, and this mpg-scr knows 6; install a newer one"
    for command in (
        ["run", str(place / "job.yaml"), "--set", f"output={place / 'out'}"],
        ["judge", str(place / "out"), "--judge", "log-ratio"],
        ["verify", str(place / "out"), "--job", str(place / "job.yaml")],
    ):
        assert main(command) in (1, 2)
        lines = capsys.readouterr().err.strip().splitlines()
        assert words in lines[-1] and "Traceback" not in "".join(lines)
    with pytest.raises(OutputError, match=words):
        read_shards(place / "out" / ".work" / "generations", "generations")
    assert {path: path.read_bytes() for path in (place / "out").rglob("*.parquet")} == before


def test_older_columns_are_null_and_what_may_not_be_null_is_refused(tmp_path: Path) -> None:
    table = read_shards(WRITTEN / "out" / ".work" / "generations", "generations")
    old = table.drop_columns(["profile", "system"])
    read = schema.as_of_today(old, "generations")
    assert read.schema.equals(schema.GENERATIONS, check_metadata=True)
    assert read.column("profile").null_count == table.num_rows
    assert read.drop_columns(["profile", "system"]).to_pylist() == old.to_pylist()
    with pytest.raises(ValueError, match="has no column 'strengths'"):
        schema.as_of_today(table.drop_columns(["strengths"]), "generations")
    write_rows(table.to_pylist(), "generations", tmp_path / "a.parquet")
    assert read_shards(tmp_path, "generations").equals(table)


def test_a_setting_to_come_is_no_part_of_an_id_where_it_changes_nothing() -> None:
    job = load_job(WRITTEN / "job.yaml")
    settings = decoder_settings(job)
    before = identity(settings, "float32", ("E",), unchanged_at={})
    assert identity(settings, "float32", ("E",), unchanged_at={"chunk_len": settings.chunk_len}).keys() == (
        before.keys() - {"chunk_len"}
    )
    assert identity(settings, "float32", ("E",), unchanged_at={"chunk_len": 1}) == before
    assert identity(settings, "float32", ("E",)).keys() == before.keys() - {"tell"}
