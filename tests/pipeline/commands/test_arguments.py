"""Command lines as people write them: ~, -C, lists of words before the file, readers that leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

import mpg
from pipeline.cli import main
from pipeline.commands.arguments import in_commas
from pipeline.job.errors import JobError
from pipeline.job.load import load_job
from tests.tiny_job import make_job, write_job

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a job in it, and another folder to stand in."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    make_job(tmp_path / "home", judges=[], output="~/out")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_a_tilde_is_the_home_folder_everywhere_in_a_job(home: Path) -> None:
    (home / "p.yaml").write_text("personas: [{name: ada, weights: {E: 1}}]")
    file = write_job(
        home, model={"id": "~/base", "dtype": "float32"}, prompts={"file": "~/prompts.jsonl"}, output="~/out/x",
        personas={"kind": "file", "file": "~/p.yaml"},
        attributes=[{"name": "E", "adapter": "~/E", "reference": "~/base"}],
    )  # fmt: skip
    job = load_job("~/job.yaml")
    assert job == load_job(file) and job.output_folder == home / "out" / "x"
    assert job.adapter_places() == {"E": str(home / "E")} and job.reference_places() == {"E": str(home / "base")}
    assert len(job.load_prompts()) == 3 and job.build_personas()[0].name == "ada"
    assert load_job(file, output="~/y").output_folder == home / "y"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("azure://b/x", "is no store that is known"),
        ("hf://datasets/me/x", "can be read only"),
        ("s3:///x", "no bucket"),
    ],
)
def test_a_store_that_no_run_can_write_to_is_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], url: str, says: str
) -> None:
    for command in ("check", "plan", "run"):
        with pytest.raises(SystemExit) as end:
            main([command, "~/job.yaml", "--output", url])
        assert end.value.code == 2 and says in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(JobError, match=f"output: '{url}': .*{says}"):
        load_job("~/job.yaml", [f"output={url}"])


def test_a_store_without_keys_is_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.filesystem("s3").clear_instance_cache()
    for command in ("check", "plan", "run"):
        assert main([command, "~/job.yaml", "--output", "S3://bucket/x"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "output: s3://bucket/x can't be written" in line and "see to its address, keys and rights" in line


@pytest.mark.parametrize("url", ["s3://bucket/x", "GS://bucket/x", "file:///tmp/x", "hf://datasets/me/x"])
def test_a_url_is_no_folder_where_a_folder_of_this_machine_is_meant(
    home: Path, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    for words in (
        ["init", url],
        ["infer-weights", "~/no.jsonl", "--attributes", "E=~/E", f"--output={url}"],
        ["train", "~/no.jsonl", "--name", "x", "--output", url],
        ["questionnaire", "~/job.yaml", "--output", url],
        ["-C", url, "check", "job.yaml"],
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        said = capsys.readouterr().err.splitlines()[-1]
        assert end.value.code == 2 and f"{url!r} is a URL" in said, words
    assert list(Path.cwd().iterdir()) == []


def test_a_url_of_a_file_is_that_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "texts.jsonl").write_text('{"response": "I love parties."}\n')
    words = ["judge", "--attributes", "E", f"file://{home}/texts.jsonl", "--output", f"file://{home}/judged"]
    assert main(words) == 0
    assert f"judgments: {home / 'judged' / 'judgments'}" in capsys.readouterr().out


def test_a_tilde_is_the_home_folder_on_the_command_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "~/job.yaml", "--output=~/data"]) == 0
    assert main(["verify", "~/data", "--sample", "1", "--job", "~/job.yaml"]) == 0
    assert main(["check", "~/data/job.json"]) == 0
    assert f"to {home / 'data'}" in capsys.readouterr().out
    (home / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 3)
    for words in (
        ["judge", "~/no.jsonl", "--attributes", "E"],
        ["judge", "~/data", "--known", "E", "~/no.jsonl"],
        ["infer-weights", "~/no.jsonl", "--attributes", "E=~/E", "--output=~/w.yaml"],
        ["train", "~/no.jsonl", "--name", "x", "--output", "~/x"],
        ["train", "--from-prompts=~/no.jsonl", "--name=x", "--output=~/x", "--attribute=a", "--opposite=b"],
        ["questionnaire", "~/job.yaml", "--items", "~/no.jsonl"],
    ):
        assert main(words) == 2
        assert str(home / "no.jsonl") in capsys.readouterr().err, words
    assert list(Path.cwd().iterdir()) == []  # no folder named ~


@pytest.mark.parametrize(
    "words",
    [["-C", "..", "check"], ["check", "-C", ".."], ["-C", "/", "-C", "{home}/..", "check"], ["-C", "~/..", "check"]],
)
def test_a_command_starts_in_another_folder(home: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    here = Path.cwd()
    words = [word.replace("{home}", str(home)) for word in words]
    assert main([*words, "home/job.yaml", "--output", "there"]) == 0
    assert f"to {home.parent / 'there'}" in capsys.readouterr().out
    assert Path.cwd() == here


@pytest.mark.parametrize("folder", ["nowhere", "{home}/job.yaml"])
def test_a_folder_that_can_not_be_entered_is_one_line(
    home: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-C", folder.replace("{home}", str(home)), "check", "x.yaml"]) == 2
    assert capsys.readouterr().err.startswith("mpg: -C ")


def test_the_output_is_relative_to_the_job_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that a timer that stands elsewhere goes on with the same data set; the first line says with which."""
    job = write_job(home, judges=[], output="out/x")
    assert main(["run", str(job)]) == 0
    assert main(["run", str(job), "--set", "prompts.limit=2"]) == 0
    assert (home / "out" / "x" / "run.json").is_file() and list(Path.cwd().iterdir()) == []
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", str(job)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0 and done.stderr.splitlines()[0] == f"INFO: output: {home / 'out' / 'x'}"


