"""Personas that would be merged in silence: what comes to the same row, or bears the same name; how many are left."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.job.load import load_job
from pipeline.plan.errors import RunError
from pipeline.plan.merged import texts_of
from pipeline.plan.plan import Plan
from pipeline.run.run import run_job
from tests.job_desk import Desk
from tests.tiny_job import write_job


def explicit(*entries: str, more: str = "") -> str:
    return f"personas={{kind: explicit, {more} weights: [{', '.join(entries)}]}}"


MERGED = {
    # personas, other settings -> the line
    (explicit("{name: ada, weights: {E: 1}, profile: a}", "{name: bob, weights: {E: 1}, profile: b}"),): (
        "personas.weights[1]: 'ada' and 'bob' come to the same texts: no model reads their profile; remove one, or let"
    ),
    (explicit("{name: a, weights: {E: 1}, profile: x, personality: k}", "{name: b, weights: {E: 1}}", more="control: "
              "true,"),): "personas.weights[1]: 'a' and 'b' come to the same texts: no model reads their profile and",
    (explicit("{name: a, weights: {E: 1}}", "{name: b, weights: {E: 1}, strengths: {N: 3}}"),): (
        "personas.weights[1]: 'a' and 'b' come to the same texts: their strengths are the same where they have weight; "
        "remove one"
    ),
    (explicit("{name: a, weights: {E: 1}}", "{name: b, weights: {E: 1}, strengths: {E: 2}}"), "decoder.strength=2"): (
        "personas.weights[1]: 'a' and 'b' come to the same texts: their strengths are the same"
    ),
    ("personas={kind: one-hot, strengths: [0.5, 1]}", "decoder.name=prompting"): (
        "personas.strengths: 'E1.00x0.5' and 'E1.00x1' come to the same texts: the decoder reads no strength; "
        "give one at most (and 3 more)"
    ),
    ("personas={kind: one-hot, strengths: [1, 1.0000001]}",): (
        "personas.strengths: [1.0, 1.0000001] make two personas named 'E1.00x1'; give strengths that differ in their "
        "first six digits (and 3 more)"
    ),
    (explicit("{name: ax2, weights: {E: 1}}", "{name: a, weights: {N: 1}}", "{name: 'ax2 ', weights: {T: 1}}"),): (
        "personas.weights[2]: the names 'ax2' and 'ax2 ' look the same; give another name"
    ),
    (explicit("{name: Jose\u0301, weights: {E: 1}}", "{name: Jos\u00e9, weights: {N: 1}}"),): (
        "personas.weights[1]: the names 'Jose\u0301' and 'Jos\u00e9' look the same; give another name"
    ),
    (explicit("{name: ' reference', weights: {E: 1}}", more="control: true,"),): (
        "personas.weights[0]: the names 'reference' and ' reference' look the same; give another name"
    ),
    (explicit("{name: '  ', weights: {E: 1}}"),): "personas.weights[0]: the name '  ' is blank; give one",
}  # fmt: skip
APART = [
    (explicit("{name: a, weights: {E: 1}, profile: x}", "{name: b, weights: {E: 1}, profile: y}"),
     "model.system='Be {profile}'"),
    (explicit("{name: a, weights: {E: 1}, profile: x}", "{name: b, weights: {E: 1}, profile: y}"),
     "attributes=[{name: E, system: 'Be {profile}'}, N, T, J]"),
    (explicit("{name: a, weights: {E: 1}}", "{name: b, weights: {E: 1}, strengths: {E: 2}}"),),
    ("personas={kind: one-hot, strengths: [0.5, 1]}", "decoder.name=soup"),
    ("personas={kind: simplex, steps: 3, control: true}",),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "line"), MERGED.items(), ids=range(len(MERGED)))
def test_what_can_not_be_told_apart_is_one_line(desk: Desk, settings: tuple[str, ...], line: str) -> None:
    (problem,) = texts_of(desk.load(*settings)).problems
    assert f"{problem.field}: {problem.text}".startswith(line)


@pytest.mark.parametrize("settings", APART, ids=range(len(APART)))
def test_what_differs_in_a_text_is_left_alone(desk: Desk, settings: tuple[str, ...]) -> None:
    job = desk.load(*settings)
    found = texts_of(job, job.load_prompts())
    assert found.problems == () and found.note is None
    assert found.n == job.n_cells(2)


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("decoder.name=reference",),
        ("decoder.name=reference", "personas={kind: one-hot, strengths: [1, 1.0000001]}", "samples_per_cell=3"),
        ("personas={kind: one-hot, strengths: [1, 2]}", "samples_per_cell=2"),
        ("decoder.name=prompting", "attributes=[{name: E, adapter: E, description: a}, {name: J, adapter: J, "
         "description: b}]"),
    ],
    ids=range(5),
)  # fmt: skip
def test_check_counts_what_a_run_plans(job_file: Path, settings: tuple[str, ...]) -> None:
    job = load_job(job_file, settings)
    planned = Plan.of(job).cells()
    assert texts_of(job, job.load_prompts()).n == len(planned) > 0
    assert len({(cell.prompt_id, cell.persona, cell.sample_index) for cell in planned}) == len(planned)


def test_a_baseline_is_no_mistake(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(job_file), "--set", "decoder.name=reference"]) == 0
    first, note, count = capsys.readouterr().out.splitlines()
    assert first.endswith("3 prompts x 1 personas x 1 samples") and count.startswith("3 texts of at most 12 tokens")
    assert note == "decoder 'reference' reads no persona: the 4 of this job come to one, 'reference'"


def test_every_command_refuses_a_merge_before_anything_is_written(
    job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = [{"name": n, "weights": {"E": 1}, "profile": n} for n in ("ada", "bob")]
    job = write_job(job_file.parent, personas={"kind": "explicit", "weights": weights})
    for command in ("check", "run", "plan", "questionnaire"):
        assert main([command, str(job)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"mpg: {job}: personas.weights[1]: 'ada' and 'bob' come to the same texts")
    with pytest.raises(RunError, match="'ada' and 'bob' come to the same texts"):
        run_job(load_job(job))
    assert not (job_file.parent / "out").exists()


def test_candidates_are_counted_cell_by_cell(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = {"min_score": 0.5, "rows_per_cell": 2, "max_candidates": 5}
    assert main(["check", str(write_job(job_file.parent, accept=rule))]) == 0
    said = capsys.readouterr().out
    assert "24 texts of at most" in said and "60 at most" in said


def test_personas_of_a_file_are_told_apart_too(desk: Desk) -> None:
    (desk.folder / "p.yaml").write_text(
        "personas: [{name: ada, weights: {E: 1}, profile: a}, {name: eve, weights: {E: 1}, profile: b}]"
    )
    (problem,) = texts_of(desk.load("personas={kind: file, file: p.yaml}")).problems
    assert problem.field == "personas.file" and "'ada' and 'eve' come to the same texts" in problem.text


def test_all_pairs_of_a_large_grid_are_told_apart(desk: Desk) -> None:
    job = desk.load("personas={kind: simplex, steps: 20, control: true}")
    names = [persona.name for persona in job.build_personas()]
    assert texts_of(job).problems == () and len(names) == texts_of(job).personas == 1772
    assert not any(a == b for a, b in itertools.pairwise(sorted(names)))
