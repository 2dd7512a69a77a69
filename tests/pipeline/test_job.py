"""The job file: what it takes, what it becomes, and the line that each mistake gets."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

import pipeline.job as job_module
from mpg.embedded import SMOLLM2
from mpg.settings import DecoderSettings
from pipeline.job import Job, JobError, job_schema, load_job, shipped_adapters
from pipeline.job_checks import EMBEDDED_MODELS

ROOT = Path(__file__).resolve().parents[2]
JOB = """\
name: entj-demo
model: {id: embedded/smollm2-135m-instruct}
attributes: [E, N, T, J]
personas: {kind: simplex, steps: 2, control: true}
prompts: {file: prompts.jsonl}
samples_per_cell: 1
decoder: {name: scr-exact, aggregate: sum, horizon: 8, chunk_len: 8, max_new_tokens: 96,
          temperature: 0.8, top_p: 0.95, top_k: 0, strength: 1.0, window: 64, max_tries: 8}
judges: [{kind: classifier}, {kind: persona-match}]
batch_size: 32
rows_per_shard: 64
max_rejected_fraction: 0.1
seed: 0
output: out/entj-demo
"""
MINIMAL = ("name", "model", "attributes", "personas", "prompts", "output")


class Desk:
    """A folder with a job file, prompts and four shipped adapters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in "ENTJ":
            self.adapter(f"shipped/{name}")
        (folder / "shipped" / "unfinished").mkdir()
        (folder / "prompts.jsonl").write_text('{"prompt": "Hi"}\n{"prompt": "Yo", "id": "yo"}\n')
        self.write(JOB)

    def adapter(self, place: str) -> Path:
        folder = self.folder / place
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
        return folder

    def write(self, text: str | bytes) -> Path:
        path = self.folder / "job.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def load(self, *overrides: str) -> Job:
        shipped = shipped_adapters(self.folder / "shipped")
        return load_job(self.folder / "job.yaml", overrides, shipped=shipped)

    def lines(self, *overrides: str) -> list[str]:
        """The error's lines, without the file's name, which each must begin with."""
        with pytest.raises(JobError) as caught:
            self.load(*overrides)
        start = f"{self.folder / 'job.yaml'}: "
        lines = [*caught.value.lines, str(caught.value)]
        assert all(line.startswith(start) and len(line.splitlines()) == 1 for line in lines)
        return [line.removeprefix(start) for line in caught.value.lines]

    def line(self, *overrides: str) -> str:
        (line,) = self.lines(*overrides)
        return line


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_job_of_the_issue(desk: Desk) -> None:
    job = desk.load()
    assert job.name == "entj-demo" and job.attribute_names == ("E", "N", "T", "J")
    assert job.adapter_places() == {name: str(desk.folder / "shipped" / name) for name in "ENTJ"}
    assert job.reference_places() == {}
    assert [attribute.opposite for attribute in job.described_attributes()] == ["I", "S", "F", "P"]
    assert all(attribute.description for attribute in job.described_attributes())
    settings = DecoderSettings(**job.decoder.model_dump())
    assert settings.name == "scr-exact" and settings.strength_of("E") == 1.0 and settings.top_p == 0.95


def test_what_may_be_left_out_has_the_issues_values(desk: Desk) -> None:
    full = desk.load()
    desk.write(yaml.safe_dump({key: yaml.safe_load(JOB)[key] for key in MINIMAL}))
    assert desk.load() == full


def test_a_job_is_immutable_and_travels(desk: Desk) -> None:
    job = desk.load("decoder.strength={E: 2}")
    with pytest.raises(ValidationError):
        job.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        job.decoder.name = "scr"  # type: ignore[misc]
    assert isinstance(job.decoder.strength, Mapping)
    with pytest.raises(TypeError):
        job.decoder.strength["E"] = 3  # type: ignore[index]
    assert isinstance(hash(job), int)
    copy = pickle.loads(pickle.dumps(job))
    assert copy == job and copy.folder == desk.folder and copy.adapter_places() == job.adapter_places()
    desk.write(yaml.safe_dump(job.model_dump(mode="json")))
    assert desk.load() == job