def test_words_may_stand_before_the_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / "texts.jsonl"
    file.write_text('{"prompt": "q", "response": "I love parties and talking to people."}\n')
    for words in (
        ["--attributes", "E", "N", str(file)],
        ["--attributes", "E,N", str(file)],
        [str(file), "--attributes", "E", "N"],
        ["--attributes", "E", "--attributes", "N", str(file)],
        ["--attributes", "E", "N", str(file), "--column", "response"],
    ):
        assert main(["judge", *words]) == 0
        assert "1 texts, " in capsys.readouterr().out
    pairs = home / "no-pairs.jsonl"
    for words in (
        ["infer-weights", "--output", "w.yaml", "--attributes", "E", "N", str(pairs)],
        ["train", "--name=x", "--output=x", "--objective=modpo", "--other", "E:0.3", "J:0.2", str(pairs)],
        ["questionnaire", "--items", "own", str(home / "no-pairs.yaml")],
    ):
        assert main(words) == 2
        assert "no-pairs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["judge", "--attributes", "E", "N"], ["infer-weights", "--output=w.yaml", "--attributes", "E"], ["questionnaire"],
     ["judge"], ["questionnaire", "--items", "own"]],
)  # fmt: skip
def test_a_file_that_is_missing_is_said(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "the following arguments are required: " in capsys.readouterr().err


def test_commas_divide_names_and_no_descriptions() -> None:
    assert in_commas(["E,N", "T"]) == ["E", "N", "T"]
    assert in_commas(["bold=Speaks boldly, always", "E:0.3,J:0.2"]) == ["bold=Speaks boldly, always", "E:0.3", "J:0.2"]
    assert in_commas(None) == []


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"mpg-scr {mpg.__version__}\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [(["schema"], 0), (["--help"], 0), (["--version"], 0), (["check", "nothing.yaml"], 2),
     pytest.param(["run", "{job}"], 0, marks=pytest.mark.long)],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)  # fmt: skip
def test_a_reader_that_leaves_changes_nothing(home: Path, words: list[str], status: int) -> None:
    """As of ``mpg schema 2>&1 | true``: the reader is gone before a word is written."""
    command = [sys.executable, "-m", "pipeline.cli", *(word.replace("{job}", str(home / "job.yaml")) for word in words)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONIOENCODING": "utf-8"}
    for closed in ("stdout", "stderr"):
        other = "stderr" if closed == "stdout" else "stdout"
        streams = {closed: subprocess.PIPE, other: (home / "log.txt").open("w")}
        process = subprocess.Popen(command, env=environment, **streams)  # type: ignore[call-overload]
        getattr(process, closed).close()
        assert process.wait(120) == status
        said = (home / "log.txt").read_text()
        assert "Traceback" not in said and "BrokenPipe" not in said and "Exception ignored" not in said


def test_what_a_terminal_can_not_show_ends_no_command(home: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "pipeline.cli", "check", str(home / "Jos\u00e9.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "Jos\\xe9.yaml" in done.stderr
