"""``mpg calibrate`` on a tiny random Llama, whose adapters favour some letters, and a judge that counts these."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.calibrate.job_file import JobFile
from pipeline.calibrate.stages import Size, Stages, alone, attributes_of, times
from pipeline.cli import main
from pipeline.commands.calibrate import command_line
from pipeline.job.load import load_job
from pipeline.job.write_back import NotWritable
from tests.fakes import tiny_adapter
from tests.judge_server import JudgeServer, Reply, says, serving
from tests.tiny_job import make_job, rows, write_job

PROMPTS = ("hello you", "what now?", "tell me more", "who are you?", "how so?", "why not?")
# What the two adapters of tests/tiny_job.py write more often than their base does.
LETTERS = {"E": "cwrzxL.Y", "J": "GISYwd2"}
PERSONAS = {
    "kind": "explicit",
    "weights": [{"weights": {"E": 0.75, "J": 0.25}}, {"weights": {"E": 0.25, "J": 0.75}}],
    "profile": "A sailor.",
}
DECODER = {"name": "mod", "max_new_tokens": 24, "top_p": 0.95}
ARGUMENTS = ("--texts", "12", "--perplexity", "15", "--strengths", "1,2", "--base", "prompting", "--before",
             "--set", "prompts={file: prompts.jsonl,\n  limit: 6}")  # fmt: skip


def counts(text: str, n: int) -> Reply:
    """Grades by the share of an attribute's letters."""
    share = {name: sum(text.count(each) for each in some) / max(1, len(text)) for name, some in LETTERS.items()}
    grades = {
        name: {"attribute": 1 + min(4, int(10 * each)), "opposite": 5 - min(4, int(10 * each)), "reason": "so"}
        for name, each in share.items()
    }
    return says(json.dumps({"grades": grades, "fluency": 4}), good=True)


def no_model(*_: Any, **__: Any) -> None:
    raise RuntimeError("a model is wanted")


BASES = {"pilot": False, "prompting": True}


def nats_a_token(output: Path, stage: str, persona: bool) -> float:
    """Under the reference that is told nothing: of the texts of personas, or of the reference alone."""
    (folder,) = output.glob(f"{stage}-*")
    some = [row for row in rows(folder) if (row["persona"] != "reference") is persona]
    log_probs = [row["log_prob_reference" if row["log_prob_untold"] is None else "log_prob_untold"] for row in some]
    return -sum(log_probs) / sum(row["n_tokens"] for row in some)


def judges(url: str) -> list[dict[str, Any]]:
    return [{"kind": "openai", "model": "counts", "base_url": url}]


