"""`accept` by ranges, block by block: the data set, report and counts are those by the ids of all rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from personas import Grid
from pipeline.cli import main
from pipeline.job.fields import Accept
from pipeline.job.load import load_job
from pipeline.plan.plan import Plan
from pipeline.plan.rounds import DRAWS_FILE, Rounds
from pipeline.run import run
from pipeline.run.accepting import law_of
from pipeline.run.by_range import plans_in
from pipeline.run.candidates import Candidates, candidates
from pipeline.run.judges import RunJudges
from pipeline.store.copies import here
from pipeline.store.dataset import FOLDERS
from pipeline.store.files import listing
from pipeline.store.places import expanded
from pipeline.store.ranges import file_name, parsed
from pipeline.store.shards import write_table
from tests.run_process import finished, start, wait_for
from tests.tiny_job import checksums, make_job, rows

PROMPTS = ("hello you", "what now?", "", "tell me more")
# Of these some cells have enough at once, some after a round or two, some never; those of the empty prompt are dead.
RULES = [
    {"min_score": 0.7, "rows_per_cell": 1, "max_candidates": 9},
    {"min_score": 0.6, "rows_per_cell": 2, "max_candidates": 6},
]
Folder = Path


def by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on everything is looked at row by row."""
    monkeypatch.setattr(run, "candidates", lambda *arguments: None)


def job_of(folder: Path, rule: dict[str, Any] = RULES[0], **changes: Any) -> str:
    return str(make_job(folder, PROMPTS, accept=rule, max_rejected_fraction=0.9, **changes))


def told(output: Path) -> dict[str, Any]:
    """What the record says of a run's rows."""
    record = json.loads((output / "run.json").read_text())
    return {name: record[name] for name in ("accept", "counts", "computed_with", "ended")}


def rounds_in(output: Path) -> int:
    """How many rounds' files are there; 0: others."""
    found = plans_in(output / ".work")
    return 0 if None in found else len(found)


