"""The file of a study of students: one frozen model of it, checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError, field_validator

from mpg.settings import TABLE
from personas import Persona
from personas.files import PersonaError
from personas.prompts import Prompt, PromptError
from personas.telling import DEFAULT_WORDING
from personas.words import show
from pipeline.compare.model import Base
from pipeline.job.adapters import own_judges
from pipeline.job.checks import problems_in as problems_in_job
from pipeline.job.errors import JobError, Problem, problems_of, with_origin
from pipeline.job.fields import Decoder, Float, Frozen, Int, Text
from pipeline.job.known import counted
from pipeline.job.model import Job, shipped_adapters
from pipeline.job.persona_fields import Personas
from pipeline.job.prompt_source import PromptSource
from pipeline.job.read import apply_overrides, read_yaml, unstorable
from pipeline.store.places import expanded, joined

# The attribute that a student is, in the jobs in which it writes.
STUDENT = "student"
# What is shown beside the students: the model as it was, told the same.
UNTRAINED = "untrained"

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Corpus(Frozen):
    """A way to write the corpus that a student is trained on."""

    name: _Name = Field(description="Name of the corpus: letters, digits, and . _ - inside.")
    decoder: Decoder = Field(description="What it has otherwise than the base's decoder.")


class Training(Frozen):
    """How students are trained: all alike, but for the seed."""

    seeds: tuple[Annotated[Int, Field(ge=0)], ...] = Field(
        (0, 1, 2), min_length=1, description="A student each: of its first weights, the order of texts, its answers."
    )
    steps: Int = Field(24, ge=1, description="Optimizer steps.")
    batch_size: Int = Field(8, ge=1, description="Texts in a step.")
    rank: Int = Field(8, ge=1, description="Of the LoRA, over all linear layers; its alpha is twice that.")
    learning_rate: Float = Field(5e-4, gt=0, description="Peak, with warm-up and a cosine schedule.")


class Study(Frozen):
    """Corpora on the same prompts as the same personas, students of each, and on what these are tested."""

    name: _Name = Field(description="Name of the study: letters, digits, and . _ - inside.")
    job: Base = Field(
        description="What all have in common: {model, attributes, decoder, judges, ...} as in a job file; the judges "
        "that count choose the texts and score the students'."
    )
    chosen_by: Text | None = Field(
        None,
        description="Kind of the one of job.judges that chooses the texts: the others alone score. null: all do both.",
    )
    personas: Personas = Field(discriminator="kind", description="Mixes that corpora are written as: seen.")
    unseen: Personas = Field(discriminator="kind", description="Mixes that no student has read of.")
    prompts: PromptSource = Field(description="Of the corpora.")
    test_prompts: PromptSource = Field(description="Of the tests: none of them may be a corpus's.")
    samples_per_cell: Int = Field(2, ge=1, description="Candidates for each prompt and persona, of either corpus.")
    keep: Int = Field(ge=1, description="Texts of each persona that a student reads: those with the highest scores.")
    corpora: tuple[Corpus, ...] = Field(
        min_length=2, description="{name, decoder}: the first is compared with each of the others."
    )
    training: Training = Field(
        default_factory=lambda: Training.model_validate({}), description="{seeds, steps, batch_size, rank, ...}."
    )
    test_samples: Int = Field(1, ge=1, description="Texts of each student for each prompt and persona.")
    output: Text = Field(description="Folder of corpora, students and their texts, relative to the file's folder.")

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    def model_post_init(self, context: Any, /) -> None:
        """Take the file's folder from the validation's context."""
        if context:
            self._folder = context["folder"]

    @field_validator("corpora")
    @classmethod
    def _names_differ(cls, corpora: tuple[Corpus, ...]) -> tuple[Corpus, ...]:
        taken = [UNTRAINED]
        for each in corpora:
            if each.name.lower() in taken:
                raise ValueError(f"{each.name!r} is the name of two writers; give another")
            taken.append(each.name.lower())
        return corpora

    @property
    def output_folder(self) -> Path:
        """Where all goes, absolute."""
        return joined(self._folder, self.output).resolve()

    def corpus_job(self, corpus: Corpus) -> Job:
        """The job that writes a corpus, all candidates of it."""
        given = corpus.decoder.model_dump(mode="json", include=set(corpus.decoder.model_fields_set))
        return self._job("corpora", corpus.name, {"decoder": given, "samples_per_cell": self.samples_per_cell})

    def untrained_job(self) -> Job:
        """The job in which the model writes all tests as it was, told what students are told; as many texts as theirs.

        The lanes of attributes beside it are for its books alone.
        """
        return self._test_job(UNTRAINED, {
            "decoder": {"name": "prompting", "tell": "none"},
            "personas": {"kind": "explicit", "weights": [
                {"name": persona.name, "weights": persona.active} for persona in self.test_personas()
            ]},
            "samples_per_cell": self.test_samples * len(self.training.seeds),
        })  # fmt: skip

    def student_job(self, corpus: Corpus, seed: int, adapter: Path, told: dict[str, str]) -> Job:
        """The job in which a student writes all tests: an attribute that has all the weight, and reads who it is.

        Args:
            adapter: its folder. told: persona's name -> system message.
        """
        data = self.job.model_dump(mode="json")["attributes"]
        return self._test_job(f"{corpus.name}-{seed}", {
            "attributes": [{"name": STUDENT, "adapter": str(adapter), "system": "{personality}"}, *data],
            "decoder": {"name": "routing", "horizon": None, "strength": 1.0, "tell": "none"},
            "personas": {"kind": "explicit", "weights": [
                {"name": persona.name, "weights": {STUDENT: 1.0}, "personality": told[persona.name]}
                for persona in self.test_personas()
            ]},
            "samples_per_cell": self.test_samples,
            "seed": self.job.seed + seed,
        })  # fmt: skip

    def test_personas(self) -> tuple[Persona, ...]:
        """Those of both tests, seen mixes first."""
        return (*self.seen_personas(), *self.unseen_personas())

    def seen_personas(self) -> tuple[Persona, ...]:
        """Those of the corpora. Raises PersonaError: they can't be read."""
        return self._job("corpora", self.corpora[0].name, {}).build_personas()

    def unseen_personas(self) -> tuple[Persona, ...]:
        """The others. Raises PersonaError: they can't be read."""
        return self.unseen_job().build_personas()

    def unseen_job(self) -> Job:
        """A job of the unseen mixes, for what is to be known of them: nobody writes it."""
        return self._test_job("unseen", {"personas": self.unseen.model_dump(mode="json")})

    def test_prompts_of(self) -> list[Prompt]:
        """The prompts of the tests. Raises PromptError."""
        return self._test_job("prompts", {}).load_prompts()

    def _test_job(self, name: str, changes: dict[str, Any]) -> Job:
        return self._job("tests", name, {"prompts": self.test_prompts.model_dump(mode="json")} | changes)

    def _job(self, folder: str, name: str, changes: dict[str, Any]) -> Job:
        data = self.job.model_dump(mode="json")
        data |= {
            "name": f"{self.name}-{name}",
            "personas": self.personas.model_dump(mode="json"),
            "prompts": self.prompts.model_dump(mode="json"),
            "output": str(self.output_folder / folder / name),
        }
        decoder = data["decoder"] | changes.pop("decoder", {})
        context = {"folder": self._folder, "shipped": self.job.shipped}
        return Job.model_validate(data | changes | {"decoder": decoder}, context=context)


