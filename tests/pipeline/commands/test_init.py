"""``mpg init``: a job of one's own that passes its check and runs as it is."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main
from pipeline.job.load import load_job
from tests.tiny_job import make_job, rows


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_asks_for_nothing_and_passes_its_check(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "my job"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "written: my job/job.yaml, my job/prompts.jsonl; next:"
    commands = [shlex.split(line) for line in said[1:]]
    assert commands == [["mpg", "check", "my job/job.yaml"], ["mpg", "run", "my job/job.yaml"]]
    assert main(commands[0][1:]) == 0
    assert f"30 texts of at most 96 tokens, to {here / 'my job' / 'out'}" in capsys.readouterr().out
    lines = (here / "my job" / "job.yaml").read_text().splitlines()
    assert all("# " in line and len(line.partition("# ")[2]) > 3 for line in lines)  # every line says what it is for
    job = load_job(here / "my job" / "job.yaml")
    assert job.name == "my-job" and job.attribute_names == ("E", "N", "T", "J") and not Path("out").exists()


@pytest.mark.parametrize("present", ["job.yaml", "prompts.jsonl"])
def test_nothing_is_overwritten(here: Path, present: str, capsys: pytest.CaptureFixture[str]) -> None:
    (here / present).write_text("mine")
    assert main(["init"]) == 2
    assert capsys.readouterr().err == f"mpg: {present}: is there already; name another folder, or remove it\n"
    assert (here / present).read_text() == "mine" and len(list(here.iterdir())) == 1


def test_with_prompts_adapters_and_a_model_of_ones_own_it_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_job(here / "mine")
    (here / "mine" / "prompts.jsonl").rename(here / "mine" / "a: b.jsonl")
    words = ["--adapter", "E=mine/E", "--adapter", "no=mine/J", "--prompts", "mine/a: b.jsonl"]
    assert main(["init", "new", *words]) == 0
    assert sorted(path.name for path in (here / "new").iterdir()) == ["job.yaml"]  # prompts stay where they are
    job = load_job(here / "new" / "job.yaml")
    assert job.attribute_names == ("E", "no") and str(here) not in (here / "new" / "job.yaml").read_text()
    assert job.resolve(job.model.id) == str(here / "new" / ".." / "mine" / "base")  # what the adapters name
    assert main(["run", "new/job.yaml", "--set", "decoder.max_new_tokens=8"]) == 0
    assert len(rows(here / "new" / "out")) == 9


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (None, {"template_arguments": {"enable_thinking": False}, "date": "2025-03-09", "system_role": "fold"}),
        ({"date": "2025-03-09"}, {"date": "2025-03-09"}),  # what they do not agree about is left out
        ({}, {}),
    ],
)
def test_chats_are_put_as_in_the_adapters_training(here: Path, others: dict[str, str] | None, told: object) -> None:
    make_job(here / "mine")
    style = {"arguments": {"enable_thinking": False}, "date": "2025-03-09", "system_role": "fold"}
    for name, template in {"E": style, "J": style if others is None else others}.items():
        (here / "mine" / name / "card.json").write_text(json.dumps({"base_model": "mine/base", "template": template}))
    assert main(["init", "new", "--adapter", "E=mine/E", "--adapter", "J=mine/J"]) == 0
    assert yaml.safe_load((here / "new" / "job.yaml").read_text())["model"] == {"id": "../mine/base"} | told  # type: ignore[operator]
    load_job(here / "new" / "job.yaml")


def test_what_a_trained_adapter_says_of_itself_is_taken_over(here: Path) -> None:
    make_job(here / "mine")
    card = {"description": "Asks: why? #1", "base_model": "mine/base"}
    (here / "mine" / "E" / "card.json").write_text(json.dumps(card))
    shutil.copy(here / "mine" / "prompts.jsonl", here / "p.jsonl")
    url = "http://localhost:8000/v1"
    assert main(["init", ".", "--adapter", "curious=mine/E", "--judge-url", url, "--prompts", "p.jsonl"]) == 0
    data = yaml.safe_load((here / "job.yaml").read_text())
    assert data["attributes"] == [{"name": "curious", "adapter": "./mine/E", "description": "Asks: why? #1"}]
    assert data["model"] == {"id": "./mine/base"} and data["prompts"]["file"] == "./p.jsonl"
    assert data["judges"][1] == {
        "kind": "openai", "model": "default", "base_url": url, "api_key_env": "OPENAI_API_KEY",
    }  # fmt: skip
    job = load_job(here / "job.yaml")
    assert job.described_attributes()[0].description == "Asks: why? #1"


def test_role_play_has_somebody_to_play(here: Path) -> None:
    assert main(["init", "a", "--adapter", "profile", "--adapter", "personality", "--judge-model", "gpt-x"]) == 0
    job = load_job(here / "a" / "job.yaml")
    assert [persona.is_control for persona in job.build_personas()] == [True, False, False]
    assert all(each.texts["profile"] and each.texts["personality"] for each in job.build_personas()[1:])
    assert job.judges[1].model == "gpt-x"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompts", "none.jsonl"], "prompts.file: './../none.jsonl' (in "),
        (["--adapter", "x"], "--adapter x: not shipped (shipped: "),
        (["--adapter", "x=nowhere"], "--adapter x=nowhere: 'nowhere' is no folder with adapter_config.json"),
        (["--adapter", "E", "--adapter", "E"], "--adapter E: 'E' is given twice"),
        (["--adapter", "a b=mine/E"], "attributes[0].name: 'a b' is no plain name"),
        (["--model", "./nowhere"], "model.id: './nowhere' is no folder in "),
    ],
)
def test_each_mistake_has_its_line_and_leaves_nothing(
    here: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine" / "E").mkdir(parents=True)
    (here / "mine" / "E" / "adapter_config.json").write_text("{}")
    (here / "mine" / "E" / "adapter_model.safetensors").touch()
    assert main(["init", "new/deep", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said.replace("./../none", "../../none") in line
    assert not (here / "new").exists()


def test_adapters_of_two_models_need_a_word(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (here / name).mkdir()
        (here / name / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": f"owner/{name}"}))
        (here / name / "adapter_model.safetensors").touch()
    words = ["init", "--adapter", "a=a", "--adapter", "b=b"]
    assert main(words) == 2
    assert "trained on different models (owner/a, owner/b); say with --model which" in capsys.readouterr().err
    assert main([*words, "--model", "owner/a"]) == 0
    assert load_job(here / "job.yaml").model.id == "owner/a"
