"""The comparison file: what it comes to, and a line for each mistake, before a model is loaded."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.compare.arms import Curve, Point, Stage, job_of, personas_of, points_of, weighed
from pipeline.compare.checks import missing
from pipeline.compare.differences import baselines_of
from pipeline.compare.load import load_comparison
from pipeline.compare.model import comparison_schema
from pipeline.job.errors import JobError
from tests.tiny_comparison import comparison_data, make_comparison

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_comparison(tmp_path_factory.mktemp("comparison")).parent


def lines(folder: Path, **changes: Any) -> list[str]:
    """What is said of the comparison with some fields changed; nothing: it is taken."""
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(comparison_data() | changes))
    try:
        load_comparison(path)
    except JobError as error:
        return [line.removeprefix(f"{path}: ") for line in error.lines]
    return []


def method(name: str = "m", decoder: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "decoder": dict(decoder or {"name": "mod"}), **more}


def test_every_point_of_every_method(folder: Path) -> None:
    comparison = load_comparison(folder / "compare.yaml")
    (task,) = comparison.tasks
    names = weighed(job_of(comparison, task))
    found = {each.name: [point.label for point in points_of(each, names)] for each in comparison.methods}
    assert found == {
        "reference": ["reference"],
        "single": ["single E x1", "single J x1"],
        "mod": ["mod x1", "mod x3"],
        "sum": ["sum hnone x2"],
    }


def test_an_arm_is_the_base_with_its_task_and_method_over_it(folder: Path) -> None:
    comparison = load_comparison(folder / "compare.yaml")
    (task,) = comparison.tasks
    job = job_of(comparison, task, Point(Curve("sum", "none"), 2.0), Stage("screening", 1, 2, 3))
    assert (job.decoder.name, job.decoder.horizon, job.decoder.strength) == ("scr-exact", None, 2.0)
    assert job.decoder.max_new_tokens == 8  # the base's
    assert (job.prompts.skip, job.prompts.limit, job.samples_per_cell) == (1, 2, 3)
    assert job.output_folder == folder / "out" / "screening" / "both" / "sum-hnone-x2"
    alone = job_of(comparison, task, Point(Curve("single", None, "J"), 1.0))
    assert [persona.active for persona in alone.build_personas()] == [{"J": 1.0}]
    assert (alone.decoder.name, alone.decoder.horizon) == ("routing", None)


def test_a_horizon_that_nobody_has_written_is_none_that_is_refused(folder: Path) -> None:
    """Of a file that names no law: the product, which has none."""
    job = comparison_data()["job"]
    assert lines(folder, methods=[method(decoder={"name": "scr-exact"})], final={"finalists": 0}, job=job) == []
    written = job | {"decoder": job["decoder"] | {"horizon": 4}}
    found = lines(folder, methods=[method(decoder={"name": "scr-exact"})], final={"finalists": 0}, job=written)
    assert [line for line in found if "decoder.horizon: 4 is of the sum, and the product is the default" in line]


def test_personas_that_are_not_there_are_missing_whoever_chooses(folder: Path) -> None:
    task = comparison_data()["tasks"][0] | {"personas": {"kind": "file", "file": "gone.yaml"}}
    (folder / "changed.yaml").write_text(yaml.safe_dump(comparison_data() | chosen(["classifier"]) | {"tasks": [task]}))
    absent = missing(load_comparison(folder / "changed.yaml"))
    assert absent[0].startswith("tasks[0].personas.file: 'gone.yaml' is not in")


def test_an_arm_names_the_law_that_base_or_method_names(folder: Path) -> None:
    """So that rows of what was the default once are not taken for the arm's."""
    comparison = load_comparison(folder / "compare.yaml")
    (task,) = comparison.tasks
    unsaid, said = (job_of(comparison, task, Point(Curve(name), 1.0)) for name in ("mod", "sum"))
    assert "aggregate" not in unsaid.decoder.model_fields_set
    assert "aggregate" in said.decoder.model_fields_set and said.decoder.aggregate == "sum"


