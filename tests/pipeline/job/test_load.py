"""The job file: what it takes and what it becomes."""

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

import pipeline.job.model as job_module
from mpg.models.embedded import SMOLLM2
from personas.prompts import PromptError
from pipeline.job.checks import EMBEDDED_MODELS
from pipeline.job.load import load_job
from pipeline.job.model import Job, job_schema, shipped_adapters
from pipeline.plan.sources import decoder_settings
from tests.job_desk import JOB, Desk

ROOT = Path(__file__).resolve().parents[3]
MINIMAL = ("name", "model", "attributes", "personas", "prompts", "output")


def test_the_job_of_the_issue(desk: Desk) -> None:
    job = desk.load()
    assert job.name == "entj-demo" and job.attribute_names == ("E", "N", "T", "J")
    assert job.adapter_places() == {name: str(desk.folder / "shipped" / name) for name in "ENTJ"}
    assert job.reference_places() == {}
    assert [attribute.opposite for attribute in job.described_attributes()] == ["I", "S", "F", "P"]
    assert all(attribute.description for attribute in job.described_attributes())
    settings = decoder_settings(job)
    assert settings.name == "scr-exact" and settings.strength_of("E") == 1.0 and settings.top_p == 0.95


def test_what_may_be_left_out_has_the_issues_values(desk: Desk) -> None:
    full = desk.load("decoder.aggregate=product")
    desk.write(yaml.safe_dump({key: yaml.safe_load(JOB)[key] for key in MINIMAL}))
    assert desk.load() == full


@pytest.mark.parametrize("said", ["aggregate: sum, horizon: 4", "name: routing, horizon: 4"])
def test_a_horizon_stands_beside_the_law_that_has_it(desk: Desk, said: str) -> None:
    assert desk.load(f"decoder={{{said}}}").decoder.horizon == 4


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
    heavy = ("torch", "transformers", "apache_beam", "datasets", "pyarrow", "mpg.models")
    code = f"import pipeline.job.load, sys; print([name for name in {heavy} if name in sys.modules])"
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


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["decoder.tell=both"], "decoder.tell: 'both' is not one of its values; choose from none, reference, all"),
        (["decoder.tell=true"], "decoder.tell: true is not one of its values; choose from none, reference, all"),
        (
            ["decoder.wording=loud"],
            "decoder.wording: 'loud' is not one of its values; choose from shares, degrees, list",
        ),
        (["decoder.tell=all", "decoder.name=prompting"], "decoder.tell: 'all' has no say in 'prompting', which tells"),
        (["decoder.tell=reference", "decoder.name=soup"], "decoder.tell: 'reference' divides who is told, and 'soup'"),
        (
            ["decoder.tell=all", "attributes=[{name: x, adapter: shipped/J}]"],
            "attributes[0].description: 'x' needs a description, which decoder.tell 'all' puts into the prompt",
        ),
    ],
)
def test_who_is_told_what(desk: Desk, overrides: list[str], says: str) -> None:
    assert desk.line(*overrides).startswith(says)


def test_a_decoder_without_personas_needs_no_descriptions(desk: Desk) -> None:
    """So that `--set decoder.name=reference` goes on to make a baseline of any job."""
    desk.load("decoder.name=reference", "decoder.tell=all", "attributes=[{name: x, adapter: shipped/J}]")
    assert desk.load().decoder.tell == "none" and desk.load().decoder.wording == "shares"
    decoder = job_schema()["$defs"]["Decoder"]["properties"]
    assert decoder["tell"]["enum"] == ["none", "reference", "all"]
    assert decoder["wording"]["enum"] == ["shares", "degrees", "list"]


def test_prompts_of_any_table_by_their_columns(desk: Desk) -> None:
    (desk.folder / "p[1].csv").write_bytes("qid,question,topic\n001,Où?,NA\n,b,\n".encode("latin-1"))
    source = "prompts={file: 'p[1].csv', column: question, id_column: qid, encoding: latin-1, limit: 1}"
    job = desk.load(source)
    (prompt,) = job.load_prompts()
    assert (prompt.prompt_id, prompt.messages[0].content, prompt.metadata) == ("001", "Où?", {"topic": "NA"})
    assert job.read_prompts().source == "p[1].csv"
    (desk.folder / "set").mkdir()
    (desk.folder / "p[1].csv").rename(desk.folder / "set" / "a*.csv")
    data = "data_files: 'a*.csv', column: qid, limit: 1"
    with pytest.raises(PromptError, match="line 2: not UTF-8 at byte 6"):
        desk.load(f"prompts={{dataset: set, {data}}}").load_prompts()


def test_a_recorded_job_of_an_older_version_reads_the_same_prompts(desk: Desk) -> None:
    """It named the column `prompt` beside every file, whatever its rows held."""
    (desk.folder / "prompts.jsonl").write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n{"prompt": "Yo"}')
    job = desk.load("prompts.column=prompt", "prompts.split=train")
    assert [prompt.messages[0].content for prompt in job.load_prompts()] == ["Hi", "Yo"]


def test_prompts_may_be_left_out_at_the_beginning(desk: Desk) -> None:
    assert [p.prompt_id for p in desk.load("prompts.skip=1").load_prompts()] == ["yo"]
    assert len(desk.load("prompts.skip=0", "prompts.limit=1").load_prompts()) == 1
    assert "holds 2 prompts, and skip leaves out all" in desk.line("prompts.skip=2")