def said(output: Path) -> list[list[tuple[Any, ...]]]:
    """All that two runs have in common, however their rows were decoded together."""
    columns = {
        "data": ("row_id", "persona", "prompt_id", "sample_index", "response", "n_tokens"),
        "judgments": ("row_id", "judge", "attribute", "score", "judged_hash"),
        "rejected": ("row_id", "reason", "message"),
    }
    return [[tuple(row[name] for name in names) for row in rows(output, table)] for table, names in columns.items()]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_data_set_is_the_one_by_the_ids_of_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: dict[str, Any]
) -> None:
    job_file = job_of(tmp_path, rule)
    assert main(["run", job_file]) == 0
    by_id(monkeypatch)
    assert main(["run", job_file, "--output", str(tmp_path / "other")]) == 0
    assert rounds_in(tmp_path / "out") >= 2 and rounds_in(tmp_path / "other") == 0
    assert checksums(tmp_path / "out") == checksums(tmp_path / "other")
    assert told(tmp_path / "out") == told(tmp_path / "other")
    accepted = told(tmp_path / "out")["accept"]
    assert 0 < accepted["rows"] < accepted["candidates"]
    assert {each["prompt_id"] for each in accepted["short"]} > {"p2"}  # of its dead letters, and one that fell short
    assert "reference" in {row["persona"] for row in rows(tmp_path / "out")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A job, and the data set of it in `out`, with its work folder."""
    folder = tmp_path_factory.mktemp("made")
    assert main(["run", job_of(folder)]) == 0
    assert rounds_in(folder / "out") == 3
    return folder


@pytest.fixture
def done(made: Folder, tmp_path: Path) -> Path:
    """A copy of that output."""
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


def of_round(output: Path, which: int, table: str) -> list[Path]:
    """The files of a round, the first is 0: each has drawn further samples of its cells."""
    samples = {
        plan: min(pq.read_table(path)["sample_index"][0].as_py() for path in paths)
        for plan, paths in files_by_plan(output, "generations").items()
    }
    return files_by_plan(output, table).get(sorted(samples, key=lambda plan: samples[plan])[which], [])


def files_by_plan(output: Path, table: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted((output / ".work" / table).glob("*.parquet")):
        file = parsed(path.name)
        assert file is not None
        found.setdefault(file.plan, []).append(path)
    return found


def forget_round(output: Path, which: int) -> None:
    for path in [path for table in FOLDERS for path in of_round(output, which, table)]:
        path.unlink()


def drawn_and_not_decoded(output: Path) -> None:
    """Killed after the table of the last round, before its first file."""
    forget_round(output, 2)


def no_table(output: Path) -> None:
    (output / ".work" / DRAWS_FILE).unlink()


def a_broken_table(output: Path) -> None:
    path = output / ".work" / DRAWS_FILE
    path.write_bytes(path.read_bytes()[:-7])


def not_drawn(output: Path) -> None:
    """Killed between the first round's rows and the table of the next."""
    forget_round(output, 2)
    forget_round(output, 1)
    no_table(output)


def a_range_of_a_later_round(output: Path) -> None:
    path = of_round(output, 1, "generations")[0]
    path.unlink()


def part_of_a_range_of_a_later_round(output: Path) -> None:
    path = of_round(output, 1, "generations")[0]
    some = pq.read_table(path).slice(0, 2)
    path.unlink()
    of_range = path.name.rsplit("-", 2)[0]
    write_table(some, path.with_name(file_name(of_range, 2, some["row_id"].to_pylist())))


def no_table_and_part_of_the_last_round(output: Path) -> None:
    of_round(output, 2, "generations")[-1].unlink()
    no_table(output)


def no_judgments(output: Path) -> None:
    for path in of_round(output, 0, "judgments")[:2]:
        path.unlink()


def a_broken_file(output: Path) -> None:
    path = of_round(output, 1, "generations")[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def no_first_range_and_no_table(output: Path) -> None:
    """The draws can't be made again from what is there: every row's id is looked at."""
    path = of_round(output, 0, "generations")[0]
    no_table(output)
    path.unlink()


FAULTS = [
    lambda output: None, drawn_and_not_decoded, no_table, a_broken_table, not_drawn, a_range_of_a_later_round,
    part_of_a_range_of_a_later_round, no_table_and_part_of_the_last_round, no_judgments, a_broken_file,
    no_first_range_and_no_table,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_is_missing_is_made_again_by_the_same_command(
    done: Path, made: Folder, fault: Callable[[Path], None]
) -> None:
    before, texts, accepted = checksums(done), said(done), told(done)["accept"]
    n = len(rows(done / ".work", "generations"))
    fault(done)
    shutil.rmtree(done / "data")
    there = len(rows(done / ".work", "generations")) if fault is not a_broken_file else n - 5
    assert main(["run", str(made / "job.yaml"), "--output", str(done)]) == 0
    assert said(done) == texts and told(done)["accept"] == accepted
    assert told(done)["counts"]["generated"] == n - there  # what is there is never decoded again
    if fault is no_first_range_and_no_table:
        assert rounds_in(done) == 0
    else:
        assert rounds_in(done) == 3 and (done / ".work" / DRAWS_FILE).exists()
        if fault is not part_of_a_range_of_a_later_round:
            assert checksums(done) == before  # decoded together with what they were decoded with before


@pytest.mark.parametrize(
    "change",
    [
        {"accept": RULES[0] | {"min_score": 0.6}},
        {"accept": RULES[0] | {"rows_per_cell": 2}},
        {"accept": RULES[0] | {"max_candidates": 4}},
        {"accept": None, "samples_per_cell": 2},
        {"seed": 9},
    ],
    ids=str,
)
def test_other_draws_are_looked_at_row_by_row(done: Path, made: Folder, change: dict[str, Any]) -> None:
    options = [word for name, value in change.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    other = done.parent / "other"
    for output in (done, other):
        assert main(["run", str(made / "job.yaml"), *options, "--output", str(output)]) == 0
    assert rounds_in(other) > 0
    assert said(done) == said(other)
    assert told(done)["accept"] == told(other)["accept"]


def test_a_lower_score_goes_on_by_ranges_while_nothing_more_was_drawn(done: Path, made: Folder) -> None:
    """The first round is of any score and any judges."""
    not_drawn(done)
    job = str(made / "job.yaml")
    other = [*("--set", f"accept.min_score={RULES[1]['min_score']}"), "--output", str(done)]
    assert main(["run", job, *other]) == 0
    assert rounds_in(done) > 1 and told(done)["counts"]["kept_from_earlier_runs"] == 12


def test_prompts_that_say_the_same_are_looked_at_row_by_row(done: Path, made: Folder) -> None:
    """Their candidates are one another's; prompts from a file are told apart before."""
    found = opened(done, made, lambda grid: Grid([*grid.prompts, grid.prompts[0]], grid.personas))
    assert found is None


def test_in_a_store_it_is_the_data_set_of_a_disk(done: Path, made: Folder) -> None:
    url = f"memory://accept-{made.name}/out"
    assert main(["run", str(made / "job.yaml"), "--output", url]) == 0
    assert checksums(here(expanded(url))) == checksums(done)
    assert DRAWS_FILE in listing(expanded(url) / ".work")


@pytest.mark.long
def test_killed_in_any_round_it_gives_the_same_bytes(made: Folder, tmp_path: Path) -> None:
    """kill -9 of the driver, in each round; then the same command."""
    (tmp_path / "killed").mkdir()
    output = tmp_path / "killed" / "out"
    for n_rounds in (1, 2, 3):
        process = start(made, tmp_path / "killed")
        wait_for(lambda: output.exists() and rounds_in(output) >= n_rounds, f"round {n_rounds}")  # noqa: B023
        process.kill()
        finished(process)
    assert finished(start(made, tmp_path / "killed")) == 0
    assert checksums(output) == checksums(made / "out")
    assert told(output)["accept"] == told(made / "out")["accept"]


# --------------------------------------------------------------------------- arithmetic


def test_rounds_are_cut_into_ranges_in_the_plans_order(tmp_path: Path) -> None:
    """Against lists of all candidates; what a table says is what was drawn."""
    rng, rule, n_cells, size = np.random.default_rng(3), Accept(**RULES[1]), 23, 4
    rounds = Rounds("plan", "law", n_cells, rule, size)
    wanted = [[cell * 6 + sample for cell in range(n_cells) for sample in range(2)]]
    drawn = [2] * n_cells
    for _ in range(3):
        more = np.minimum(rng.integers(0, 3, n_cells) * (rng.random(n_cells) < 0.4), 6 - np.array(drawn))
        wanted.append([cell * 6 + drawn[cell] + i for cell in range(n_cells) for i in range(more[cell])])
        drawn = [n + int(k) for n, k in zip(drawn, more, strict=True)]
        rounds.draw(more.astype(np.int32))
    rounds.keep(tmp_path)
    again = Rounds("plan", "law", n_cells, rule, size)
    again.take_up(tmp_path)
    ranges = [some[i : i + size] for some in wanted for i in range(0, len(some), size)]
    for each in (rounds, again):
        assert [each.places(i) for i in range(len(each))] == ranges
        assert each.n == sum(map(len, wanted)) and each.drawn.tolist() == drawn and each.names == rounds.names
        for first, end in ((0, 5), (5, 6), (20, 23)):
            mine = [i for i, some in enumerate(ranges) if any(first <= place // 6 < end for place in some)]
            assert list(each.of_cells(first, end)) == mine
        for i in range(len(each)):
            file = parsed(file_name(each.name(i), 1, ["a"]))
            assert file is not None and each.index_of(file) == i
    for other in (Rounds("plan", "other", n_cells, rule, size), Rounds("other", "law", n_cells, rule, size)):
        other.take_up(tmp_path)
        assert other.n == 2 * n_cells
    assert len({*rounds.names, *Rounds("other", "law", n_cells, rule, size).names}) == 5


def test_no_more_than_a_block_is_held(done: Path, made: Folder) -> None:
    found = opened(done, made)
    assert found is not None and not list(found.to_do())
    pieces = list(found.pieces())
    assert len(pieces) == 4  # blocks of five cells of 16
    ids = [row_id for piece in pieces for row_id in piece["generations"]["row_id"].to_pylist()]
    assert ids == [row["row_id"] for row in rows(done)]
    assert not found.look().more.any()


def opened(output: Path, made: Folder, changed: Callable[[Grid], Grid] = lambda grid: grid) -> Candidates | None:
    """The candidates in an output, as a run of the job finds them."""
    job = load_job(made / "job.yaml")
    judges = RunJudges(job, output / ".work")
    assert job.accept is not None
    grid, law = changed(job.cells(job.load_prompts())), law_of(job.accept, job, judges)
    return candidates(output / ".work", Plan.of(job), grid, 5, judges, law)
