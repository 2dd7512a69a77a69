"""What is there of a plan, told by names alone: the same data set, rows and counts as by the ids of all rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from personas import Grid, Message, Persona, Prompt
from pipeline.cli import main
from pipeline.job.load import load_job
from pipeline.plan.plan import Plan
from pipeline.plan.rule import Rule
from pipeline.run import by_range as module
from pipeline.run import left, run
from pipeline.run.by_range import by_range
from pipeline.run.left import left_of
from pipeline.store.dataset import FOLDERS
from pipeline.store.ranges import file_name, index_in, parsed, range_name
from pipeline.store.shards import write_table
from tests.tiny_job import checksums, make_job, rows, tiny_token, write_prompts

Folder = Path


def by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on everything is looked at row by row."""
    for each in (run, left):
        monkeypatch.setattr(each, "by_range", lambda *arguments, **more: None)


def names(output: Path, table: str = "generations") -> list[str]:
    return sorted(path.name for path in (output / ".work" / table).glob("*.parquet"))


def shorten(output: Path, index: int, n: int, table: str = "generations") -> None:
    """What a stopped run leaves of a range: the first rows of its file."""
    (path,) = (p for p in (output / ".work" / table).glob("*.parquet") if index_in(p.name) == index)
    some = pq.read_table(path).slice(0, n)
    path.unlink()
    if n:
        of_range = path.name.rsplit("-", 2)[0]
        write_table(some, path.with_name(file_name(of_range, n, some["row_id"].to_pylist())))


PROMPTS = ("hello you", "what now?", "", "tell me more")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run with 16 cells of which four are dead letters, in ranges of five."""
    job_file = make_job(tmp_path_factory.mktemp("made"), PROMPTS)
    assert again(job_file) == 0
    output = job_file.parent / "out"
    assert len(rows(output)) == 12 and len(rows(output, "rejected")) == 4
    return output


@pytest.fixture
def done(job_file: Path, made: Path) -> Path:
    """The same, of this test's own job."""
    write_prompts(job_file.parent, PROMPTS)
    return Path(shutil.copytree(made, job_file.parent / "out"))


def again(job_file: Path, *more: str) -> int:
    return main(["run", str(job_file), "--set", "max_rejected_fraction=0.5", *more])


@pytest.mark.parametrize("changes", [{}, {"split": {"by": "prompt", "test_fraction": 0.4}}])
def test_the_data_set_is_the_one_by_the_ids_of_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    prompts = (
        "hello you",
        "what now?",
        "hello you",
        "",
        "tell me more",
        "say it",
    )  # two say the same, one says nothing
    job_file = make_job(tmp_path, prompts, samples_per_cell=2, max_rejected_fraction=0.5, **changes)
    assert main(["run", str(job_file)]) == 0
    assert all(parsed(name) for table in FOLDERS for name in names(tmp_path / "out", table))
    by_id(monkeypatch)
    assert main(["run", str(job_file), "--output", str(tmp_path / "other")]) == 0
    assert not any(parsed(name) for table in FOLDERS for name in names(tmp_path / "other", table))
    assert checksums(tmp_path / "out") == checksums(tmp_path / "other")
    kept = [json.loads((tmp_path / each / "run.json").read_text()) for each in ("out", "other")]
    assert kept[0]["counts"] == kept[1]["counts"] and kept[0]["counts"]["rejected"] == 8
    assert kept[0]["counts"]["rows"] == 4 * 4 * 2


