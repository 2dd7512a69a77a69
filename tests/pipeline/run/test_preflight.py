"""What can be known before a model is loaded is known to `mpg check`, and to `mpg run` before anything is begun."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from pipeline.cli import main
from pipeline.job.errors import JobError
from pipeline.job.load import load_job
from pipeline.plan.plan import Plan
from pipeline.run.preflight import preflight, read_prompts
from pipeline.store.lock import FolderLock
from tests.tiny_job import write_job, write_prompts


def looked(job_file: Path, *overrides: str, beam: tuple[str, ...] = ()) -> Any:
    job = load_job(job_file, overrides)
    return preflight(job, job.load_prompts(), beam)


def line(job_file: Path, *overrides: str) -> str:
    (problem,) = looked(job_file, *overrides).problems
    assert "\n" not in problem
    return problem


@pytest.fixture
def place(job_file: Path) -> Path:
    return job_file.parent


def test_a_sound_job_has_nothing_to_say_and_leaves_nothing(job_file: Path, place: Path) -> None:
    before = sorted(place.rglob("*"))
    found = looked(job_file, beam=("--direct_num_workers=2", "--direct_running_mode=multi_processing"))
    assert found.problems == () and found.unknown == ()
    assert sorted(place.rglob("*")) == before and not (place / "out").exists()


@pytest.mark.parametrize("command", ["check", "run", "plan"])
def test_every_command_refuses_what_check_refuses(
    job_file: Path, place: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "out").mkdir()
    (place / "out" / "thesis.txt").write_text("mine")
    assert main([command, str(job_file), "--", "--direct_numworkers=2"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert [each for each in lines if "did you mean '--direct_num_workers'" in each]
    assert [each for each in lines if "holds files of something else" in each]
    assert os.listdir(place / "out") == ["thesis.txt"]


# --------------------------------------------------------------------------- judges


def test_a_key_and_a_description_that_a_judge_will_ask_for(
    job_file: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    judge = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "SOME_KEY"}
    write_job(place, judges=[judge])
    assert "the environment has no SOME_KEY; export it" in line(job_file)
    job = load_job(job_file)
    assert preflight(job, job.load_prompts(), runs=False).problems == ()
    monkeypatch.setenv("SOME_KEY", "x")
    assert looked(job_file).problems == ()
    own = [{"name": "curious", "adapter": "E"}]
    write_job(place, judges=[judge], attributes=own, personas={"kind": "one-hot"})
    with pytest.raises(JobError, match="'curious' has none, which a judge behind an endpoint grades by"):
        load_job(job_file)


# --------------------------------------------------------------------------- prompts


def test_prompts_that_are_too_long_are_counted_and_too_many_are_an_error(job_file: Path, place: Path) -> None:
    write_prompts(place, ("hello you", "a" * 400, "what now?", "  "))
    assert line(job_file) == (
        "prompts: 8 of 16 texts would be rejected (4 too_long: prompt 'p1': 401 prompt tokens and 12 new ones exceed "
        "the model's 256; 4 empty_prompt: prompt 'p3': the prompt has no text; give it some or remove it), more than "
        "max_rejected_fraction 0.1 allows; shorten them, or lower decoder.max_new_tokens; give them a text"
    )
    found = looked(job_file, "max_rejected_fraction=0.5", "samples_per_cell=2")
    assert found.problems == () and [note for note in found.notes if "16 of 32 texts would be rejected" in note]


def test_a_template_that_takes_no_system_message_is_known_before_a_run(job_file: Path, place: Path) -> None:
    template = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    (place / "base" / "chat_template.jinja").write_text(template + "{{ m['content'] }}{% endfor %}")
    assert looked(job_file).problems == ()
    why = "the chat template refuses a chat with a system message ('no system')"
    assert line(job_file, "model.system=be brief") == f"model.system_role: template: {why}; set fold"
    assert looked(job_file, "model.system=be brief", "model.system_role=fold").problems == ()


def test_of_very_many_prompts_some_are_read(job_file: Path, place: Path) -> None:
    write_prompts(place, tuple(f"say {'a' * (400 if i % 4 == 0 else 4)} {i}" for i in range(100)))
    job = load_job(job_file)
    found = read_prompts(Plan.of(job), job.load_prompts(), most=25)
    assert (found.n_cells, found.of) == (100, 400)
    (problem,) = found.problems(0.1)
    assert "100 looked at (of 400)" in problem


# --------------------------------------------------------------------------- output


@pytest.mark.parametrize("where", ["out", "deep/er/out"])
def test_an_output_that_can_be_made_is_not_made(job_file: Path, place: Path, where: str) -> None:
    assert looked(job_file, f"output={place / where}").problems == ()
    assert not (place / where.split("/")[0]).exists()


def test_a_foreign_or_unwritable_output(job_file: Path, place: Path) -> None:
    (place / "file").write_text("x")
    assert "is no folder" in line(job_file, f"output={place / 'file' / 'out'}")
    (place / "other").mkdir()
    (place / "other" / "a").write_text("x")
    assert "holds files of something else" in line(job_file, f"output={place / 'other'}")
    assert "can't be written" in line(job_file, "output=/proc/out")
    (place / "empty").mkdir()
    assert looked(job_file, f"output={place / 'empty'}").problems == ()
    assert os.listdir(place / "empty") == []


def test_another_run_on_the_folder_is_worth_a_note(job_file: Path, place: Path) -> None:
    work = place / "out" / ".work"
    work.mkdir(parents=True)
    with FolderLock(work):
        found = looked(job_file)
        assert found.problems == ()
        assert [note for note in found.notes if f"pid {os.getpid()}" in note and "is in use" in note]
    assert not [note for note in looked(job_file).notes if "in use" in note]


# --------------------------------------------------------------------------- models and adapters


def test_adapter_files_are_looked_at(job_file: Path, place: Path) -> None:
    config, weights = place / "J" / "adapter_config.json", place / "J" / "adapter_model.safetensors"
    sound, tensors = config.read_text(), {name: tensor.clone() for name, tensor in load_file(weights).items()}
    config.write_text("{")
    assert line(job_file).startswith("attributes[1].adapter: adapter ")
    assert "adapter_config.json can't be read" in line(job_file)
    config.write_text(json.dumps({"peft_type": "LORA"}))
    assert "adapter_config.json can't be read (KeyError: 'r')" in line(job_file)
    config.write_text(sound)
    weights.write_bytes(b"not tensors")
    assert "adapter_model.safetensors can't be read" in line(job_file)
    weights.unlink()
    assert "no adapter_model.safetensors" in line(job_file)
    save_file({name: tensor for name, tensor in tensors.items() if "lora_B" not in name}, weights)
    assert "has one factor of two" in line(job_file)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", "{}", "model.id: "),
        ("config.json", "{", "model.id: "),
        ("tokenizer.json", "{", "model.id: "),
        ("chat_template.jinja", None, "has no chat template"),
        ("model.safetensors", None, "no *.safetensors"),
    ],
)
def test_model_files_are_looked_at(job_file: Path, place: Path, file: str, content: str | None, words: str) -> None:
    path = place / "base" / file
    path.unlink() if content is None else path.write_text(content)
    assert words in line(job_file)


def test_more_threads_than_the_machine_has_are_a_note(job_file: Path) -> None:
    found = looked(job_file, "threads=999")
    assert found.problems == () and [
        note for note in found.notes if note.startswith("threads: 999, where this machine")
    ]


# --------------------------------------------------------------------------- size


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (["samples_per_cell=1000000000"], "samples_per_cell: 1,000,000,000 makes 12,000,000,000 texts (3 prompts x 4"),
        (["samples_per_cell=10000000000000"], "samples_per_cell"),
        (["personas={kind: simplex, steps: 1000000000}"], "personas.steps: 1000000000 makes 1,000,000,001 personas"),
        (
            ["personas={kind: dirichlet, n: 100000}", "samples_per_cell=10000"],
            "personas.n: 100,000 makes 3,000,000,000",
        ),
        (
            [f"personas={{kind: dirichlet, n: 100000, strengths: {[x / 10 for x in range(1, 300)]}}}"],
            "personas.strengths",
        ),
        (
            [f"personas={{kind: one-hot, strengths: {[x / 10 for x in range(1, 60000)]}}}"],
            "personas.strengths: ",
        ),
        (["accept={min_score: 0.5, rows_per_cell: 100000000, max_candidates: 100000000}"], "accept.rows_per_cell"),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_grid_that_nothing_could_hold(
    job_file: Path, command: str, overrides: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [each for override in overrides for each in ("--set", override)]
    assert main([command, str(job_file), *arguments]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith(f"mpg: {job_file}: {field}") and "more than" in said


def test_check_says_what_it_found(job_file: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_prompts(place, ("hello you", "a <eos> b", "what now?", "and then?"))
    assert main(["check", str(job_file), "--set", "threads=999", "--set", "control_tokens=allow"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("16 texts of at most 12 tokens")
    assert "note: control_tokens: allow: 4 of 16 texts hold control tokens" in "\n".join(said)
    assert "note: threads: 999" in "\n".join(said)


def test_a_message_that_begins_with_a_colon_is_told_to_its_end(job_file: Path, place: Path) -> None:
    """What lists its reasons after the first line ended there."""
    (place / "base" / "tokenizer.json").unlink()
    said = line(job_file)
    assert said.startswith("model.id: ") and "instantiate the backend tokenizer" in said
    assert "serialization file" in said and "slow tokenizer" in said and ":)" not in said