def test_places_are_relative_to_the_job_file(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    (desk.folder / "elsewhere").mkdir()
    monkeypatch.chdir(desk.folder / "elsewhere")
    formal = desk.adapter("mine/formal")
    (desk.folder / "base").mkdir()
    job = desk.load(
        "attributes=[E, {name: formal, adapter: mine/formal, reference: ./base, description: Stiff.},"
        " {name: kind, adapter: owner/kind-lora}]"
    )
    assert job.adapter_places() == {
        "E": str(desk.folder / "shipped" / "E"),
        "formal": str(formal),
        "kind": "owner/kind-lora",
    }
    assert job.reference_places() == {"formal": str(desk.folder / "base")}
    assert job.described_attributes()[1].description == "Stiff."
    assert job.resolve(job.model.id) == "embedded/smollm2-135m-instruct"
    assert [prompt.prompt_id for prompt in job.load_prompts()][1] == "yo"
    assert job.output == "out/entj-demo"


KINDS = {
    "{kind: explicit, weights: [{weights: {E: .5, N: .5}}, {name: cool, weights: {T: 1}}]}": 2,
    "{kind: explicit, normalize: true, weights: [{weights: {E: 3, N: 1}}]}": 1,
    "{kind: one-hot}": 4,
    "{kind: simplex, steps: 3}": 20,
    "{kind: dirichlet, n: 7}": 7,
    "{kind: cover, n: 6}": 6,
    "{kind: cover, n: 6, method: latin}": 6,
    "{kind: file, file: personas.yaml}": 2,
    "{kind: one-hot, strengths: [.5, 2]}": 8,
    "{kind: mbti, type: ENTJ}": 1,
}
PERSONA_FILE = "personas: [{name: ada, weights: {E: .25, J: .75}, strengths: {E: 2}}, {weights: {N: 1}}]"


@pytest.mark.parametrize(("kind", "size"), KINDS.items())
@pytest.mark.parametrize("control", [False, True])
def test_every_kind_of_personas(desk: Desk, kind: str, size: int, control: bool) -> None:
    (desk.folder / "personas.yaml").write_text(PERSONA_FILE)
    job = desk.load(f"personas={kind}", f"personas.control={str(control).lower()}", "samples_per_cell=3")
    personas = job.build_personas()
    assert len(personas) == job.n_personas == size + control
    assert [persona.is_control for persona in personas] == [True] * control + [False] * size
    assert len({persona.name for persona in personas}) == len(personas)
    assert all(list(persona.weights) == ["E", "N", "T", "J"] for persona in personas[int(control) :])
    prompts = job.load_prompts()
    cells = job.cells(prompts)
    assert len(cells) == job.n_cells(2) == 2 * 3 * len(personas)
    assert [(c.prompt, c.persona, c.sample_index) for c in cells] == list(
        itertools.product(prompts, personas, range(3))
    )


def test_explicit_personas_keep_their_names_and_weights(desk: Desk) -> None:
    first, second = desk.load(f"personas={next(iter(KINDS))}").build_personas()
    assert (first.name, second.name) == ("E0.50+N0.50", "cool")
    assert first.active == {"E": 0.5, "N": 0.5}
    (scaled,) = desk.load(
        "personas={kind: explicit, normalize: true, weights: [{weights: {E: 3, N: 1}}]}"
    ).build_personas()
    assert scaled.active == {"E": 0.75, "N": 0.25}


def test_personas_have_strengths_of_their_own(desk: Desk) -> None:
    (desk.folder / "personas.yaml").write_text(PERSONA_FILE)
    ada, other = desk.load("personas={kind: file, file: personas.yaml}").build_personas()
    assert (ada.name, ada.active, ada.strengths) == ("ada", {"E": 0.25, "J": 0.75}, {"E": 2.0})
    assert (other.name, other.strengths) == ("N1.00", {})
    weights = "[{weights: {E: 1}, strengths: {E: 3}}, {weights: {E: 1}}]"
    first, second = desk.load(f"personas={{kind: explicit, weights: {weights}}}").build_personas()
    assert (first.name, second.name, first.strengths) == ("E1.00xE3", "E1.00", {"E": 3.0})
    halves = desk.load("personas={kind: one-hot, control: true, strengths: [.5, 2]}").build_personas()
    assert [p.name for p in halves[:3]] == ["reference", "E1.00x0.5", "E1.00x2"]
    assert halves[1].strengths["E"] == 0.5


def test_overrides_are_yaml_and_come_in_order(desk: Desk) -> None:
    job = desk.load(
        "decoder.name=scr", "decoder.horizon=null", "decoder.temperature=1e-1", "judges.0.kind=classifier",
        "attributes[3]=E", "attributes.0=J", "seed=1", "seed=2", "model.revision=2024-01-01", "name=a=b",
        "name=x",
    )  # fmt: skip
    assert job.decoder.name == "scr" and job.decoder.horizon is None and job.decoder.temperature == 0.1
    assert job.attribute_names == ("J", "N", "T", "E")
    assert job.seed == 2 and job.model.revision == "2024-01-01" and job.name == "x"


def test_an_override_makes_the_section_that_is_missing(desk: Desk) -> None:
    desk.write(yaml.safe_dump({key: yaml.safe_load(JOB)[key] for key in MINIMAL}))
    assert desk.load("decoder.strength.E=2").decoder.strength == {"E": 2.0}


SHAPE = [
    # unknown fields, and where they may belong
    ("decoder.temprature=1", "decoder.temprature: unknown field (value 1); did you mean 'temperature'?"),
    ("temperature=1", "temperature: unknown field (value 1); did you mean decoder.temperature?"),
    ("zzz=1", "zzz: unknown field (value 1); choose from name, model, attributes,"),
    ("personas={kind: one-hot, steps: 2}", "personas.steps: unknown field (value 2); choose from control, s"),
    ("attributes=[{name: E, adaptor: x}]", "attributes[0].adaptor: unknown field (value 'x'); did you mean"),
    ("decoder={1: 2}", "decoder: the key 1 is a whole number; a field's name is text"),
    # missing ones
    ("personas={kind: simplex}", "personas.steps: nothing given; add it (1 is one-hot"),
    ("personas={steps: 2}", "personas.kind: nothing given; choose from cover, dirichlet, explicit, file, mbti,"),
    # wrong types
    ("seed=true", "seed: true is a truth value; give a whole number"),
    ("seed=1.5", "seed: 1.5 is a number with decimals; give a whole number"),
    ("batch_size='3'", "batch_size: '3' is text; give a whole number"),
    ("decoder.top_p=x", "decoder.top_p: 'x' is text; give a number"),
    ("decoder.temperature=.nan", "decoder.temperature: nan is a number with decimals; give a finite number"),
    ("decoder.salvage=1", "decoder.salvage: 1 is a whole number; give true or false"),
    ("name=3", "name: 3 is a whole number; give text (quotes make text of anything)"),
    ("model=foo", "model: 'foo' is text; give a mapping"),
    ("attributes=E", "attributes: 'E' is text; give a list"),
    ("attributes=[3]", "attributes[0]: 3 is no attribute; give a name, or {name: ..., adapter: ...}"),
    ("output=", "output: null is nothing; give text"),
    ("personas=[1]", "personas: [1] is a list; give a mapping"),
    # ranges and choices
    ("decoder.temperature=0", "decoder.temperature: 0 is out of range; give a number above 0"),
    ("decoder.top_p=0", "decoder.top_p: 0 is out of range; give a number above 0"),
    ("decoder.top_p=1.1", "decoder.top_p: 1.1 is out of range; give a number at most 1"),
    ("decoder.top_k=-1", "decoder.top_k: -1 is out of range; give a number at least 0"),
    ("decoder.chunk_len=0", "decoder.chunk_len: 0 is out of range; give a number at least 1"),
    ("decoder.chunk_len=65", "decoder.chunk_len: 65 is out of range; give a number at most 64"),
    ("decoder.horizon=0", "decoder.horizon: 0 is out of range; give a number at least 1"),
    ("decoder.max_new_tokens=0", "decoder.max_new_tokens: 0 is out of range"),
    ("decoder.window=0", "decoder.window: 0 is out of range"),
    ("decoder.max_tries=0", "decoder.max_tries: 0 is out of range"),
    ("decoder.strength=0", "decoder.strength: 0 is out of range; give a number above 0"),
    ("decoder.strength={E: -1}", "decoder.strength: E: -1 is out of range; give a number above 0"),
    ("decoder.strength={E: x}", "decoder.strength: {E: 'x'} is no number"),
    ("samples_per_cell=0", "samples_per_cell: 0 is out of range"),
    ("rows_per_shard=0", "rows_per_shard: 0 is out of range"),
    ("max_rejected_fraction=1.5", "max_rejected_fraction: 1.5 is out of range; give a number at most 1"),
    ("seed=-1", "seed: -1 is out of range; give a number at least 0"),
    ("decoder.name=scrx", "decoder.name: 'scrx' is not one of its values; did you mean 'scr'?"),
    ("decoder.aggregate=mean", "decoder.aggregate: 'mean' is not one of its values; choose from sum, produc"),
    ("model.dtype=fp16", "model.dtype: 'fp16' is not one of its values; choose from auto, float32, bfloat16"),
    ("judges=[{kind: llm}]", "judges[0].kind: 'llm' is not one of its kinds; choose from classifier, pers"),
    ("judges=[{kind: openai}]", "judges[0].model: nothing given; add it"),
    ("judges=[{kind: openai, model: m, budget: 1}]", "judges[0].budget: 1 needs prompt_price or completion"),
    ("judges=[{kind: openai, model: m, in_flight: 0}]", "judges[0].in_flight: 0 is out of range"),
    ("panel=best", "panel: 'best' is not one of its values; choose from mean, median, majority"),
    ("judges=[{kind: classifier, abstain: .5}]", "judges[0].abstain: 0.5 is out of range; give a number below 0.5"),
    ("personas.kind=simplx", "personas.kind: 'simplx' is not one of its kinds; did you mean 'simplex'?"),
    ("attributes=[]", "attributes: [] is empty; give at least one entry"),
    ("output=''", "output: '' is empty; give at least one character"),
    ("name=a b", "name: 'a b' is no plain name; use letters and digits"),
    ("personas={kind: mbti, type: entj}", "personas.type: 'entj' is not an MBTI type; give one letter each"),
    # prompts from one place
    ("prompts={}", "prompts: {file: null, dataset: null} names neither; give either prompts.file or"),
    ("prompts.dataset=a/b", "prompts: {file: 'prompts.jsonl', dataset: 'a/b'} names both; give either"),
    ("prompts.split=test", "prompts: split 'test' belongs to a data set; remove it"),
]
BETWEEN = [
    ("attributes=[E, Q]", "attributes[1]: 'Q' is not a shipped attribute; choose from E, J, N, T or give {n"),
    ("attributes=[unfinished]", "attributes[0]: 'unfinished' is not a shipped attribute"),
    ("attributes=[E, N, E]", "attributes[2]: 'E' is attributes[0] already; remove or rename it"),
    ("attributes=[{name: X, adapter: ./no}]", "attributes[0].adapter: './no' is no folder in "),
    ("attributes=[{name: X, adapter: shipped}]", "attributes[0].adapter: 'shipped' is no folder with adapte"),
    ("attributes=[{name: E, reference: /no}]", "attributes[0].reference: '/no' is no folder in "),
    ("decoder.strength={Q: 2}", "decoder.strength.Q: 2.0 is for 'Q', not an attribute of this job (E, N, T,"),
    ("personas={kind: mbti, type: ESFJ}", "personas.type: 'ESFJ' needs S, F; add to attributes"),
    ("personas.steps=1000", "personas.steps: 1000 makes 167,668,502 personas, more than 100,000; lower it"),
    ("personas={kind: dirichlet, n: 9, concentration: 1e-12}", "personas.n: 9 distinct weight vectors over"),
    ("personas={kind: cover, n: 2, method: grid}", "personas.method: 'grid' is not one of its values; choose"),
    ("personas={kind: one-hot, strengths: [1, 1]}", "personas.strengths: [1.0, 1.0] has one twice; remove it"),
    ("personas={kind: one-hot, strengths: [0]}", "personas.strengths[0]: 0 is out of range"),
    ("model.system='{name}'", "model.system: '{name}' names {name}; choose from {profile}, {personality}"),
    ("model.system='{profile'", "model.system: '{profile': "),
    ("attributes=[{name: E, system: '{age}'}]", "attributes[0].system: '{age}' names {age}; choose from {prof"),
    (
        "attributes=[{name: E, system: 'You: {personality}'}]",
        "personas.personality: 'E1.00' has none, and E reads it; give the persona one, or personas.personality for",
    ),
    ("model.system='{profile}'", "personas.profile: 'E1.00' has none, and the reference (model.system) reads it"),
    ("personas.profile={age: 200}", "personas.profile: profile.age: 200 is no age"),
    ("personas.profile=''", "personas.profile: profile: '' is no profile; give text, or {age, gender"),
    ("personas={kind: file, file: no.yaml}", "personas.file: 'no.yaml' (in "),
    ("personas={kind: file, file: prompts.jsonl}", "personas.file: 'prompts.jsonl' (in "),
    ("model.id=embedded/smollm", "model.id: 'embedded/smollm' is not an embedded model; did you mean 'embed"),
    ("model.id=./no", "model.id: './no' is no folder in "),
    ("model.id=shipped", "model.id: 'shipped' is no folder with config.json"),
    ("prompts={dataset: ../no}", "prompts.dataset: '../no' is no folder in "),
    ("prompts.file=no.jsonl", "prompts.file: 'no.jsonl' (in "),
    ("judges=[{kind: log-ratio}, {kind: log-ratio}]", "judges[1]: 'log-ratio' is judges[0] already; remove one"),
    ("prompts.skip=2", "prompts.file: 'prompts.jsonl' (in "),
    ("output={job}", "output: '{job}' is a file; name a folder"),
]
WEIGHTS = [
    ("{weights: {E: .5, N: .4}}", "[0]: {E: 0.5, N: 0.4} sums to 0.9, not to 1; make it 1, or set personas."),
    ("{weights: {E: .5, N: .500002}}", "[0]: {E: 0.5, N: 0.500002} sums to 1.000002, not to 1"),
    ("{weights: {}}", "[0]: {} sums to 0, not to 1"),
    ("{weights: {E: 1.5, N: -.5}}", "[0].weights.N: -0.5 is out of range; give a number at least 0"),
    ("{weights: {E: .nan}}", "[0].weights.E: nan is a number with decimals; give a finite number"),
    ("{weights: {E: .5, F: .5}}", "[0].weights.F: 0.5 is for 'F', not an attribute of this job (E, N, T, J)"),
    ("{weights: {E: 1}, strengths: {F: 2}}", "[0].strengths.F: 2.0 is for 'F', not an attribute of this job"),
    ("{weights: {E: 1}, strengths: {E: 0}}", "[0].strengths.E: 0 is out of range; give a number above 0"),
    ("{E: 1, weights: {E: 1}}", "[0].E: unknown field (value 1); choose from name, weights"),
    ("{weights: {E: 1}}, {weights: {E: 1, N: 0}}", "[1]: {E: 1.0, N: 0.0} is personas.weights[0] again; rem"),
    ("{weights: {E: 1}}, {name: E1.00, weights: {N: 1}}", "[1]: the name 'E1.00' is taken; give another nam"),
    ("{name: reference, weights: {N: 1}}", "[0]: the name 'reference' is taken; give another name"),
    ("", ": [] is empty; give at least one entry"),
]


@pytest.mark.parametrize(("override", "start"), SHAPE + BETWEEN)
def test_each_mistake_has_its_line(desk: Desk, override: str, start: str) -> None:
    job_file = str(desk.folder / "job.yaml")
    line = desk.line(override.replace("{job}", job_file))
    assert line.startswith(start.replace("{job}", job_file))


@pytest.mark.parametrize(("entries", "start"), WEIGHTS)
def test_each_mistake_in_weights_has_its_line(desk: Desk, entries: str, start: str) -> None:
    line = desk.line(f"personas={{kind: explicit, control: true, weights: [{entries}]}}")
    assert line.startswith(f"personas.weights{start}")


def test_weights_that_cannot_be_normalised(desk: Desk) -> None:
    line = desk.line("personas={kind: explicit, normalize: true, weights: [{weights: {E: 0}}]}")
    assert line.startswith("personas.weights[0]: {E: 0.0} sums to 0; give at least one weight above 0")


def test_no_adapter_is_shipped(desk: Desk) -> None:
    with pytest.raises(JobError, match=r"attributes\[0\]: 'E' is not a shipped attribute; none is shipped here"):
        load_job(desk.folder / "job.yaml", shipped={})


PROMPT_FILES = [
    ('{"prompt": "a"}\n{"prompt": \n', "line 2: not JSON (Expecting value at column 12)"),
    ("\n", "holds no prompt; write one JSON object a line"),
    ('{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}\n', "line 2: id 'x' is taken by line 1"),
    ('{"prompt": "a"}\n{"prompt": "a"}\n', "line 2: the same prompt as on line 1; remove one"),
]


@pytest.mark.parametrize(("text", "what"), PROMPT_FILES)
def test_a_prompt_file_that_does_not_work(desk: Desk, text: str, what: str) -> None:
    (desk.folder / "prompts.jsonl").write_text(text)
    assert desk.line().startswith(f"prompts.file: 'prompts.jsonl' (in {str(desk.folder)!r}): {what}")


def test_a_missing_prompt_file_names_where_it_was_sought(desk: Desk) -> None:
    (desk.folder / "prompts.jsonl").unlink()
    expected = f"prompts.file: 'prompts.jsonl' (in {str(desk.folder)!r}): no such file; check the path"
    assert desk.line() == expected


def test_a_line_says_what_came_from_set(desk: Desk) -> None:
    desk.write(JOB.replace("seed: 0", "seed: x"))
    lines = desk.lines("decoder.chunk_len=0")
    assert lines == [
        "decoder.chunk_len: 0 is out of range; give a number at least 1 (from --set)",
        "seed: 'x' is text; give a whole number",
    ]


def test_all_problems_are_told_and_one_line_counts_them(desk: Desk) -> None:
    with pytest.raises(JobError) as caught:
        desk.load("attributes=[E, Q, Z]", "prompts.file=no.jsonl")
    error = caught.value
    assert [problem.field for problem in error.problems] == ["attributes[1]", "attributes[2]", "prompts.file"]
    assert str(error) == f"{error.lines[0]} (+2 more)"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_long_or_broken_value_stays_one_short_line(desk: Desk) -> None:
    (line,) = desk.lines(f"seed={'x' * 500}")
    assert len(line) < 200 and "..." in line
    assert "\n" not in desk.line('seed="a\\nb"')


def test_shipped_adapters_are_the_finished_folders(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(shipped_adapters(desk.folder / "shipped")) == ["E", "J", "N", "T"]
    assert shipped_adapters(desk.folder / "nowhere") == {}
    monkeypatch.setattr(job_module, "SHIPPED_ADAPTERS", desk.folder / "shipped")
    assert load_job(desk.folder / "job.yaml").adapter_places()["E"] == str(desk.folder / "shipped" / "E")


def test_the_embedded_models_are_those_that_mpg_knows() -> None:
    assert EMBEDDED_MODELS == (SMOLLM2,)


def fields(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        yield from node.get("properties", {}).items()
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from fields(each)


def test_the_schema_describes_every_field() -> None:
    schema = job_schema()
    found = list(fields(schema))
    assert {"name", "steps", "concentration", "normalize", "strength", "adapter", "column"} <= dict(found).keys()
    assert [name for name, field in found if not field.get("description")] == []
    assert set(schema["required"]) == set(MINIMAL)
    assert schema["properties"]["attributes"]["items"]["anyOf"][0] == {"type": "string"}
    assert schema["additionalProperties"] is False


def test_nothing_heavy_is_imported() -> None:
    heavy = ("torch", "transformers", "apache_beam", "datasets", "pyarrow", "mpg")
    code = f"import pipeline.job, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_texts_of_all_personas_and_of_one(desk: Desk) -> None:
    entries = "[{weights: {E: 1}, profile: {age: 36, gender: woman}}, {weights: {N: 1}, personality: Loud.}]"
    job = desk.load(f"personas={{kind: explicit, profile: He bakes., personality: Calm., weights: {entries}}}")
    first, second = job.build_personas()
    assert first.texts == {"profile": "She is a 36-year-old woman.", "personality": "Calm."}
    assert second.texts == {"profile": "He bakes.", "personality": "Loud."}
    again = Job.model_validate(yaml.safe_load(job.model_dump_json()), context={"folder": desk.folder, "shipped": {
        name: desk.folder for name in "ENTJ"}})  # fmt: skip
    assert again.build_personas() == job.build_personas()
    same = "[{weights: {E: 1}, profile: a}, {name: x, weights: {E: 1}, profile: b}]"
    assert desk.load(f"personas={{kind: explicit, weights: {same}}}").n_personas == 2


def test_attributes_are_described_by_the_job_or_by_their_names(desk: Desk) -> None:
    job = desk.load(
        "attributes=[E, {name: profile, adapter: shipped/N}, {name: x, adapter: shipped/J, opposite: dull}]",
        "personas.profile=He bakes.",
        "personas.personality=Calm.",
    )
    e, profile, x = job.described_attributes()
    assert (e.opposite, e.system) == ("I", None)
    assert profile.system is not None and "{profile}" in profile.system
    assert (x.description, x.opposite) == ("", "dull")
    assert desk.line("decoder.name=prompting", "attributes=[{name: x, adapter: shipped/J}]").startswith(
        "attributes[0].description: 'x' needs a description, which decoder 'prompting' puts into the prompt"
    )
    soup = desk.line(
        "decoder.name=soup", "personas={kind: one-hot, profile: a, personality: b}",
        "attributes=[{name: profile, adapter: shipped/N}]",
    )  # fmt: skip
    assert soup.startswith("attributes[0].system: 'profile' reads a prompt of its own, and decoder 'soup'")


def test_prompts_may_be_left_out_at_the_beginning(desk: Desk) -> None:
    assert [p.prompt_id for p in desk.load("prompts.skip=1").load_prompts()] == ["yo"]
    assert len(desk.load("prompts.skip=0", "prompts.limit=1").load_prompts()) == 1
    assert "holds 2 prompts, and skip leaves out all" in desk.line("prompts.skip=2")