def test_where_the_plan_is_the_same_no_row_is_read_to_know_what_is_there(
    done: Path, job_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = checksums(done)
    found = by_range(done / ".work", plan := Plan.of(load_job(job_file)), plan.distinct(grid_of(job_file)), 5)
    assert found is not None
    monkeypatch.setattr(module, "sound_table", None)
    assert list(found.to_do()) == [] and len(found.cells_left()) == 0
    monkeypatch.undo()
    with caplog.at_level("INFO"):
        assert again(job_file) == 0 and checksums(done) == before
    assert "12 of 16 rows are there already" in caplog.text
    counts = json.loads((done / "run.json").read_text())["counts"]
    assert counts["kept_from_earlier_runs"] == 12 and counts["generated"] == counts["tokens"] == 0


def said(output: Path) -> list[list[tuple[Any, ...]]]:
    """All that two runs of a plan have in common, however its rows were decoded together."""
    columns = {
        "data": ("row_id", "persona", "prompt_id", "response", "n_tokens"),
        "judgments": ("row_id", "judge", "attribute", "score", "judged_hash"),
        "rejected": ("row_id", "reason", "message"),
    }
    return [[tuple(row[name] for name in names) for row in rows(output, table)] for table, names in columns.items()]


def grid_of(job_file: Path) -> Grid:
    job = load_job(job_file)
    return job.cells(job.load_prompts())


def no_range(output: Path) -> None:
    for table in FOLDERS:
        for path in (output / ".work" / table).glob("*.parquet"):
            if index_in(path.name) == 1:
                path.unlink()


def part_of_a_range(output: Path) -> None:
    shorten(output, 0, 2)


def no_dead_letters(output: Path) -> None:
    shorten(output, 1, 0, "rejected")


def fewer_dead_letters(output: Path) -> None:
    shorten(output, 1, 1, "rejected")


def two_files_that_share_rows(output: Path) -> None:
    """As a worker that was taken for dead leaves beside its successor's: numbers alone would say that all is there."""
    (path,) = (p for p in (output / ".work" / "generations").glob("*.parquet") if index_in(p.name) == 0)
    table = pq.read_table(path)
    path.unlink()
    for some in (table.slice(0, 3), table.slice(1, 2)):
        ids = some["row_id"].to_pylist()
        write_table(some, path.with_name(file_name(path.name.rsplit("-", 2)[0], len(ids), ids)))


def dead_letters_that_were_written_since(output: Path) -> None:
    (path,) = (p for p in (output / ".work" / "generations").glob("*.parquet") if index_in(p.name) == 0)
    ids = pq.read_table(path)["row_id"].to_pylist()
    shorten(output, 0, 3)
    (letters,) = (p for p in (output / ".work" / "rejected").glob("*.parquet") if index_in(p.name) == 2)
    dead = pq.read_table(letters).slice(0, 1)
    rows = [dead.to_pylist()[0] | {"row_id": row_id} for row_id in ids[:2]]
    table = pa.Table.from_pylist(rows, schema=dead.schema)
    write_table(table, letters.with_name(file_name(path.name.rsplit("-", 2)[0], 2, ids[:2])))


def a_broken_file(output: Path) -> None:
    path = output / ".work" / "generations" / names(output)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def a_cut_file(output: Path) -> None:
    path = output / ".work" / "generations" / names(output)[1]
    path.write_bytes(path.read_bytes()[:-9])


def broken_judgments(output: Path) -> None:
    path = output / ".work" / "judgments" / names(output, "judgments")[0]
    path.write_bytes(path.read_bytes()[:50] + b"?" + path.read_bytes()[51:])


def no_judgments(output: Path) -> None:
    (output / ".work" / "judgments" / names(output, "judgments")[-1]).unlink()


def nothing_noted(output: Path) -> None:
    """Killed between a file and its line in the manifest."""
    (output / ".work" / "generations" / "manifest.jsonl").unlink()


FAULTS = [
    no_range, part_of_a_range, no_dead_letters, fewer_dead_letters, two_files_that_share_rows,
    dead_letters_that_were_written_since, a_broken_file, a_cut_file, broken_judgments, no_judgments, nothing_noted,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_is_missing_is_made_again_by_the_same_command(
    done: Path, job_file: Path, fault: Callable[[Path], None]
) -> None:
    before, texts = checksums(done), said(done)
    shutil.rmtree(done / "data")
    fault(done)
    assert again(job_file) == 0
    assert said(done) == texts
    if fault not in (part_of_a_range, two_files_that_share_rows, dead_letters_that_were_written_since):
        assert checksums(done) == before  # decoded together with what they were decoded with before
    assert all(parsed(name) for table in FOLDERS for name in names(done, table))


def test_judgments_of_a_text_that_is_made_again_are_made_again(done: Path, job_file: Path) -> None:
    """It may be another text: in bfloat16 it follows the batch that it is decoded in."""
    before = said(done)
    (done / ".work" / "generations" / (lost := names(done)[0])).unlink()
    mine = [name for name in names(done, "judgments") if name.startswith(lost.removesuffix(".parquet"))]
    assert mine and again(job_file) == 0 and said(done) == before
    assert [path.name for path in (done / ".work" / "judgments").glob("*.stale*")] == [
        name.replace(".parquet", ".stale") for name in mine
    ]


@pytest.mark.parametrize("fault", [None, *FAULTS[:5]], ids=lambda fault: getattr(fault, "__name__", "nothing"))
def test_a_plan_counts_what_is_left_as_by_the_ids_of_all_rows(
    done: Path, job_file: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Path], None] | None
) -> None:
    if fault is not None:
        fault(done)
    plan = Plan.of(job := load_job(job_file))
    found = left_of(done / ".work", plan, job.load_prompts(), 5)
    by_id(monkeypatch)
    other = left_of(done / ".work", plan, job.load_prompts(), 5)
    assert [cell.row_id for cell in found.cells] == [cell.row_id for cell in other.cells]
    assert (found.there, found.tokens, found.rejected) == (other.there, other.tokens, other.rejected)


