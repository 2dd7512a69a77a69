"""A study from its file to what is known of its students; what is written or trained is kept, by what it depends on."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.student.corpora import in_tokens, lessons, told
from benchmarks.student.kept import settled, write
from benchmarks.student.study import UNTRAINED, Corpus, Study
from evaluation.features.embedding import Embedder
from evaluation.items import of_kinds
from evaluation.statistics.aggregate import panel
from mpg.models.dtype import pick_dtype
from mpg.models.fingerprint import revision_of
from mpg.models.hub import Place
from mpg.train.pairs import digest
from mpg.train.recipe import SftRecipe
from mpg.train.save import CARD_FILE
from mpg.train.sft import train_sft
from personas import Persona
from pipeline.compare.banks import forget
from pipeline.compare.bare import BareBook
from pipeline.compare.run import sentence_embedder
from pipeline.compare.texts import Text, Written, family_of, read_texts
from pipeline.job.model import Job
from pipeline.store.files import make_folder

logger = logging.getLogger(__name__)

# What is measured: all candidates of a corpus, those that are taught, and what students write.
WRITTEN, TAUGHT, UNSEEN_PROMPTS, UNSEEN_MIXES = "written", "taught", "unseen prompts", "unseen mixes"
TESTS = (UNSEEN_PROMPTS, UNSEEN_MIXES)


@dataclass
class Found:
    """What a study came to.

    Attributes:
        texts: (what is measured, who wrote it, seed) -> texts; the seed of those without one is ``None``.
        seconds: phase -> of this run alone; processor_s: of all its cores, which tells what a busy machine has added.
        losses: (corpus, seed) -> mean of the training.
        embedder: of sentences; ``None``: its package is not installed.
        machines: that texts were decoded on.
    """

    texts: dict[tuple[str, str, int | None], Written] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    processor_s: dict[str, float] = field(default_factory=dict)
    losses: dict[tuple[str, int], float] = field(default_factory=dict)
    embedder: Embedder | None = None
    machines: list[str] = field(default_factory=list)


def run(study: Study) -> Found:
    """Write the corpora, train the students, have them write the tests, measure all; or go on with it.

    Raises:
        RunError: see :func:`pipeline.run.run.run_job`, or a persona has too few texts to choose from.
    """
    found = Found(embedder=sentence_embedder())
    make_folder(study.output_folder)
    book = BareBook(study.output_folder)
    try:
        rows = {corpus.name: _write_corpus(study, corpus, book, found) for corpus in study.corpora}
        forget()  # a training has the memory for itself
        students = {
            (corpus.name, seed): _train(study, corpus, seed, rows[corpus.name], found)
            for seed in study.training.seeds
            for corpus in study.corpora
        }
        messages = told(study)
        _write_tests(study, study.untrained_job(), UNTRAINED, None, book, found)
        for corpus in study.corpora:
            for seed in study.training.seeds:
                job = study.student_job(corpus, seed, students[corpus.name, seed], messages)
                _write_tests(study, job, corpus.name, seed, book, found)
    finally:
        forget()
    return found


def _write_corpus(study: Study, corpus: Corpus, book: BareBook, found: Found) -> list[dict[str, Any]]:
    """Write and measure a corpus; the rows that its students are trained on."""
    job = settled(study.corpus_job(corpus))
    logger.info("corpus %s: %d texts", corpus.name, job.n_cells(len(job.load_prompts())))
    written = _written(study, job, study.seen_personas(), book, found, "corpora")
    taught = lessons(study, job)
    found.texts[WRITTEN, corpus.name, None] = written
    left, kept = Counter((each.persona, each.prompt, each.answer) for each in taught), []
    for text in written.texts:
        key = text.persona, text.prompt, text.response
        if left[key]:
            left[key] -= 1
            kept.append(text)
    found.texts[TAUGHT, corpus.name, None] = replace(written, texts=tuple(kept))
    return in_tokens(job, taught)


def _train(study: Study, corpus: Corpus, seed: int, rows: Sequence[dict[str, Any]], found: Found) -> Path:
    """The folder of a student, which is trained where it is not there: its name says of what, and how."""
    given, of = study.training, study.job.model
    recipe = SftRecipe(given.rank, 2 * given.rank, given.learning_rate, given.steps, given.batch_size, seed)
    dtype, texts = pick_dtype(of.dtype), digest(rows)
    place = Place(study.job.resolve(of.id), of.revision, untested=of.untested)
    made_of = {"texts": texts, "model": revision_of(place), "dtype": dtype, "recipe": asdict(recipe)}
    name = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]
    folder = study.output_folder / "students" / f"{corpus.name}-{seed}-{name}"
    if not (folder / CARD_FILE).is_file():
        logger.info("student of %s, seed %d: %d steps on %d texts", corpus.name, seed, recipe.steps, len(rows))
        about = {
            "name": "student",
            "description": f"Student of the corpus {corpus.name}.",
            "data": {"name": f"{study.name}-{corpus.name}", "sha256": texts},
        }
        with _timed(found, "students"):
            train_sft(rows, place=place, recipe=recipe, output=folder, about=about, dtype=getattr(torch, dtype))
    found.losses[corpus.name, seed] = json.loads((folder / CARD_FILE).read_text("utf-8"))["loss"]
    return folder


def _write_tests(study: Study, job: Job, who: str, seed: int | None, book: BareBook, found: Found) -> None:
    """Write and measure both tests of a writer."""
    job = settled(job)
    logger.info("tests by %s", job.name)
    written = _written(study, job, study.test_personas(), book, found, "tests")
    for test, personas in zip(TESTS, (study.seen_personas(), study.unseen_personas()), strict=True):
        names = {persona.name for persona in personas}
        found.texts[test, who, seed] = replace(
            written, texts=tuple(text for text in written.texts if text.persona in names)
        )


def _written(study: Study, job: Job, personas: Sequence[Persona], book: BareBook, found: Found, phase: str) -> Written:
    """A job's texts, scored as these personas'; rows that are there are kept."""
    with _timed(found, phase):
        write(job)
        written = read_texts(job, personas, book, study.job.decoder.temperature or 1.0, found.embedder)
    for machine in written.run["computed_with"]["machines"]:
        said = ", ".join(f"{machine[key]}" for key in ("processor", "device") if key in machine)
        if said not in found.machines:
            found.machines.append(said)
    texts = written.texts if study.chosen_by is None else tuple(by_others(written, study.chosen_by, job.panel))
    return replace(written, control={}, texts=texts)


def by_others(written: Written, chooser: str, rule: str) -> Iterator[Text]:
    """Texts scored by the judges that count and are not of a kind. Args: rule: of their panel."""
    families = {family_of(label) for label in of_kinds(written.run["judges"], [chooser], but=True)}
    for text in written.texts:
        voices = [each for family, each in text.by_family.items() if family in families]
        yield replace(text, scores={name: panel([each.get(name) for each in voices], rule) for name in text.scores})


@contextmanager
def _timed(found: Found, phase: str) -> Iterator[None]:
    wall, processor = time.perf_counter(), time.process_time()
    yield
    found.seconds[phase] = found.seconds.get(phase, 0.0) + time.perf_counter() - wall
    found.processor_s[phase] = found.processor_s.get(phase, 0.0) + time.process_time() - processor
