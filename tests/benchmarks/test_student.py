"""Students of corpora over a tiny random Llama: what they read, what is kept, what is measured, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.student import run as running
from benchmarks.student.__main__ import ROOT, SMOKE, main
from benchmarks.student.corpora import in_tokens, lessons, told
from benchmarks.student.kept import settled, write
from benchmarks.student.measures import DIFFERENCES, MEASURES, WRITERS, by_unit, difference_rows, paired
from benchmarks.student.study import Study, load_study
from benchmarks.student.tables import page
from pipeline.compare.bare import Bare, BareBook
from pipeline.compare.tables import Made
from pipeline.compare.texts import Text, Written, read_texts
from pipeline.job.errors import JobError
from tests.tiny_job import make_job, rows

MADE = Made("command", "machine", "2026-11-28")
PROMPTS = ("hello you", "what now?", "who are you?", "how so?")


def study_data() -> dict[str, Any]:
    """The file's fields; sizes are those of a smoke test."""
    return {
        "name": "tiny",
        "job": {
            "model": {"id": "base", "dtype": "float32"},
            "attributes": [{"name": name, "adapter": name, "description": f"so {name}."} for name in "EJ"],
            "decoder": {"top_p": 0.95, "wording": "degrees"},
            "judges": [{"kind": "classifier"}],
            "batch_size": 8,
        },
        "personas": {"kind": "explicit", "weights": [{"weights": {"E": 0.5, "J": 0.5}}, {"weights": {"E": 1.0}}]},
        "unseen": {"kind": "explicit", "weights": [{"weights": {"E": 0.2, "J": 0.8}}]},
        "prompts": {"file": "prompts.jsonl"},
        "test_prompts": {"file": "prompts.jsonl", "skip": 2},
        "keep": 3,
        "corpora": [
            {"name": "composed", "decoder": {"aggregate": "product", "tell": "reference"}},
            {"name": "prompting", "decoder": {"name": "prompting"}},
        ],
        "training": {"learning_rate": 0.01},
        "output": "study",
    }


def make_study(folder: Path, **changes: Any) -> Path:
    make_job(folder, PROMPTS)
    path = folder / "student.yaml"
    path.write_text(yaml.safe_dump(study_data() | changes))
    return path


def command(path: Path, *more: str) -> list[str]:
    return [str(path), "--smoke", "--output", str(path.parent / "study"), "--set", "training.seeds=[1]", *more]


def load(path: Path) -> Study:
    return load_study(path, [*SMOKE, "training.seeds=[1]"])