def load_study(path: str | Path, overrides: Sequence[str] = (), output: str | Path | None = None) -> Study:
    """Read the file, apply ``a.b=c`` overrides, and check all that can be checked without a model.

    Args:
        output: in place of the file's own, relative to the current directory.

    Raises:
        JobError: with one line for each problem: file, field, value, remedy.
    """
    file, path = str(path), expanded(path)
    data = read_yaml(path)
    set_paths = apply_overrides(data, overrides, file)
    if output is not None:
        data["output"] = str(Path(output).absolute())
    problems = list(unstorable(data))
    if not problems:
        context = {"folder": path.absolute().parent, "here": path.absolute().parent, "shipped": shipped_adapters()}
        try:
            study = Study.model_validate(data, context=context)
        except ValidationError as error:
            problems = problems_of(error, data, Study.model_json_schema())
        else:
            problems = list(problems_in(study))
            if not problems:
                return study
    raise JobError(file, [with_origin(each, set_paths) for each in problems])


def problems_in(study: Study) -> Iterator[Problem]:
    """All that is wrong between the fields, and in the jobs that they come to."""
    found = [*_base_problems(study), *_persona_problems(study)]
    found = found or [*_corpus_problems(study)]
    yield from found or [*_overlaps(study)]


def _base_problems(study: Study) -> Iterator[Problem]:
    for name in ("accept", "deadline", "budget", "split"):
        if getattr(study.job, name) is not None:
            text = f"{show(getattr(study.job, name))} has no place here, where all have as many texts; remove it"
            yield Problem(f"job.{name}", text)
    for index, each in enumerate(study.job.described_attributes()):
        if each.name == STUDENT:
            yield Problem(f"job.attributes[{index}].name", f"{STUDENT!r} is what students are called; give another")
        if each.system is not None:
            text = f"{show(each.system)}: students are told attributes by their descriptions; leave {each.name} out"
            yield Problem(f"job.attributes[{index}].system", text)
    if study.job.decoder.temperature == 0:
        text = "0: candidates and seeds need texts that differ; give one above 0"
        yield Problem("job.decoder.temperature", text)
    kinds = [each.kind for each in study.job.judges]
    if not kinds:
        yield Problem("job.judges", "none, and texts are chosen by their scores; add e.g. {kind: classifier}")
    elif study.chosen_by is not None:
        yield from _chooser_problems(study, study.chosen_by)


