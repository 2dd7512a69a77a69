"""``mpg verify``: what was written is what comes out again, and what was changed is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from safetensors.torch import load_file, save_file

from pipeline.cli import main
from pipeline.store.layout import write_dataset
from pipeline.store.lock import FolderLock
from pipeline.store.manifest import write_manifest
from pipeline.store.schema import GENERATIONS
from tests.tiny_job import make_job, rows, write_job

TEMPLATE = "x{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with all that a row's provenance may hold: strengths, profiles, prompts of their own."""
    folder = tmp_path_factory.mktemp("verify")
    make_job(folder)
    people = [
        {"weights": {"E": 0.5, "J": 0.5}, "strengths": {"E": 2.0}, "profile": {"age": 36}, "personality": "Calm."},
        {"weights": {"J": 1}, "profile": "He bakes."},
    ]
    job = write_job(
        folder,
        model={"id": "base", "dtype": "float32", "system": "Be {profile}"},
        attributes=[{"name": "E", "adapter": "E", "system": "P {personality}"}, {"name": "J", "adapter": "J"}],
        personas={"kind": "explicit", "control": True, "weights": people},
        judges=[],
    )
    assert main(["run", str(job)]) == 0
    return folder


def rewrite(output: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change every row, and let the manifest agree: only the rows' own content can tell."""
    changed = rows(output)
    for row in changed:
        change(row)
    table = pa.Table.from_pylist(changed, schema=GENERATIONS)
    write_manifest(output, {"data": write_dataset(table, output / "data")})


def test_rows_come_out_the_same_from_their_provenance(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(written / "out"), "--sample", "20"]) == 0
    printed = capsys.readouterr().out
    assert "files: all as they were written" in printed
    assert "texts: 9 of 9 came out the same" in printed and "measured columns: 9 of 9 came out the same" in printed