def test_strengths_are_found_written_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server = JudgeServer(counts)
    with serving(server) as url:
        job = make_job(tmp_path, PROMPTS, personas=PERSONAS, decoder=DECODER, judges=judges(url), batch_size=32,
                       rows_per_shard=64)  # fmt: skip
        job.write_text("# mine\n" + job.read_text() + "# the end\n")
        typed = job.read_text()
        job.chmod(0o600)
        (tmp_path / "link.yaml").symlink_to(job)
        assert main(["calibrate", str(job), *ARGUMENTS]) == 0
        printed = capsys.readouterr().out
        assert job.read_text() == typed and "decoder:\n  strength: {E: " in printed
        n_calls = len(server.bodies)

        monkeypatch.setattr("mpg.ModelBank.load", lambda *args, **how: pytest.fail("a model is loaded again"))
        assert main(["calibrate", str(tmp_path / "link.yaml"), *ARGUMENTS, "--write"]) == 0
        assert len(server.bodies) == n_calls
        again = capsys.readouterr().out

        # An adapter that was trained again, under the same name: its texts are made anew.
        written = job.read_text()
        job.write_text(typed)
        monkeypatch.setattr("mpg.ModelBank.load", no_model)
        tiny_adapter(tmp_path / "base", tmp_path / "E", seed=9)
        assert main(["calibrate", str(job), *ARGUMENTS]) != 0 and "a model is wanted" in capsys.readouterr().err
        job.write_text(written)
    assert again.splitlines()[:4] == printed.splitlines()[:4]  # the table

    known = json.loads((tmp_path / "out-calibration" / "calibration.json").read_text())
    strengths = {name: each["strength"] for name, each in known["attributes"].items()}
    assert f"written: {tmp_path / 'link.yaml'}, which is {job}: decoder.strength" in again
    assert job.stat().st_mode & 0o777 == 0o600 and (tmp_path / "link.yaml").is_symlink()
    settings = load_job(job).decoder
    assert settings.strength == strengths and settings.name == "mod"
    left = [line for line in job.read_text().splitlines() if "# mpg-calibrate:" not in line]
    assert [line for line in typed.splitlines() if line not in left] == []  # strength is new, all else as it was
    assert re.search(r"# mpg-calibrate: 20\d\d-\d\d-\d\d: mpg calibrate \S+ --perplexity 15 --base prompting", written)
    assert re.search(r"# mpg-calibrate:   E  1: \+\d\.\d\d±\.\d\d x\d+\.\d\d±", written)

    assert all(each["told_apart"] and each["was"] == 1 for each in known["attributes"].values())
    nats = {stage: nats_a_token(tmp_path / "out-calibration", stage, persona) for stage, persona in BASES.items()}
    assert known["base_log_ratio"]["value"] == pytest.approx(nats["prompting"] - nats["pilot"], rel=1e-6)
    assert known["lift"] > 0.05 and 0.5 < known["factor"] <= 1.34 and known["prompts"] == {"pilot": 3, "check": 3}
    for each in known["attributes"].values():
        assert [point["strength"] for point in each["curve"]] == [1, 2] and each["check"]["slope"]["n"] == 24
        assert each["before"]["slope"]["n"] == 24 and each["before"] != each["check"]
    folders = {path.name.partition("-")[0] for path in (tmp_path / "out-calibration").iterdir() if path.is_dir()}
    assert folders == {"pilot", "prompting", "mixed", "check", "before"} and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({"judges": []}, [], "judges: none given, and strengths are chosen by what is judged; add e.g."),
        ({"judges": [{"kind": "log-ratio"}]}, [], "attributes: none can be calibrated (E: no judge of the job whose"),
        ({"decoder": {"name": "prompting"}}, [], "decoder.name: 'prompting' reads no strength; take scr-exact or mod"),
        ({"personas": {"kind": "one-hot", "strengths": [1.0]}}, [], "personas.strengths: [1.0] overrule"),
        (
            {"personas": {"kind": "explicit", "weights": [{"name": "e", "weights": {"E": 1}, "strengths": {"E": 2}}]}},
            [],
            "personas: 'e' has strengths of its own, which overrule decoder.strength; remove them",
        ),
        ({"prompts": {"file": "prompts.jsonl", "limit": 5}}, [], "prompts: 5, of which the pilot and its check take"),
        ({}, ["--perplexity", "1"], "--perplexity: 1 is no budget; give a number above 1, e.g. 1.05"),
        ({}, ["--strengths", "1,-2"], "--strengths: '1,-2': give numbers above 0 in commas, e.g. 0.5,1,1.5,2"),
        ({}, ["--texts", "2"], "--texts: 2 is out of range; give 3 at least, for an interval"),
        ({}, ["--lift", "2"], "--lift: 2 is out of range; scores are from 0 to 1; give e.g. 0.2"),
        (
            {},
            ["--output", "job.yaml"],
            "job.yaml: job.yaml is no folder, and texts go into one; name another: --output",
        ),
        ({}, ["--output", "job.yaml/x"], "job.yaml/x: job.yaml is no folder"),
        ({"output": "memory://bucket/out"}, [], "is in a store; name a folder of this machine: --output"),
    ],
    ids=str,
)
def test_what_can_not_be_calibrated_is_said_before_a_model_is_loaded(
    tiny: Path,
    changes: dict[str, Any],
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mpg.ModelBank.load", lambda *args, **how: pytest.fail("a model is loaded"))
    write_job(tiny, **changes)
    monkeypatch.chdir(tiny)
    assert main(["calibrate", "job.yaml", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_job(tmp_path_factory.mktemp("tiny"), PROMPTS).parent


def test_a_file_that_strengths_can_not_be_put_into_is_refused_first(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_job(tiny)
    path.write_text(json.dumps(yaml.safe_load(path.read_text())))
    assert main(["calibrate", str(path), "--write"]) == 2
    assert "is no YAML of one field a line; put the lines in by hand" in capsys.readouterr().err
    write_job(tiny).chmod(0o444)
    assert main(["calibrate", str(path), "--write"]) == 2
    assert "is read-only (mode 0444), and --write puts strengths into it; chmod u+w it" in capsys.readouterr().err
    path.chmod(0o644)


@pytest.mark.parametrize(
    ("changes", "given", "said"),
    [
        ({}, ["attributes=[E, J, N]"], "attributes: N: by --set alone, and the file would not load with a strength"),
        ({"model": {}}, ["model.id=base"], "does not load without --set (model.id: "),
        (
            {"personas": {"kind": "one-hot", "strengths": [2.0]}},
            ["personas={kind: one-hot}"],
            "without --set: personas.strengths: [2.0] overrule decoder.strength",
        ),
        (
            {"decoder": {"strength": {"N": 1}}},
            ["decoder.strength=1"],
            "would not load with strengths in it (decoder.strength.N: ",
        ),
    ],
    ids=str,
)
def test_a_file_whose_own_job_the_strengths_are_not_for_is_refused_first(
    tiny: Path, changes: dict[str, Any], given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_job(tiny, **changes)
    sets = [word for each in given for word in ("--set", each)]
    assert main(["calibrate", str(path), "--write", *sets]) == 2
    error = capsys.readouterr().err
    assert said in error and "leave out --write for the lines" in error


def test_own_attributes_that_are_not_calibrated_keep_their_strength(tiny: Path) -> None:
    path = write_job(tiny, decoder={"name": "mod", "strength": 0.7})
    job = load_job(path, ["attributes=[{name: E, adapter: E}]", "personas={kind: one-hot}"])
    file = JobFile.of(path, job, ["today"])
    file.write({"E": 1.5}, ["today"])
    assert load_job(path).decoder.strength == {"E": 1.5, "J": 0.7}
    with pytest.raises(NotWritable, match="was changed meanwhile"):
        file.write({"E": 2.0}, ["then"])
    assert load_job(path).decoder.strength == {"E": 1.5, "J": 0.7}


def test_a_command_is_one_line_that_a_shell_reads_back(tmp_path: Path) -> None:
    words = ["a=1", "it's\n\\ two\tlines\r", "\x1b\x85\u2028\U0001f600", os.fsdecode(b"\xff7"), "$HOME 'x'"]
    line = command_line(words)
    assert len(line.splitlines()) == 1 and line.startswith("a=1 ")
    read = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True,
                          env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout  # fmt: skip
    assert [os.fsdecode(each) for each in read.split(b"\0")[:-1]] == words


def test_stages_share_prompts_out_and_name_what_they_write(tiny: Path) -> None:
    write_job(tiny, personas={"kind": "mbti", "type": "ENTJ"}, attributes=["E", "N", "T", "J"])
    job = load_job(tiny / "job.yaml")
    size = Size.of(job, 6, 40)
    assert size == Size(3, 3, 14, 14) and Size.of(job, 100, 40) == Size(40, 40, 1, 1)
    stages = Stages(job, attributes_of(job).names, size, tiny / "work")
    pilot, told, check = stages.pilot((0.5, 2.0)), stages.prompting(), stages.check("check", {"E": 0.5, "N": 2.0})
    names = [each.name for each in pilot.build_personas()]
    assert len(names) == 9 and {alone("E", 0.5), alone("J", 2.0), "reference"} <= set(names)
    assert {each.name: each.strengths for each in pilot.build_personas()}[alone("N", 2.0)] == {"N": 2.0}
    assert told.decoder.name == "prompting" and len(told.build_personas()) == 5
    assert check.decoder.strength == {"E": 0.5, "N": 2.0}
    assert {each.prompt_id for each in pilot.load_prompts()}.isdisjoint(each.prompt_id for each in check.load_prompts())
    assert len({pilot.output, told.output, check.output, stages.pilot((0.5, 3.0)).output}) == 4
    assert stages.pilot((0.5, 2.0)).output == pilot.output
    written = Stages(
        job.changed(decoder=job.decoder.model_dump() | {"strength": {"E": 3.0}}), stages.names, size, stages.output
    )
    assert written.pilot((0.5, 2.0)).output == pilot.output and written.prompting().output == told.output
    assert stages.factors == (1.0, 2.0, 4.0)
    by_sum = Stages(job.changed(decoder={"aggregate": "sum"}), stages.names, size, stages.output)
    assert by_sum.factors == ()  # a component of the sum is as strong in a mixture as alone
    product = Stages(job.changed(decoder={"name": "mod"}), stages.names, size, stages.output)
    assert product.factors == (1.0, 2.0, 4.0)
    mixed = product.mixed(dict.fromkeys("ENTJ", 1.0), "EN", product.factors)
    assert {each.name: each.strengths for each in mixed.build_personas()} == {
        "reference": {},
        **{times("ENTJ", k): {"E": k, "N": k, "T": 1.0, "J": 1.0} for k in (1.0, 2.0, 4.0)},
    }


def test_attributes_that_read_a_person_keep_their_strength(tiny: Path) -> None:
    write_job(
        tiny,
        attributes=["E", "profile"],
        personas={"kind": "one-hot", "profile": "A sailor.", "personality": "Warm."},
        judges=[{"kind": "classifier"}, {"kind": "persona-match"}],
    )
    found = attributes_of(load_job(tiny / "job.yaml"))
    assert found.names == ("E",) and list(found.left) == ["profile"]