def _chooser_problems(study: Study, chooser: str) -> Iterator[Problem]:
    """Of who chooses, and of those who are left to score: both have to count, of every attribute."""
    specs, names, own = study.job.judges, study.job.attribute_names, own_judges(study.job)
    kinds = [each.kind for each in specs]
    if chooser not in kinds:
        yield Problem("chosen_by", f"{chooser!r} is none of job.judges; there is {', '.join(kinds)}")
        return
    for chooses, does in ((True, "chooses"), (False, "scores")):
        known = counted([each for each in specs if (each.kind == chooser) is chooses], names, own)
        if lacking := [name for name in names if name not in known]:
            text = f"{chooser!r} leaves nobody who {does} {', '.join(lacking)} and counts"
            yield Problem("chosen_by", f"{text}; name another, or add one to job.judges")
            return


def _persona_problems(study: Study) -> Iterator[Problem]:
    for field, personas in (("personas", study.personas), ("unseen", study.unseen)):
        for name in ("control", "strengths", "profile", "personality"):
            if value := getattr(personas, name):
                text = f"{show(value)}: students are told of attributes and weights alone; remove it"
                yield Problem(f"{field}.{name}", text)


# Sections of a job that are fields of the study.
_OWN = ("personas", "prompts", "samples_per_cell", "output")


def _corpus_problems(study: Study) -> Iterator[Problem]:
    said = set[Problem]()
    for index, corpus in enumerate(study.corpora):
        job = study.corpus_job(corpus)
        if not TABLE[job.decoder.name].weighted:
            text = f"{job.decoder.name!r} writes as nobody; take prompting, or one that reads weights"
            yield Problem(f"corpora[{index}].decoder.name", text)
        told = TABLE[job.decoder.name].told or job.decoder.tell != "none"
        if not told and study.job.decoder.wording != DEFAULT_WORDING:
            text = f"'none': texts that nobody told are exported in the words of {DEFAULT_WORDING!r}"
            yield Problem(f"corpora[{index}].decoder.tell", f"{text}; tell somebody, or leave job.decoder.wording out")
        for each in problems_in_job(job):
            section = each.field.partition(".")[0].partition("[")[0]
            at = f"corpora[{index}]." if section == "decoder" else "" if section in _OWN else "job."
            problem = Problem(f"{at}{each.field}", each.text)
            if problem not in said:
                said.add(problem)
                yield problem
    try:
        for each in problems_in_job(study.unseen_job()):
            if each.field.startswith("personas"):
                yield Problem(*(text.replace("personas", "unseen") for text in (each.field, each.text)))
    except PersonaError as error:
        yield Problem("unseen.file", str(error))


def _overlaps(study: Study) -> Iterator[Problem]:
    """What is called unseen, and is not."""
    try:
        job = study.corpus_job(study.corpora[0])
        seen = {prompt.messages: prompt.prompt_id for prompt in job.load_prompts()}
        shared = [prompt.prompt_id for prompt in study.test_prompts_of() if prompt.messages in seen]
    except PromptError as error:
        yield Problem("prompts", str(error))
        return
    if shared:
        text = f"{shared[0]!r} and {len(shared) - 1} more are" if len(shared) > 1 else f"{shared[0]!r} is"
        yield Problem("test_prompts", f"{text} in prompts, too; skip those that the corpora are written to")
    try:
        mixes, names = {}, set[str]()
        for persona in study.seen_personas():
            mixes[frozenset(persona.active.items())] = persona.name
            names.add(persona.name)
        n_texts = len(seen) * study.samples_per_cell
        for persona in study.unseen_personas():
            if frozenset(persona.active.items()) in mixes or persona.name in names:
                yield Problem("unseen", f"{persona.name!r} is one of personas, too; give another mix and name")
    except PersonaError as error:
        yield Problem("personas.file", str(error))
        return
    if study.keep > n_texts:
        text = f"{study.keep} is more than the {n_texts} candidates of a persona"
        yield Problem("keep", f"{text}; lower it, or raise samples_per_cell")