@pytest.mark.parametrize(
    "change",
    [["--set", "personas.steps=3"], ["--set", "prompts.limit=2"], ["--set", "seed=9"], ["--set", "rows_per_shard=4"]],
    ids=" ".join,
)
def test_another_plan_is_looked_at_row_by_row(done: Path, job_file: Path, change: list[str]) -> None:
    assert again(job_file, *change) == 0
    other = job_file.parent / "other"
    assert again(job_file, *change, "--output", str(other)) == 0
    assert said(done) == said(other)


def test_a_plans_name_knows_what_its_rows_and_their_labels_are_made_of(job_file: Path) -> None:
    grid = grid_of(job_file)
    plan = Plan.of(load_job(job_file))

    def name(rule: Rule = plan.rule, grid: Grid = grid, size: int = 5) -> str:
        return module.plan_name(rule, grid, module.PlannedCells(rule, grid, plan.tokenizer), size)

    renamed = [Prompt("other", grid.prompts[0].messages), *grid.prompts[1:]]
    told = [*grid.personas[:-1], Persona("Z", grid.personas[-1].weights)]
    changes = "seed=1", "decoder.top_p=0.9", "model.system=Hi."
    found = [
        name(),
        name(size=6),
        name(grid=Grid(renamed, grid.personas)),
        name(grid=Grid(grid.prompts, told)),
        name(grid=Grid(grid.prompts, grid.personas, 2)),
        *(name(Plan.of(load_job(job_file, [change])).rule) for change in changes),
        name(Plan.of(load_job(job_file, ["decoder.token_log_ratios=true"])).rule),
    ]
    assert len(set(found)) == len(found) and name() == found[0]


def test_a_plan_is_known_wherever_its_model_lies(job_file: Path, tmp_path: Path) -> None:
    shutil.copytree(job_file.parent / "base", tmp_path / "moved" / "base")
    moved = Plan.of(load_job(job_file, [f"model.id={tmp_path / 'moved' / 'base'}"])).rule
    assert moved.identity() == Plan.of(load_job(job_file)).rule.identity()


def test_distinct_cells_are_those_that_are_planned_once(job_file: Path) -> None:
    plan = Plan.of(load_job(job_file))
    prompts = [Prompt(f"p{i}", (Message("user", text),)) for i, text in enumerate("abcab")]
    weights = ({"E": 1.0}, {"J": 1.0}, {"E": 1.0, "J": 0.0}, {}, {"J": 1.0})
    personas = [Persona(f"n{i}", each) for i, each in enumerate(weights)]
    grid = Grid(prompts, personas, 2)
    distinct = plan.distinct(grid)
    assert [cell.columns() for cell in plan.cells(grid)] == [cell.columns() for cell in plan.cells(distinct)]
    assert len(distinct) == 3 * 3 * 2


def test_no_more_than_a_range_is_held(done: Path, job_file: Path) -> None:
    found = by_range(done / ".work", plan := Plan.of(load_job(job_file)), plan.distinct(grid_of(job_file)), 5)
    assert found is not None
    pieces = list(found.pieces())
    assert max(piece["generations"].num_rows for piece in pieces) <= 5 and len(pieces) == 4
    ids = [row_id for piece in pieces for row_id in piece["generations"]["row_id"].to_pylist()]
    assert ids == [row["row_id"] for row in rows(done)]


def test_names_say_what_is_in_a_file() -> None:
    of_range = range_name("0123456789abcdef", 7)
    found = parsed(name := file_name(of_range, 3, ["a", "b"]))
    assert found is not None and (found.plan, found.index, found.n, found.name) == ("0123456789abcdef", 7, 3, name)
    assert parsed("0-train-00000-of-00001.parquet") is None and parsed(f"{'a' * 24}.parquet") is None


def test_control_tokens_are_counted_by_arithmetic(tmp_path: Path) -> None:
    assert tiny_token("a") >= 0
    job_file = make_job(tmp_path, ("hello <|im_end|>", "what now?", "tell me"), samples_per_cell=3)
    plan = Plan.of(load_job(job_file, ["control_tokens=text"]))
    cells = plan.cells()
    counted = module.PlannedCells(plan.rule, plan.distinct(grid_of(job_file)), plan.tokenizer).n_control
    assert counted == sum(cell.control is not None for cell in cells)