@pytest.mark.parametrize(
    ("change", "words", "what"),
    [
        (lambda row: row.update(response=row["response"] + "!"), "response was", "9 texts"),
        (
            lambda row: row.update(log_prob_reference=row["log_prob_reference"] + 0.1),
            "log_prob_reference was",
            "of 9 rows",
        ),
        (lambda row: row.update(log_ratios=[x + 0.1 for x in row["log_ratios"]]), "log_ratios[0] was", "of 6 rows"),
        (
            lambda row: row.update(n_chunks=row["n_chunks"] + 1),
            "n_chunks was",
            "0 texts and measured columns of 9 rows",
        ),
        (lambda row: row.update(tv_bound=None), "tv_bound was", "0 texts and measured columns of 9 rows"),
        (lambda row: row.update(seed=1), "seed was 1", "9 texts and measured columns of 0 rows"),
        (lambda row: row.update(prompt=[{"role": "user", "content": "other"}]), "its id does not follow", "9 texts"),
        (lambda row: row.update(personality="Loud."), "its id does not follow", "texts and measured columns of 0 rows"),
    ],
)
def test_a_changed_row_is_found(
    written: Path, tmp_path: Path, change: Any, words: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    shutil.copytree(written / "out", output)
    rewrite(output, change)
    assert main(["verify", str(output), "--sample", "9"]) == 1
    captured = capsys.readouterr()
    assert words in captured.out and what in captured.err and "are not as they should be" in captured.err


def test_a_bound_that_an_older_version_estimated_is_no_change(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its other columns are held against today's as ever, and so is whether there is a bound."""
    output = tmp_path / "out"
    shutil.copytree(written / "out", output)
    old = GENERATIONS.with_metadata(GENERATIONS.metadata | {b"mpg.schema_version": b"5"})
    for change, schema, status in (
        ({"tv_bound": 0.05}, GENERATIONS, 1),
        ({"tv_bound": 0.05}, old, 0),
        ({"tv_bound": None}, old, 1),
        ({"tv_bound": 0.05, "n_chunks": 99}, old, 1),
    ):
        changed = [row | change for row in rows(written / "out")]
        table = pa.Table.from_pylist(changed, schema=schema)
        write_manifest(output, {"data": write_dataset(table, output / "data")})
        assert main(["verify", str(output), "--sample", "9"]) == status, (change, schema.metadata)


def test_judging_again_leaves_a_data_set_that_verifies(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    shutil.copytree(written / "out", output)
    assert main(["judge", str(output), "--judge", "log-ratio"]) == 0
    assert main(["verify", str(output), "--sample", "0"]) == 0
    with FolderLock(output / ".work"):  # a run is under way
        assert main(["judge", str(output)]) == 75
    assert "is in use by another process" in capsys.readouterr().err


def test_a_changed_file_is_found(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    shutil.copytree(written / "out", output)
    (path,) = (output / "data").glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert main(["verify", str(output), "--sample", "0"]) == 1
    assert "files: CHANGED" in capsys.readouterr().out


def test_other_weights_are_named_and_not_taken_for_a_difference(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(written, tmp_path / "moved")
    folder = tmp_path / "moved"
    (folder / "J").rename(folder / "J-old")
    shutil.copytree(folder / "E", folder / "J")
    assert main(["verify", str(folder / "out"), "--job", str(folder / "job.yaml")]) == 2
    err = capsys.readouterr().err
    assert "was written with adapter J" in err and "here it is" in err


def test_a_data_set_that_was_moved_asks_for_its_job(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(written / "out", tmp_path / "out", ignore=shutil.ignore_patterns(".work"))
    assert main(["verify", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    missing = (
        "model.id './base', attributes[0].adapter './E', attributes[1].adapter './J', prompts.file './prompts.jsonl'"
    )
    assert missing in line and line.endswith("give the job file instead (--job JOB.yaml)")
    assert main(["verify", str(tmp_path / "out"), "--job", str(written / "job.yaml")]) == 0
    assert main(["verify", str(tmp_path)]) == 2
    assert "no manifest can be read" in capsys.readouterr().err


def test_in_bfloat16_whole_shards_are_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rounding depends on what a row is decoded with; with the same, it comes out the same."""
    prompts = tuple(f"tell me {a}{b}" for a in "abcd" for b in "efg")
    job = make_job(tmp_path, prompts, model={"id": "base", "dtype": "bfloat16"}, judges=[], rows_per_shard=10)
    assert main(["run", str(job)]) == 0
    assert main(["verify", str(tmp_path / "out"), "--sample", "12"]) == 0
    assert "texts: 12 of 12 came out the same" in capsys.readouterr().out
    whole = [row["log_ratios"] for row in rows(tmp_path / "out")]
    rewrite(tmp_path / "out", lambda row: row.update(log_ratios=[x + 0.1 for x in row["log_ratios"]]))
    assert main(["verify", str(tmp_path / "out"), "--sample", "12"]) == 1  # no other machine, no other batch
    assert "log_ratios[0] was" in capsys.readouterr().out
    back = iter(whole)
    rewrite(tmp_path / "out", lambda row: row.update(log_ratios=next(back)))
    change = {"response": "other"}
    rewrite(tmp_path / "out", lambda row: row.update(change))
    assert main(["verify", str(tmp_path / "out"), "--sample", "12"]) == 1
    assert "12 texts" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    others = [
        ("regrouped", True),
        ("smaller_batches", {"cpu": 2}),
        ("torch", "2.0"),
        ("machines", [{"processor": "of another kind"}]),
    ]
    for name, value in others:  # where it could be rounding, it is said, and no error
        section = "versions" if name == "torch" else "computed_with"
        (tmp_path / "out" / "run.json").write_text(json.dumps(record | {section: record[section] | {name: value}}))
        assert main(["verify", str(tmp_path / "out"), "--sample", "12"]) == 0
        printed = capsys.readouterr().out
        assert "texts: 0 of 12 came out the same" in printed and "rounding depends on the batch" in printed
        assert ("written on of another kind; this is" in printed) == (name == "machines")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_of_other_weights_are_refused_wherever_they_stand(
    tmp_path: Path, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some rows are of the adapter that is here, some of one that was: none is passed over."""
    personas = {"kind": "one-hot"}
    job = make_job(tmp_path, model={"id": "base", "dtype": dtype}, judges=[], personas=personas)
    shutil.copytree(tmp_path / "E", tmp_path / "kept")
    halved(tmp_path / "E")
    assert main(["run", str(job)]) == 0
    shutil.rmtree(tmp_path / "E")
    (tmp_path / "kept").rename(tmp_path / "E")
    capsys.readouterr()
    for sample in ("1", "20"):
        assert main(["verify", str(tmp_path / "out"), "--sample", sample]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "was written with adapter E" in line and "(so were 2 more of 6 rows)" in line


def halved(adapter: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: each / 2 for name, each in weights.items()}, adapter / "adapter_model.safetensors")


@pytest.mark.parametrize(("keep", "status"), [(("p0", "p1", "p2"), 0), (("p0",), 1), ((), 1)])
def test_in_bfloat16_rows_that_the_job_plans_no_more_are_counted(
    tmp_path: Path, keep: tuple[str, ...], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job(tmp_path, model={"id": "base", "dtype": "bfloat16"}, judges=[], personas={"kind": "one-hot"})
    assert main(["run", str(job)]) == 0
    prompts = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    new = [{**row, "prompt": row["prompt"] if row["id"] in keep else row["prompt"] + " now"} for row in prompts]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in new))
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "out"), "--job", str(job)]) == status
    captured = capsys.readouterr()
    n = 2 * len(keep)
    assert f"texts: {n} of {n} came out the same" in captured.out
    if status:
        assert f"{6 - n} of 6 rows could not be compared (in bfloat16" in captured.err and "--job" in captured.err
        # An id that follows from nothing is wrong, not left out.
        rewrite(tmp_path / "out", lambda row: row.update(seed=1, sample_index=7))
        assert main(["verify", str(tmp_path / "out"), "--job", str(job)]) == 1
        captured = capsys.readouterr()
        assert "its id does not follow" in captured.out and "6 texts" in captured.err
        assert "could not be compared" not in captured.err


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("chat template", lambda base: (base / "chat_template.jinja").write_text(TEMPLATE)),
        ("end tokens", lambda base: edit(base / "generation_config.json", eos_token_id=[0, 5])),
        ("tokenizer", lambda base: edit(base / "tokenizer_config.json", pad_token="z")),
    ],
)  # fmt: skip
def test_what_chats_are_read_with_is_named_and_not_taken_for_a_difference(
    written: Path, tmp_path: Path, part: str, change: Callable[[Path], Any], copied: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Where a data set's work folder is gone, too."""
    shutil.copytree(written, tmp_path / "moved")
    folder = tmp_path / "moved"
    if copied:
        shutil.rmtree(folder / "out" / ".work")
    command = ["verify", str(folder / "out"), "--job", str(folder / "job.yaml"), "--sample", "2"]
    assert main(command) == 0
    change(folder / "base")
    capsys.readouterr()
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"model.id: the {part} in " in line and "bring the earlier files back" in line


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
