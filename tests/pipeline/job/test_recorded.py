"""A data set's own job.json is a job to run again, and names no place of the machine that wrote it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.job.errors import JobError
from pipeline.job.load import load_job
from pipeline.job.recorded import recorded, recorded_text
from pipeline.run.run import run_job
from tests.job_desk import Desk
from tests.tiny_job import checksums, make_job, write_prompts


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job in ``job/`` and its data set in ``data/set``."""
    folder = tmp_path_factory.mktemp("machine")
    job = make_job(folder / "job", judges=[], output="../data/set")
    run_job(load_job(job))
    return folder


@pytest.fixture
def machine(written: Path, tmp_path: Path) -> Path:
    """The same on a machine of its own; what it was relative to is noted as a run there would."""
    folder = Path(shutil.copytree(written, tmp_path / "machine"))
    (folder / "data" / "set" / ".work" / "job-folder").write_text(str(folder / "job"))
    return folder


@pytest.mark.parametrize("here", [".", "data/set", "job", "/"])
def test_it_runs_again_from_anywhere(machine: Path, here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = machine / "data" / "set"
    before = checksums(output)
    monkeypatch.chdir(machine / here)
    record = os.path.relpath(output / "job.json")
    assert main(["check", record]) == main(["run", record]) == main(["verify", os.path.relpath(output)]) == 0
    assert json.loads((output / "run.json").read_text())["counts"]["generated"] == 0
    assert checksums(output) == before
    assert sorted(path.name for path in (machine / "data").iterdir()) == ["set"]


def test_it_goes_on_with_more(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_prompts(machine / "job", ("hello you", "what now?", "tell me more", "and so?"))
    assert main(["run", str(machine / "data" / "set" / "job.json")]) == 0
    assert "16 rows (4 new, 12 kept, 0 rejected)" in capsys.readouterr().out


def test_a_deadline_is_a_runs_and_not_the_data_sets(machine: Path) -> None:
    output = machine / "data" / "set"
    before = checksums(output)
    assert main(["run", str(machine / "job" / "job.yaml"), "--deadline", "2999-01-01T07:00"]) == 0  # nothing is left
    assert json.loads((output / "job.json").read_text())["deadline"] is None
    write_prompts(machine / "job", ("hello you", "what now?", "tell me more", "and so?"))
    assert main(["run", str(output / "job.json")]) == 0
    assert checksums(output) != before


def test_it_may_write_elsewhere(machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = str(machine / "data" / "set" / "job.json")
    monkeypatch.chdir(tmp_path)
    assert load_job(record, output="new").output_folder == tmp_path / "new"
    assert load_job(record, ["output=../other"]).output_folder == machine / "other"  # as all: from the job's folder
    assert load_job(record).output_folder == machine / "data" / "set"


@pytest.mark.parametrize("command", ["check", "run", "plan"])
@pytest.mark.parametrize("gone", ["moved", "no .work", "no job folder", "some files"])
def test_elsewhere_one_line_names_all_that_is_missing(
    machine: Path, command: str, gone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = machine / "data" / "set"
    missing = ["model.id './base'", "attributes[0].adapter './E'", "attributes[1].adapter './J'"]
    missing.append("prompts.file './prompts.jsonl'")
    if gone == "moved":
        output = Path(shutil.copytree(output, tmp_path / "elsewhere", ignore=shutil.ignore_patterns(".work")))
    elif gone == "no .work":
        shutil.rmtree(output / ".work")
    elif gone == "no job folder":
        shutil.rmtree(machine / "job")
    else:
        shutil.rmtree(machine / "job" / "E")
        (machine / "job" / "prompts.jsonl").unlink()
        missing = [missing[1], missing[3]]
    assert main([command, str(output / "job.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mpg: {output / 'job.json'}: files: missing in '") and f": {', '.join(missing)}; " in line
    assert line.endswith("bring them there, or give the job file instead")
    assert ("is not known here" in line) == (gone in ("moved", "no .work"))


def test_without_its_work_folder_it_runs_where_its_files_are(machine: Path) -> None:
    shutil.rmtree(machine / "data" / "set" / ".work")
    for name in ("base", "E", "J", "prompts.jsonl"):
        (machine / "job" / name).rename(machine / "data" / "set" / name)
    assert main(["check", str(machine / "data" / "set" / "job.json")]) == 0


def test_no_absolute_place_is_recorded(desk: Desk) -> None:
    (desk.folder / "base").mkdir()
    (desk.folder / "base" / "config.json").write_text("{}")
    (desk.folder / "p.yaml").write_text("personas: [{name: ada, weights: {E: 1}}]")
    mine = desk.adapter("mine")
    job = desk.load(
        f"model.id={desk.folder / 'base'}", f"prompts.file={desk.folder / 'prompts.jsonl'}",
        f"attributes=[{{name: E, adapter: {mine}, reference: {desk.folder / 'base'}}}, {{name: N, adapter: mine}}, "
        "{name: T, adapter: owner/lora}, J]",
        f"personas={{kind: file, file: {desk.folder / 'p.yaml'}}}", f"output={desk.folder / 'out'}",
    )  # fmt: skip
    assert str(desk.folder) not in recorded_text(job)
    data = recorded(job)
    assert [each["adapter"] for each in data["attributes"]] == ["./mine", "./mine", "owner/lora", None]
    assert (data["model"]["id"], data["attributes"][0]["reference"], data["output"]) == ("./base", "./base", ".")
    again = desk.folder / "again.yaml"
    again.write_text(recorded_text(job).replace('"output": "."', '"output": "out"'))
    loaded = load_job(again, shipped={"J": desk.folder})
    assert loaded.resolve(loaded.model.id) == str(desk.folder / "base")
    assert loaded.load_prompts() == job.load_prompts() and loaded.build_personas() == job.build_personas()
    assert loaded.work_hash() == job.work_hash()


def test_a_copy_of_it_is_a_job_that_needs_an_output(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(machine / "data" / "set" / "job.json", machine / "job" / "mine.json")
    with pytest.raises(JobError, match=r"output: '.' is the job file's own folder; name another, e.g. out"):
        load_job(machine / "job" / "mine.json")
    assert load_job(machine / "job" / "mine.json", output=machine / "x").output_folder == machine / "x"
