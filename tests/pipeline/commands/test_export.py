"""``mpg export``: a form lies in its data set, TRL's trainers take it as it is, and it goes when it no longer fits."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.cli import main
from pipeline.store.dataset import FORMS
from pipeline.store.layout import files_in
from pipeline.store.lock import FolderLock
from pipeline.store.manifest import changed_files
from tests.fakes import spelling_llama
from tests.tiny_job import checksums, make_job, rows, write_job

SPLIT = {"by": "prompt", "test_fraction": 0.5, "seed": 2}
FORMAT = {form: ["--format", form] for form in FORMS}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job with three samples a cell and a test split, run to its data set."""
    folder = tmp_path_factory.mktemp("job")
    assert main(["run", str(make_job(folder, samples_per_cell=3, split=SPLIT))]) == 0
    return folder


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "job")
    write_job(tmp_path / "job", samples_per_cell=3, split=SPLIT)
    (tmp_path / "job" / "out" / ".work" / "job-folder").write_text(str(tmp_path / "job"))
    return tmp_path / "job" / "out"


def export(output: Path, form: str, *options: str, status: int = 0) -> None:
    assert main(["export", str(output), *FORMAT[form], *options]) == status


def line(output: Path, capsys: pytest.CaptureFixture[str], *options: str, status: int = 2) -> str:
    capsys.readouterr()
    assert main(["export", str(output), *options]) == status
    (found,) = capsys.readouterr().err.strip().splitlines()
    return found


def load(output: Path, form: str | None) -> datasets.DatasetDict:
    return datasets.load_dataset(str(output), form, cache_dir=str(output.parent / "cache"))


def configs(output: Path) -> list[str]:
    front = yaml.safe_load((output / "README.md").read_text().split("---\n")[1])
    return [each["config_name"] for each in front["configs"]]


def test_forms_are_configurations_of_the_same_data_set(output: Path) -> None:
    before = checksums(output)
    for form in FORMS:
        export(output, form)
    assert configs(output) == ["default", "judgments", *FORMS] and changed_files(output) == {}
    now = checksums(output)
    assert {name for name in now if now[name] != before.get(name)} == {
        "README.md",
        "manifest.json",
        *(f"{form}/{split}-00000-of-00001.parquet" for form in FORMS for split in ("train", "test")),
    }
    of_row = {row["row_id"]: row for row in rows(output)}
    splits = {split: set(load(output, None)[split]["row_id"]) for split in ("train", "test")}
    for form in FORMS:
        loaded = load(output, form)
        for split in ("train", "test"):
            for row in loaded[split]:
                mine = [row[name] for name in ("row_id", "chosen_row_id", "rejected_row_id") if name in row]
                assert set(mine) <= splits[split] and of_row[mine[0]]["persona"] == row["persona"]
        assert len(list(datasets.load_dataset(str(output), form, streaming=True)["test"])) == len(loaded["test"])
    assert main(["verify", str(output), "--sample", "3"]) == 0


@pytest.mark.parametrize("form", FORMS)
def test_the_same_command_writes_the_same_bytes(output: Path, form: str) -> None:
    export(output, form)
    once = checksums(output)
    export(output, form)
    assert checksums(output) == once
    export(output, form, "--persona", "E1.00")
    assert checksums(output) != once


