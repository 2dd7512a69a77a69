"""A key that stands in a job file by mistake is refused, and reaches no screen, log or file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli import main
from tests.job_desk import JOB, Desk

SECRET = "hunter2x"
MISTAKES = [
    (
        "judges=[{kind: openai, model: m, base_url: 'https://user:hunter2x@host/v1'}]",
        "judges[0].base_url: holds a user",
    ),
    (
        "judges=[{kind: openai, model: m, base_url: 'https://host/v1?token=hunter2x'}]",
        "judges[0].base_url: holds a user",
    ),
    ("judges=[{kind: openai, model: m, api_key_env: sk-hunter2x-0123}]", "judges[0].api_key_env: is no name of an"),
    (
        "judges=[{kind: openai, model: m, api_key_env: [hunter2x]}]",
        "judges[0].api_key_env: what stands there is a list",
    ),
    (
        "judges=[{kind: openai, model: m, api_key: hunter2x}]",
        "judges[0].api_key: unknown field; a key is read from the e",
    ),
    (
        "judges={kind: openai, model: m, api_key: hunter2x}",
        "judges: {kind: 'openai', model: 'm', api_key: ***} is a map",
    ),
    (
        "judges=[{kind: openai, model: m, extra_body: {x: {password: hunter2x}}}]",
        "judges[0].extra_body: holds what look",
    ),
    ("token=hunter2x", "token: unknown field; a key is read from the environment"),
    ("judges.0.base_url=https://user:hunter2x@host", "judges[0].base_url: unknown field (value 'https://***@host')"),
    ("judges.9.api_key=hunter2x", "--set 'judges.9.api_key=***': judges is a list of 2"),
    ("judges.0.api_key={hunter2x", "--set 'judges.0.api_key=***': the value *** is not YAML"),
    ("judges.0.api_key={a: hunter2x, a: hunter2x}", "--set 'judges.0.api_key=***': the value *** gives a twice"),
    ("prompts.file.api_key=hunter2x", "--set 'prompts.file.api_key=***': prompts.file is "),
    (
        "judges=[{kind: openai, model: m, extra_body: 'Bearer hunter2x0123'}]",
        "judges[0].extra_body: 'Bearer ***' is text",
    ),
]


@pytest.mark.parametrize(("override", "says"), MISTAKES)
def test_no_error_shows_a_secret(tmp_path: Path, override: str, says: str) -> None:
    line = Desk(tmp_path).line(override)
    assert line.startswith(says) and SECRET not in line


@pytest.mark.parametrize(
    "judge",
    [
        "[{kind: openai, model: m, api_key: hunter2x",  # not YAML
        "[{kind: openai, model: m, api_key: hunter2x, api_key: hunter2x}]",  # given twice
        "[{kind: openai, model: m, base_url: https://user:hunter2x@host/v1}]",
    ],
)
def test_nor_does_a_command(tmp_path: Path, judge: str, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(tmp_path)
    job = desk.write(JOB.replace("judges: [{kind: classifier}, {kind: persona-match}]", f"judges: {judge}"))
    for command in ("check", "run", "plan"):
        assert main([command, str(job)]) == 2
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err and printed.err.count("mpg: ") >= 3
    assert not list(tmp_path.rglob("job.json"))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (r'personas.personality="half \ud83d"', "personas.personality: 'half \\ud83d' holds half a surrogate pair"),
        (r'judges=[{kind: openai, model: "\udc00"}]', "judges[0].model: '\\udc00' holds half a surrogate pair"),
    ],
)
def test_half_a_surrogate_pair_is_refused_where_it_stands(tmp_path: Path, override: str, says: str) -> None:
    assert Desk(tmp_path).line(override).startswith(says)
