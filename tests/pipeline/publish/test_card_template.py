"""The card's template: an author's own, and what is wrong with one, in a line before anything is run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.job.load import load_job
from pipeline.job.model import Job
from pipeline.publish.card import TEMPLATE, template_problem
from pipeline.publish.card.sample import samples
from pipeline.publish.card.template import render
from pipeline.publish.rewrite import rewrite_card
from pipeline.run.run import run_job
from tests.job_desk import Desk
from tests.tiny_job import make_job, write_job

MINE = '{% extends "card.md" %}\n{% block uses %}\nAsk **me** about {{ title }}.\n{% endblock %}\n'


def with_template(desk: Desk, text: str | bytes) -> Job:
    (desk.folder / "my-card.md").write_bytes(text.encode() if isinstance(text, str) else text)
    return desk.load("card.template=my-card.md")


def test_one_block_is_replaced_and_the_others_are_the_shipped_ones(desk: Desk) -> None:
    job = with_template(desk, MINE)
    assert template_problem(job) is None
    for values in samples(job):
        text = render(MINE, values)
        assert "Ask **me** about entj-demo." in text and "Out of scope" not in text and "## Known limits" in text


def test_blocks_of_ones_own_stand_in_those_of_the_shipped_one(desk: Desk) -> None:
    text = '{% extends "card.md" %}\n{# why #}\n{% set n = 2 %}\n{% macro m() %}a{% endmacro %}\n'
    text += "{% block uses %}{% block mine %}{{ n }} {{ m() }}{% endblock %}{% endblock %}\n"
    assert template_problem(with_template(desk, text)) is None


def test_a_template_may_be_all_of_it(desk: Desk) -> None:
    whole = (
        "# {{ title }} of {{ texts.n }}\n{% macro b(x) %}**{{ x }}**{% endmacro %}\n{{ b('*') | markdown }} {{ '*' }}"
    )
    job = with_template(desk, whole)
    assert template_problem(job) is None
    assert render(whole, next(samples(job))) == "# entj-demo of 1\n**\\*** \\*\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ titel }}", "line 1: 'titel' is undefined"),
        ("a\n{{ texts.nn }}", "line 2: 'dict object' has no attribute 'nn'"),
        ("a\n{% if titel %}b{% endif %}", "line 2: 'titel' is undefined"),
        ("{% if %}", "line 1: Expected an expression"),
        ("a\n\n{% endif %}", "line 3: Encountered unknown tag 'endif'"),
        ("{{ title | nope }}", "line 1: No filter named 'nope'"),
        ("{{ examples[0].text }}\n{{ judges[0].label }}", "line 2: list object has no element 0"),
        ("{{ 1 / 0 }}", "line 1: ZeroDivisionError"),
        ('{% extends "other.md" %}', "other.md"),
        ('{% extends "the template" %}', "extends itself"),
        ("{{ title.__class__.__mro__ }}", "unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("---\nlicense: mit\n---\n", "begins with front matter"),
        ('{% extends "card.md" %}{% block usess %}x{% endblock %}', "line 1: block 'usess' is none of card.md's; did"),
        ('{% extends "card.md" %}\n{% block zzz %}x{% endblock %}', "line 2: block 'zzz' is none of card.md's; choose"),
        ('{% extends "card.md" %}\n\n\nMine.', "line 4: stands in no block, and would not be shown"),
        ('{% extends "card.md" %}\n{{ title }}', "line 2: stands in no block, and would not be shown"),
        ('{% extends "cards.md" %}', "line 1: there is no 'cards.md' here; extend 'card.md' alone"),
        ('{% include "/etc/passwd" %}', "there is no '/etc/passwd' here"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_one_is_a_line(desk: Desk, text: str | bytes, said: str) -> None:
    problem = template_problem(with_template(desk, text))
    assert problem is not None and problem.startswith("card.template: 'my-card.md'") and said in problem
    assert len(problem.splitlines()) == 1


def test_a_template_that_is_not_there_is_a_line(desk: Desk) -> None:
    problem = template_problem(desk.load("card.template=gone.md"))
    assert (
        problem is not None and "'gone.md' (in " in problem and "No such file or directory; check the path" in problem
    )


def test_the_shipped_template_takes_all_samples_and_is_in_the_wheel(desk: Desk) -> None:
    assert template_problem(desk.load()) is None
    for values in samples(desk.load()):
        assert render(None, values).startswith("# entj-demo\n")
    assert TEMPLATE.name == "card.md" and TEMPLATE.is_file()


def test_check_and_run_say_it_before_anything_is_loaded(
    desk: Desk, job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (job_file.parent / "my-card.md").write_text("{{ titel }}")
    for command in ("check", "run"):
        assert main([command, str(job_file), "--set", "card.template=my-card.md"]) == 2
        err = capsys.readouterr().err
        assert err.count("card.template") == 1 and "line 1: 'titel' is undefined" in err
    assert not (job_file.parent / "out").exists()


def test_a_run_has_its_card_and_a_record_of_licences_and_template(tmp_path: Path) -> None:
    make_job(tmp_path)
    prompts = {"file": "prompts.jsonl", "license": "cc-by-4.0"}
    job_file = write_job(tmp_path, prompts=prompts, card={"template": "c.md"})
    (tmp_path / "c.md").write_text(MINE)
    (tmp_path / "base" / "README.md").write_text("---\nlicense: mit\n---\n")
    for name in "EJ":
        (tmp_path / name / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    result = run_job(load_job(job_file))
    known = {each["what"]: each["license"] for each in result.run["licences"]}
    assert known == {"model": "mit", "adapter E": "apache-2.0", "adapter J": "apache-2.0", "prompts": "cc-by-4.0"}
    text = (tmp_path / "out" / "README.md").read_text()
    assert "license: cc-by-4.0" in text and "Ask **me** about tiny." in text and "figures/adherence.png" in text
    moved = Path(shutil.move(tmp_path / "out", tmp_path / "elsewhere"))  # and its template stays with it
    (tmp_path / "c.md").unlink()
    rewrite_card(moved)
    assert (moved / "README.md").read_text() == text


def test_the_card_is_no_part_of_what_there_is_to_do(desk: Desk) -> None:
    plain = desk.load()
    more = desk.load("card={pretty_name: x, license: mit, language: en}", "prompts.license=mit")
    assert plain.work_hash() == more.work_hash() != desk.load("prompts.limit=1").work_hash()