def test_a_form_stays_while_it_fits_and_goes_when_it_does_not(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    job = output.parent / "job.yaml"
    for form in FORMS:
        export(output, form, "--system", "none")
    whole = checksums(output)
    assert main(["run", str(job)]) == 0  # nothing has changed
    assert checksums(output) == whole and configs(output) == ["default", "judgments", *FORMS]
    assert main(["judge", str(output)]) == 0  # the same scores again
    assert configs(output) == ["default", "judgments", *FORMS] and changed_files(output) == {}
    assert main(["judge", str(output), "--judge", "log-ratio"]) == 0  # more of them
    assert configs(output) == ["default", "judgments", "messages", "prompt-completion"]
    assert not (output / "preference").exists() and changed_files(output) == {}
    said = [each.getMessage() for each in caplog.records if "make it again" in each.getMessage()]
    remedy = f"mpg export {output} --format preference --system none --between cells --min-margin 0"
    assert len(said) == 1 and said[0].startswith(f"{output / 'preference'}: ") and said[0].endswith(remedy)
    assert main(["run", str(job), "--set", "samples_per_cell=4"]) == 0  # other rows
    assert configs(output) == ["default", "judgments"] and changed_files(output) == {}
    assert not any((output / form).exists() for form in FORMS)
    assert sum(load(output, None).num_rows.values()) == 48


def test_another_split_is_another_form(output: Path) -> None:
    export(output, "messages")
    assert main(["run", str(output.parent / "job.yaml"), "--set", "split=null"]) == 0
    assert not (output / "messages").exists() and changed_files(output) == {}


def trainer_args(folder: Path) -> dict[str, Any]:
    return {"output_dir": str(folder / "trained"), "report_to": "none", "use_cpu": True, "bf16": False}


@pytest.mark.parametrize("form", ["messages", "prompt-completion"])
def test_sft_trainer_takes_it_as_it_is(output: Path, form: str, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    export(output, form)
    loaded = load(output, form)
    args = SFTConfig(**trainer_args(tmp_path), max_length=1000, per_device_train_batch_size=2)
    trainer = SFTTrainer(
        str(spelling_llama(tmp_path / "model")), args, train_dataset=loaded["train"], eval_dataset=loaded["test"]
    )
    text = {row["row_id"]: row["response"] for row in rows(output)}[loaded["train"][0]["row_id"]]
    ids = trainer.train_dataset[0]["input_ids"]
    assert trainer.processing_class.decode(ids).endswith(f"<|im_start|>assistant\n{text.strip()}<|im_end|>\n")
    batch = next(iter(trainer.get_train_dataloader()))
    assert len(trainer.train_dataset) == len(loaded["train"]) and {"input_ids", "labels"} <= set(batch)
    first = trainer.train_dataset[0]
    taught = [i for i, label in zip(ids, first.get("labels", ids), strict=True) if label != -100]
    said = trainer.processing_class.decode(taught)
    assert (said == f"{text.strip()}<|im_end|>\n") == (form == "prompt-completion")


def test_dpo_trainer_takes_it_as_it_is(output: Path, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    export(output, "preference", "--between", "personas")
    loaded = load(output, "preference")
    args = DPOConfig(**trainer_args(tmp_path), max_length=1000, per_device_train_batch_size=2)
    model = str(spelling_llama(tmp_path / "model"))
    trainer = DPOTrainer(model, args=args, train_dataset=loaded["train"], eval_dataset=loaded["test"])
    decode = trainer.processing_class.decode
    text = {row["row_id"]: row["response"].strip() for row in rows(output)}
    first, given = trainer.train_dataset[0], loaded["train"][0]
    for side in ("chosen", "rejected"):
        assert decode(first[f"{side}_ids"]) == f"{text[given[f'{side}_row_id']]}<|im_end|>\n"
    assert decode(first["prompt_ids"]).startswith("<|im_start|>system\nAnswer as a person would")
    assert next(iter(trainer.get_train_dataloader()))["input_ids"].shape[0] == 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--min-margin", "0.1"], "--min-margin 0.1: is for --format preference; remove it, or export that"),
        (["--between", "cells"], "--between cells: is for --format preference; remove it, or export that"),
        (["--min-score", "1.5"], "--min-score 1.5: is out of range; give a number from 0 to 1"),
        (["--min-score", "nan"], "--min-score nan: is out of range; give a number from 0 to 1"),
        (
            ["--persona", "Q"],
            "--persona Q: the data set has no such persona; it has reference, E1.00, E0.50+J0.50",
        ),
    ],
)
def test_options_that_can_not_be_followed(
    output: Path, options: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line(output, capsys, "--format", "messages", *options).startswith(f"mpg: {expected}")
    assert not (output / "messages").exists()


def test_personas_may_be_named_before_the_folder(output: Path) -> None:
    assert main(["export", "--format", "messages", "--persona", "E1.00", "J1.00", str(output)]) == 0
    assert set(load(output, "messages")["train"]["persona"]) == {"E1.00", "J1.00"}


def test_a_data_set_that_is_not_whole_is_refused(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = (path for path in files_in(output / "data") if path.name.startswith("test-"))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    expected = f"mpg: {path}: is not as the data set's manifest says (not the {len(content)} bytes that were written); "
    assert line(output, capsys, *FORMAT["messages"]).startswith(expected)
    path.write_bytes(content)
    (judgments, *_) = files_in(output / "judgments")
    judgments.rename(output / "kept")
    for form in FORMS:  # whatever a form reads: the card that is written with it would be without them
        assert line(output, capsys, *FORMAT[form]).startswith(f"mpg: {judgments}: is not as the data set's manif")
    (output / "kept").rename(judgments)
    record = json.loads((output / "run.json").read_text())
    record["ended"] = {"complete": False, "why": "stopped (deadline)", "status": 75}
    (output / "run.json").write_text(json.dumps(record))
    said = line(output, capsys, *FORMAT["messages"])
    assert said == f"mpg: {output}: is not complete (stopped (deadline)); run it to its end first"
    for place, what in ((output / "data", "is no complete data set"), (output.parent / "nowhere", "no such folder")):
        assert line(place, capsys, *FORMAT["messages"]).startswith(f"mpg: {place}: {what}; give the folder of one that")
    assert not (output / "data" / ".work").exists()


def test_no_pair_is_one_line_and_leaves_everything(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(output, "preference")
    before = checksums(output)
    said = line(output, capsys, *FORMAT["preference"], "--min-margin", "1")
    assert said.startswith(
        f"mpg: {output}: no pair can be made of 9 cells of a prompt and a persona: 9 with a margin be"
    )
    assert checksums(output) == before


def test_not_beside_a_run(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FolderLock(output / ".work"):
        assert "is in use by another process" in line(output, capsys, *FORMAT["messages"], status=75)


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    """Judgments of a file may go into any folder, whatever else is called `messages` there."""
    (tmp_path / "texts.jsonl").write_text('{"text": "so good"}\n')
    theirs = tmp_path / "there" / "messages" / "train-00000-of-00001.parquet"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"mine")
    command = ["judge", str(tmp_path / "texts.jsonl"), "--column", "text", "--attributes", "E"]
    assert main([*command, "--output", str(tmp_path / "there")]) == 0
    assert theirs.read_bytes() == b"mine" and files_in(tmp_path / "there" / "judgments")


def test_a_published_data_set_without_its_work_folder(output: Path) -> None:
    export(output, "preference")
    before = checksums(output)
    shutil.rmtree(output / ".work")
    export(output, "preference")
    assert checksums(output) == before
    assert pq.read_schema(files_in(output / "preference")[0]).metadata is not None
    assert main(["run", str(output.parent / "job.yaml")]) == 0
    assert checksums(output) == before  # its rows are taken up, and the form still fits


def test_a_file_that_is_none_of_the_data_sets_is_not_removed(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(output, "messages")
    theirs = output / "messages" / "mine.parquet"
    theirs.write_bytes(b"mine")
    assert line(output, capsys, *FORMAT["messages"]) == (
        f"mpg: {theirs}: is no file of this data set, and would be removed; move it elsewhere"
    )
    assert theirs.read_bytes() == b"mine"
    (output / "preference").write_text("a note")
    said = line(output, capsys, *FORMAT["preference"])
    assert said == f"mpg: {output / 'preference'}: is no folder, and the form would go there; move it elsewhere"
    export(output, "prompt-completion")
    theirs.unlink()
    export(output, "messages")


def test_the_control_is_no_persona_to_be_judged_by(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (FORMAT["preference"], [*FORMAT["messages"], "--min-score", "0.1"]):
        said = line(output, capsys, *options, "--persona", "reference")
        assert said.startswith("mpg: --persona reference: weighs no attribute") and "name another" in said
    export(output, "messages", "--persona", "reference")


def test_a_folder_of_any_name_is_opened_by_the_line_that_is_printed(
    output: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    odd = Path(shutil.copytree(output, output.parent / 'it\'s "my" out'))
    capsys.readouterr()
    export(odd, "messages")
    (opened,) = (each for each in capsys.readouterr().out.splitlines() if each.startswith("open it:  "))
    call = ast.parse(opened.removeprefix("open it:  "), mode="eval").body
    assert isinstance(call, ast.Call) and [ast.literal_eval(each) for each in call.args] == [str(odd), "messages"]
    write_job(odd.parent, samples_per_cell=2, split=SPLIT)
    caplog.clear()
    assert main(["run", str(odd.parent / "job.yaml"), "--output", str(odd)]) == 0
    (said,) = (each.getMessage() for each in caplog.records if "make it again with" in each.getMessage())
    words = shlex.split(said.partition("make it again with ")[2])
    assert words == ["mpg", "export", str(odd), "--format", "messages", "--system", "persona"]