def test_a_base_by_its_path_brings_its_own_folder(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.yaml"
    task = {"name": "both", "personas": {"kind": "one-hot"}, "prompts": {"file": "p.jsonl"}}
    (tmp_path / "p.jsonl").write_text('{"prompt": "hello"}\n')
    path.write_text(yaml.safe_dump(comparison_data() | {"job": str(folder / "base.yaml"), "tasks": [task]}))
    (folder / "base.yaml").write_text(yaml.safe_dump(comparison_data()["job"] | {"name": "x", "output": "y"}))
    comparison = load_comparison(path)
    job = job_of(comparison, comparison.tasks[0])
    assert job.resolve(job.model.id) == str(folder / "base") and len(job.load_prompts()) == 1


def chosen(*by: list[str], decoder: str = "mod") -> dict[str, Any]:
    """A comparison of a method for each of these kinds of judges, which let its texts pass."""
    accept = {"min_score": 0.5, "max_candidates": 2}
    methods = [method(f"m-{i}", {"name": decoder}) | {"accept": accept | {"by": kinds}} for i, kinds in enumerate(by)]
    return {"methods": methods, "final": {"finalists": 0}}


def put(*questionnaires: str) -> dict[str, Any]:
    """A comparison whose task has questionnaires, of a persona that weighs whatever there is."""
    task = comparison_data()["tasks"][0] | {"personas": {"kind": "one-hot"}, "questionnaires": list(questionnaires)}
    return {"tasks": [task]}


def own(**more: Any) -> dict[str, Any]:
    """A comparison of a method with adapters of its own, one with a model a persona, and one that is not scored."""
    methods = [
        {"name": "other", "decoder": {"name": "soup"}, "strengths": [1.0, 2.0], "baseline": True,
         "attributes": [{"name": "E", "adapter": "J"}]},
        {"name": "whole", "models": {"EJ": "E"}, "strengths": [1.0], "baseline": True} | more,
        {"name": "absent", "baseline": True, "not_scored": "no fair training"},
        method("mine"),
    ]  # fmt: skip
    return {"methods": methods, "final": {"finalists": 1}}


def test_a_method_may_have_adapters_of_its_own(folder: Path) -> None:
    assert lines(folder, **own()) == []
    comparison = load_comparison(folder / "changed.yaml")
    (task,) = comparison.tasks
    job = job_of(comparison, task, Point(Curve("other"), 2.0))
    assert {name: Path(place).name for name, place in job.adapter_places().items()} == {"E": "J", "J": "J"}
    assert [persona.active for persona in job.build_personas()] == [{"E": 0.5, "J": 0.5}]
    mine = job_of(comparison, task, Point(Curve("mine")))
    assert {name: Path(place).name for name, place in mine.adapter_places().items()} == {"E": "E", "J": "J"}


def test_one_model_a_persona_has_all_the_weight_and_is_called_what_its_persona_is(folder: Path) -> None:
    assert lines(folder, **own()) == []
    comparison = load_comparison(folder / "changed.yaml")
    (task,) = comparison.tasks
    job = job_of(comparison, task, Point(Curve("whole"), 1.0))
    (persona,) = job.build_personas()
    assert (persona.name, persona.active) == ("EJ", {"model-1-EJ": 1.0})
    assert Path(job.adapter_places()["model-1-EJ"]).name == "E"
    assert job.attribute_names == ("E", "J", "model-1-EJ") and job.decoder.name == "routing"  # E and J are judged
    described = {each.name: each.description for each in job.described_attributes()}
    assert described["model-1-EJ"] == f"{described['E']} {described['J']}"


def test_what_is_not_scored_writes_nothing_and_a_model_writes_its_own_tasks(folder: Path) -> None:
    """Of two tasks the models are of one; a table of people does not change whose they are."""
    both = comparison_data()["tasks"][0]
    (folder / "somebody.jsonl").write_text('{"profile": "a baker", "personality": "calm"}\n')
    other = {"name": "one", "personas": {"kind": "one-hot"}, "prompts": both["prompts"]}
    assert lines(folder, **own(), tasks=[both | {"people": {"file": "somebody.jsonl"}}, other]) == []
    comparison = load_comparison(folder / "changed.yaml")
    found = {
        task.name: [p.label for m in comparison.methods for p in points_of(m, (), personas_of(comparison, task))]
        for task in comparison.tasks
    }
    assert found == {"both": ["other x1", "other x2", "whole x1", "mine"], "one": ["other x1", "other x2", "mine"]}
    job = job_of(comparison, comparison.tasks[0], Point(Curve("whole"), 1.0))
    assert [(each.name, each.profile) for each in job.build_personas()] == [("EJ as 1", "a baker")]
    assert baselines_of(comparison) == ["other", "whole"]


def test_adapters_that_are_missing_are_named_when_they_are_needed(folder: Path) -> None:
    methods = own(models={"EJ": "../gone/EJ"})
    assert lines(folder, **methods) == []
    (line,) = missing(load_comparison(folder / "changed.yaml"))
    assert line.startswith("methods[1].models.EJ: '../gone/EJ' is not in") and "not_scored" in line
    assert lines(folder, **own(models={"EJ": "../gone/EJ"}, not_scored="not trained")) == []
    assert missing(load_comparison(folder / "changed.yaml")) == []


def test_what_is_missing_is_no_mistake_until_it_is_needed(folder: Path) -> None:
    task = {
        "name": "t",
        "personas": {"kind": "one-hot"},
        "people": {"file": "../none/people.jsonl", "limit": 2},
        "prompts": {"file": "../none/p.json", "column": "instruction"},
    }
    assert lines(folder, tasks=[task]) == []
    found = missing(load_comparison(folder / "changed.yaml"))
    assert [line.partition(":")[0] for line in found] == ["tasks[0].prompts.file", "tasks[0].people.file"]


def test_every_persona_as_each_of_some_people(folder: Path) -> None:
    people = '{"profile": "a baker", "personality": "calm", "more": 1}\n'
    (folder / "people.jsonl").write_text(people * 2 + people.replace("calm", "loud"))
    task = comparison_data()["tasks"][0] | {"people": {"file": "people.jsonl"}}
    assert lines(folder, tasks=[task]) == []
    comparison = load_comparison(folder / "changed.yaml")
    personas = job_of(comparison, comparison.tasks[0]).build_personas()
    assert [each.personality for each in personas] == ["calm", "loud"]  # a person is one once
    assert "baker" not in "".join(each.name for each in personas)
    (folder / "people.jsonl").write_text('{"profile": "a baker"}\n')
    (line,) = lines(folder, tasks=[task])
    assert line.startswith("tasks[0].people.file: ") and "line 1: has no text in profile and personality" in line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"methods": [method(baseline=True), method(baseline=True)], "final": {"finalists": 0}},
         "methods[1].name: 'm' is taken by methods[0]; give another"),
        ({"methods": [method("m", {"name": "routing"}, horizons=[8], baseline=True), method("m-h8", baseline=True)],
          "final": {"finalists": 0}}, "methods[1].name: 'm-h8': m-h8 is a folder of methods[0], too; give another"),
        ({"methods": [method()]}, "methods: none is a baseline to compare finalists with; set baseline: true"),
        ({"methods": [method(decoder={"name": "scr-exat"})]}, "methods[0].decoder.name: 'scr-exat' is not one of its"),
        ({"methods": [method(decoder={"top_k": 3}, baseline=True)]}, "methods[0].decoder.name: nothing given; choose"),
        ({"methods": [method(decoder={"name": "prompting"}, strengths=[1.0], baseline=True)]},
         "methods[0].strengths: [1.0]: decoder 'prompting' has no strength; remove them"),
        ({"methods": [method(horizons=[8], baseline=True)]}, "methods[0].horizons: [8]: decoder 'mod' has no horizon"),
        ({"methods": [method(decoder={"name": "scr", "aggregate": "product"}, horizons=[8], baseline=True)]},
         "methods[0].horizons: [8]: decoder 'scr' of the product has no horizon; remove them, or say aggregate: sum"),
        ({"methods": [method(decoder={"name": "mod", "strength": 2}, strengths=[1.0], baseline=True)]},
         "methods[0].decoder.strength: 2.0, and strengths beside it; remove one"),
        ({"methods": [method(strengths=[1.0, 1.0], baseline=True)]}, "methods[0].strengths: [1.0, 1.0] has one twice"),
        ({"methods": [method(decoder={"name": "mod", "strength": {"X": 2}}, baseline=True)], "final": {"finalists": 0}},
         "methods[0].decoder.strength.X: 2.0 is for 'X', not an attribute"),
        (own(models={"JE": "E"}), "methods[1].models.JE: no task has a persona of that name; choose from EJ"),
        (own(models={"JE": "E"}), "methods[1].models: ['JE'] are not all personas of any task; add the others"),
        (own(decoder={"name": "mod"}), "methods[1].decoder.name: 'mod': a persona's one model writes alone"),
        (own(models={"EJ": "base"}, attributes=["E"]), "methods[1].attributes: ['E'] have no place beside models"),
        (own(models={"EJ": "out.txt"}, horizons=[4]), "methods[1].horizons: [4]: decoder 'single' has no horizon"),
        ({"methods": [method(attributes=["X"], baseline=True)], "final": {"finalists": 0}},
         "methods[0].attributes[0].name: 'X' is none of the job's"),
        ({"methods": [method(attributes=[{"name": "J", "adapter": "prompts.jsonl"}], baseline=True)],
          "final": {"finalists": 0}}, "methods[0].attributes[0].adapter: 'prompts.jsonl' is no folder with"),
        ({"final": {"perplexity_of": "absent"}, "methods": own()["methods"]}, "final.perplexity_of: 'absent' is none"),
        ({"final": {"perplexity_of": "promting"}}, "final.perplexity_of: 'promting' is none of the methods"),
        ({"tasks": [comparison_data()["tasks"][0] | {"stage": "final"}]}, "tasks: none is in the screening; give one"),
        ({"methods": [method(decoder={"name": "scr-exact"}, horizons=[None], baseline=True)]},
         "methods[0].horizons: [null]: decoder 'scr-exact' of the product has no horizon; remove them"),
        ({"methods": [method(not_scored="why")], "final": {"finalists": 0}}, "methods: none of them is scored; leave"),
        ({"final": {"finalists": 9}}, "final.finalists: 9 is more than the 1 that are no baselines"),
        ({"screening": {"text": 4}}, "screening.text: unknown field (value 4); did you mean 'texts'?"),
        ({"tasks": [{"name": "t", "personas": {"kind": "one-hot", "control": True}, "prompts": {"file": "p"}}]},
         "tasks[0].personas.control: true: the control is a method"),
        (put("prompts.jsonl"), "tasks[0].questionnaires[0]: "),
        (put("own", "own"), "tasks[0].questionnaires[1]: 'own': own names another of them, too; rename the file"),
        (put("own") | {"job": comparison_data()["job"] | {"attributes": [{"name": "calm", "adapter": "E"}]}},
         "tasks[0].questionnaires: ['own']: none of its personas weighs a pole; remove them"),
        ({"tasks": [comparison_data()["tasks"][0] | {"name": "All"}]}, "tasks[0].name: 'All' is what tables call"),
        ({"tasks": [{"name": "t", "personas": {"kind": "mbti", "type": "ENTJ"}, "prompts": {"file": "prompts.jsonl"}}]},
         "tasks[0].personas.type: 'ENTJ' needs N, T; add to attributes"),
        ({"job": comparison_data()["job"] | {"judges": [{"kind": "classifier"}]}}, "job.judges: classifier: one"),
        ({"job": comparison_data()["job"] | {"deadline": "6h"}}, "job.deadline: '6h' has no place in a comparison"),
        ({"job": comparison_data()["job"] | {"model": {"id": "./gone"}}}, "job.model.id: './gone' is no folder"),
        (chosen(["classifer"]), "methods[0].accept.by[0]: 'classifer' is no kind of this job's judges; did you mean"),
        (chosen(["log-ratio"]), "methods[0].accept.by[0]: 'log-ratio' does not count"),
        (chosen(["classifier", "encoder"]), "methods[0].accept.by: ['classifier', 'encoder'] leaves no judge that"),
        (chosen(["classifier"], ["encoder"]),
         "job.judges: classifier, encoder: each chooses texts of one of m-0, m-1, and none is left that counts; have"),
        (chosen(["classifier"], decoder="single"), "methods[0].accept: each attribute alone is told of no mixture"),
        (own(accept={"min_score": 0.5, "max_candidates": 2, "by": ["classifier"]}),
         "methods[1].accept: one model a persona is told of no mixture"),
        (chosen(["classifier"]) | {"job": comparison_data()["job"] | {
            "judges": [{"kind": "classifier"}, {"kind": "persona-match"}]}},
         "job.judges: with classifier, who chooses texts of m-0, none that counts is left who knows E, J of task"),
        (chosen(["classifier"], decoder="reference"), "methods[0].accept: decoder 'reference' gives no"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(folder: Path, changes: dict[str, Any], expected: str) -> None:
    found = lines(folder, **changes)
    assert len([line for line in found if line.startswith(expected)]) == 1, found


@pytest.mark.parametrize("name", ["compare-mbti.yaml", "compare-roleplay.yaml"])
def test_what_ships_loads_in_a_clone_without_the_data_beside_it(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "workflows", tmp_path / "clone" / "workflows")
    comparison = load_comparison(tmp_path / "clone" / "workflows" / name)
    absent = dict(line.split(": ", 1) for line in missing(comparison))
    assert {text.partition("shared")[0] for field, text in absent.items() if field.startswith("tasks")} == {"'../../"}
    assert not any(each.startswith("methods") for each in absent)  # what is not trained says so, and all else can run
    assert len({method.decoder.name for method in comparison.methods}) >= 9


def test_the_documents_own_comparison_is_one(tmp_path: Path) -> None:
    text, _ = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "comparing.md").read_text("utf-8"), flags=re.S)
    shutil.copy(ROOT / "workflows" / "prompts.jsonl", tmp_path)
    (tmp_path / "compare.yaml").write_text(text)
    assert len(load_comparison(tmp_path / "compare.yaml").methods) == 3


def test_the_schema_describes_every_field() -> None:
    schema = comparison_schema()
    for name in ("Comparison", "Task", "Method", "Screening", "Final", "People"):
        section = schema if name == "Comparison" else schema["$defs"][name]
        assert all(field.get("description") for field in section["properties"].values()), name