def data_set(path: Path, name: str) -> Path:
    (found,) = path.parent.glob(f"study/tests/{name}-*")
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a study that has run: stopped before its second student, and gone on with."""
    path = make_study(tmp_path_factory.mktemp("student"))
    train, students = running.train_sft, list[str]()

    def until_the_second(*args: Any, **how: Any) -> Any:
        if len(students) == 1:
            raise KeyboardInterrupt
        return went_on(*args, **how)

    def went_on(*args: Any, **how: Any) -> Any:
        students.append(how["output"].name.rpartition("-")[0])
        return train(*args, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.student.run.train_sft", until_the_second)
        assert main(command(path)) == 130 and students == ["composed-1"]
        patch.setattr("benchmarks.student.run.train_sft", went_on)
        assert main(command(path)) == 0 and students == ["composed-1", "prompting-1"]
    return path


def test_a_student_is_told_in_tests_what_it_was_told_in_training(done: Path) -> None:
    study = load(done)
    messages = told(study)
    assert messages["E0.20+J0.80"].endswith("- a little: so E.\n- strongly: so J.")
    for corpus in study.corpora:
        job = settled(study.corpus_job(corpus))
        taught = lessons(study, job)
        assert {each.chat[0]["content"] for each in taught} == {messages["E0.50+J0.50"], messages["E1.00"]}
        assert all(each.chat[0]["content"] == messages[each.persona] for each in taught)
    by_students = rows(data_set(done, "composed-1"))
    assert {row["personality"] for row in by_students} == set(messages.values())
    assert {row["system"] for row in by_students} == {None}  # the reference beside it is told nothing
    untrained = rows(data_set(done, "untrained"))
    assert {row["system"] for row in untrained} == set(messages.values())
    assert len(untrained) == len(by_students) == 2 * 3  # prompts x mixes


def test_the_best_of_each_mix_are_taught_and_what_was_cut_off_is_not_closed(done: Path) -> None:
    study = load(done)
    job = settled(study.corpus_job(study.corpora[0]))
    scores: dict[str, list[float]] = {}
    for row in rows(Path(job.output), "judgments"):
        scores.setdefault(row["row_id"], []).append(row["score"])
    texts = {row["row_id"]: row for row in rows(Path(job.output)) if row["persona"] == "E0.50+J0.50"}
    said = [row for row in texts.values() if row["response"].strip()]
    best = sorted(said, key=lambda row: -sum(scores[row["row_id"]]))[: study.keep]
    taught = [each for each in lessons(study, job) if each.persona == "E0.50+J0.50"]
    assert [each.answer for each in taught] == [row["response"] for row in best] and study.keep == 2
    learnt = [sum(row["completion_mask"]) for row in in_tokens(job, taught)]
    assert learnt == [len(each.answer) + each.ended for each in taught]  # the tiny tokenizer's tokens are characters
    assert sum(in_tokens(job, [replace(taught[0], ended=True)])[0]["completion_mask"]) == len(taught[0].answer) + 1
    assert not all(each.ended for each in taught)


def test_the_tables_have_every_writer_and_every_difference(done: Path) -> None:
    (writers,), (differences,) = (list((done.parent / "study").glob(f"*-{name}.parquet"))
                                  for name in ("writers", "differences"))  # fmt: skip
    assert pq.read_schema(writers).equals(WRITERS) and pq.read_schema(differences).equals(DIFFERENCES)
    found = pq.read_table(writers).to_pylist()
    by_stage = {stage: [(row["writer"], row["seed"]) for row in found if row["stage"] == stage]
                for stage in dict.fromkeys(row["stage"] for row in found)}  # fmt: skip
    assert list(by_stage) == ["written", "taught", "unseen prompts", "unseen mixes"]
    students = [(name, seed) for name in ("composed", "prompting") for seed in (None, 1)]
    assert by_stage["unseen mixes"] == by_stage["unseen prompts"] == [*students, ("untrained", None)]
    numbers = {(row["stage"], row["writer"], row["seed"]): row["n_texts"] for row in found}
    assert numbers["written", "composed", None] == 8 and numbers["taught", "composed", None] == 4
    assert numbers["unseen prompts", "composed", None] == numbers["unseen prompts", "untrained", None] == 4
    assert numbers["unseen mixes", "composed", 1] == 2
    table = pq.read_table(differences).to_pylist()
    assert [(row["test"], row["other"], row["measure"]) for row in table] == [
        (test, other, measure) for test in running.TESTS for other in ("prompting", "untrained") for measure in MEASURES
    ]
    for row in table:
        assert row["difference"] == pytest.approx(row["mean"] - row["other_mean"]) and row["by_seed"] == [
            row["difference"]
        ]
        assert row["n_prompts"] == 2 and row["n_pairs"] <= (4 if row["test"] == "unseen prompts" else 2)
    page = next((done.parent / "study").glob("*.txt")).read_text()
    assert "python -m benchmarks.student student.yaml --set" in page and str(done.parent) not in page


def test_the_same_command_writes_and_trains_nothing_anew(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    students = done.parent / "study" / "students"
    before = {path: path.stat().st_mtime_ns for path in students.glob("*/*")}

    def none_left(*_: Any, **__: Any) -> Any:
        raise AssertionError("something is made again")

    monkeypatch.setattr("benchmarks.student.run.train_sft", none_left)
    monkeypatch.setattr("mpg.ModelBank.load", none_left)
    assert main(command(done)) == 0
    assert {path: path.stat().st_mtime_ns for path in students.glob("*/*")} == before
    with pytest.raises(AssertionError, match="made again"):  # another recipe: other students, the same corpora
        main(command(done, "--set", "training.steps=3"))


def test_what_can_not_be_run_is_said_in_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_study(tmp_path)
    for change, line in {
        "test_prompts.skip=1": "test_prompts: 'p1' is in prompts, too; skip those",
        "keep=5": "keep: 5 is more than the 4 candidates of a persona; lower it",
        "personas.control=true": "personas.control: true: students are told of attributes and weights alone",
        "job.decoder.temperature=0": "job.decoder.temperature: 0: candidates and seeds need texts that differ",
        "corpora=[{name: a, decoder: {name: reference}}, {name: b, decoder: {name: prompting}}]":
            "corpora[0].decoder.name: 'reference' writes as nobody; take prompting",
        "job.judges=[]": "job.judges: none, and texts are chosen by their scores",
        "chosen_by=encoder": "chosen_by: 'encoder' is none of job.judges; there is classifier",
        "chosen_by=classifier": "chosen_by: 'classifier' leaves nobody who scores E, J and counts; name another",
        "corpora=[{name: a, decoder: {tell: reference}}, {name: A, decoder: {name: mod}}]": "the name of two writers",
        "corpora=[{name: a, decoder: {name: mod}}, {name: b, decoder: {name: prompting}}]": "in the words of 'shares'",
        "corpora=[{name: a, decoder: {name: soup, tell: reference}}, {name: b, decoder: {name: prompting}}]":
            "corpora[0].decoder.tell: 'reference' divides who is told",
        "unseen={kind: explicit, weights: [{name: x, weights: {E: 1.0}}]}": "unseen: 'x' is one of personas, too",
        "unseen={kind: explicit, weights: [{name: x, weights: {E: 0.1}}]}": "unseen.weights[0]: {E: 0.1} sums to",
    }.items():  # fmt: skip
        assert main([str(path), "--smoke", "--set", change]) == 2, change
        assert line in capsys.readouterr().err, change
    own_opinion = ["--set", "job.judges=[{kind: classifier}, {kind: log-ratio}]", "--set"]
    for chooser, lacks in (("log-ratio", "chooses"), ("classifier", "scores")):
        assert main([str(path), "--smoke", *own_opinion, f"chosen_by={chooser}"]) == 2
        assert f"{chooser!r} leaves nobody who {lacks} E, J and counts" in capsys.readouterr().err


def test_the_study_that_ships_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    study = load_study(ROOT / "workflows" / "student.yaml")
    assert study.corpora[0].decoder.strength == 2 and study.chosen_by == "classifier" and len(study.training.seeds) == 3
    assert not {p.prompt_id for p in study.test_prompts_of()} & {
        p.prompt_id for p in study.corpus_job(study.corpora[0]).load_prompts()
    }
    assert main(["--check"]) == 0 and "6 students" in capsys.readouterr().out
    with pytest.raises(JobError, match=r"training.steps: 0 is out of range"):
        load_study(ROOT / "workflows" / "student.yaml", ["training.steps=0"])


def test_who_has_chosen_scores_nothing(done: Path) -> None:
    """The best by the chooser alone are taught, though both have judged; tests are scored by the other."""
    both, chooser = "job.judges=[{kind: classifier}, {kind: encoder}]", "chosen_by=encoder"
    study = load_study(done, [*SMOKE, "training.seeds=[1]", both, chooser, "output=study"])
    job = settled(study.corpus_job(study.corpora[0]))
    write(job)
    by = {"encoder": dict[str, float](), "classifier": dict[str, float]()}
    for row in rows(Path(job.output), "judgments"):
        known = by[row["judge"].partition("@")[0]]
        known[row["row_id"]] = known.get(row["row_id"], 0.0) + row["score"]
    texts = [row for row in rows(Path(job.output)) if row["persona"] == "E0.50+J0.50" and row["response"].strip()]
    best = sorted(texts, key=lambda row: (-by["encoder"][row["row_id"]], row["row_id"]))[: study.keep]
    taught = [each.answer for each in lessons(study, job) if each.persona == "E0.50+J0.50"]
    assert taught == [row["response"] for row in best]
    written = read_texts(job, study.seen_personas(), BareBook(done.parent / "study"), 1.0)
    mine = [each for each in running.by_others(written, "encoder", job.panel) if each.persona == "E0.50+J0.50"]
    assert mine and all(each.scores == {name: each.by_family["classifier"][name] for name in "EJ"} for each in mine)
    voices = {"encoder": {"E": 1.0}, "openai m": {"E": 0.2}, "openai n": {"E": None}}
    text = replace(_text("EJ", "p", 0.6), by_family=voices)
    made = Written((text,), {"judges": ["encoder@1+a", "openai@m+1", "openai@n+1"]}, "")
    assert [each.scores for each in running.by_others(made, "encoder", "mean")] == [
        {"E": 0.2}
    ]  # who is silent has no voice
    assert "the encoder scores highest" in page(study, running.Found(), MADE, [], [])


def _text(persona: str, prompt: str, score: float | None) -> Text:
    return Text(persona, prompt, "said", {"E": score}, {}, Bare(-2.0, 4), None, 4, 0)


def test_differences_are_those_of_means_over_seeds(tmp_path: Path) -> None:
    """By hand: composed less prompting is .2 of seed 0 and .4 of seed 1 on one prompt, 0 and .2 on the other."""
    study = load_study(make_study(tmp_path), [*SMOKE, "training.seeds=[0,1]"])
    given = {("composed", 0): (0.6, 0.4), ("composed", 1): (0.8, 0.6), ("prompting", 0): (0.4, 0.4),
             ("prompting", 1): (0.4, 0.4), ("untrained", None): (0.3, 0.3)}  # fmt: skip
    found = running.Found()
    for who, scores in given.items():
        texts = tuple(_text("EJ", prompt, score) for prompt, score in zip("pq", scores, strict=True))
        found.texts |= {(test, *who): Written(texts, {}, "") for test in running.TESTS}
    rows_of = {(row["test"], row["other"], row["measure"]): row for row in difference_rows(study, found)}
    row = rows_of["unseen mixes", "prompting", "score"]
    assert row["difference"] == pytest.approx(0.2) and row["by_seed"] == pytest.approx([0.1, 0.3])
    assert (row["mean"], row["other_mean"]) == pytest.approx((0.6, 0.4))
    assert row["half_width"] == pytest.approx(12.7062 * 0.1, rel=1e-4)  # Student's, of two prompts: .3 and .1
    assert row["p_holm"] >= row["p_value"] == pytest.approx(0.2952, rel=1e-3)
    assert rows_of["unseen mixes", "prompting", "joint"]["difference"] == pytest.approx(0.75)  # 1 and .5 above .5
    assert rows_of["unseen prompts", "untrained", "score"]["difference"] == pytest.approx(0.3)
    alike = rows_of["unseen prompts", "prompting", "nats"]  # on both prompts: no certainty
    assert alike["difference"] == alike["half_width"] == 0 and alike["p_value"] is alike["p_holm"] is None


def test_pairs_are_of_mix_and_prompt_and_clusters_are_prompts() -> None:
    one = [_text("a", "p", 0.9), _text("a", "p", 0.7), _text("a", "q", 0.4), _text("b", "p", None)]
    other = [_text("a", "p", 0.5), _text("a", "q", 0.6), _text("b", "p", 0.1)]
    units = [by_unit(texts, MEASURES["score"]) for texts in (one, other)]
    assert units[0] == {("a", "p"): pytest.approx(0.8), ("a", "q"): 0.4}
    found = paired(*units)
    assert found.mean.value == pytest.approx(0.05) and found.mean.n == found.mean.n_clusters == 2
    assert by_unit(one[:1], MEASURES["nats"]) == {("a", "p"): 0.5}
    assert by_unit(one, MEASURES["joint"])[("a", "p")] == 1.0
    nothing = Text("a", "p", "", {"E": 0.5}, {}, Bare(0.0, 0), None, 1, 0)
    assert by_unit([nothing], MEASURES["nats"]) == {} and by_unit([nothing], MEASURES["score"]) == {("a", "p"): 0.5}
