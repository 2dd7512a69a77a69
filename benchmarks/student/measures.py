"""What students' texts come to, writer by writer, and by how much writers differ: paired by prompt and mix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import pyarrow as pa

from benchmarks.student.run import TAUGHT, TESTS, WRITTEN, Found
from benchmarks.student.study import UNTRAINED, Study
from evaluation.statistics.paired import Difference, holm, paired_difference
from pipeline.compare.arms import Curve, Point
from pipeline.compare.measures import ARMS, measures
from pipeline.compare.texts import Text, Written
from pipeline.store.schema import list_of

# Of the table of arms what says nothing of students.
_NOT_HERE = ("task", "curve", "strength", "control", "kl_per_token", "rounds_per_token", "method")
# A row a writer, stage and seed; of all seeds together the seed is null. No text stands in it.
WRITERS = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),  # written, taught; unseen prompts, unseen mixes: tests
        pa.field("writer", pa.string(), nullable=False),  # a corpus, its students, or the untrained model
        pa.field("seed", pa.int32()),
        pa.field("training_loss", pa.float64()),
        *(each for each in ARMS if each.name not in ("stage", *_NOT_HERE)),
    ]
)
# A row a test, writer that the first one is compared with, and measure.
DIFFERENCES = pa.schema(
    [
        pa.field("test", pa.string(), nullable=False),
        pa.field("writer", pa.string(), nullable=False),
        pa.field("other", pa.string(), nullable=False),
        pa.field("measure", pa.string(), nullable=False),  # score, joint, nats (a token, under the bare reference)
        pa.field("mean", pa.float64()),  # over pairs; likewise below
        pa.field("other_mean", pa.float64()),
        pa.field("difference", pa.float64()),
        pa.field("half_width", pa.float64()),  # of the 95 % interval, by prompt
        pa.field("by_seed", list_of(pa.float64())),  # the same of the students of each seed
        pa.field("p_value", pa.float64()),
        pa.field("p_holm", pa.float64()),  # corrected for all rows
        pa.field("n_pairs", pa.int32()),  # of mix and prompt
        pa.field("n_prompts", pa.int32()),
    ]
)


def _nats(text: Text) -> float | None:
    return -text.bare.log_prob / text.bare.n_tokens if text.bare.n_tokens else None


MEASURES: Mapping[str, Callable[[Text], float | None]] = {
    "score": lambda text: text.score,
    "joint": lambda text: text.carried,
    "nats": _nats,
}


def writer_rows(study: Study, found: Found) -> list[dict[str, Any]]:
    """Rows of :data:`WRITERS`: corpora, then test by test each writer, all seeds together and each alone."""
    rows = []
    for stage in (WRITTEN, TAUGHT):
        rows += [_row(found, stage, corpus.name, None, found.texts[stage, corpus.name, None])
                 for corpus in study.corpora]  # fmt: skip
    for test in TESTS:
        for corpus in study.corpora:
            rows.append(_row(found, test, corpus.name, None, _of_all(study, found, test, corpus.name)))
            rows += [_row(found, test, corpus.name, seed, found.texts[test, corpus.name, seed])
                     for seed in study.training.seeds]  # fmt: skip
        rows.append(_row(found, test, UNTRAINED, None, found.texts[test, UNTRAINED, None]))
    return rows


def _row(found: Found, stage: str, writer: str, seed: int | None, written: Written) -> dict[str, Any]:
    row = measures(stage, "", Point(Curve(writer)), written, found.embedder)
    loss = found.losses.get((writer, seed)) if seed is not None else None
    own = {"writer": writer, "seed": seed, "training_loss": loss}
    return own | {name: value for name, value in row.items() if name not in _NOT_HERE}


def _of_all(study: Study, found: Found, test: str, writer: str) -> Written:
    """The texts of all seeds' students as one writer's."""
    each = [found.texts[test, writer, seed] for seed in study.training.seeds]
    return replace(each[0], texts=tuple(text for written in each for text in written.texts))


def difference_rows(study: Study, found: Found) -> list[dict[str, Any]]:
    """Rows of :data:`DIFFERENCES`: the first corpus's students against each other corpus's, and the untrained model.

    A pair is a mix on a prompt, of either writer the mean over seeds and samples; the interval is by prompt. It says
    how these students would do on other prompts: how other seeds would, ``by_seed`` shows.
    """
    first, *others = [corpus.name for corpus in study.corpora]
    rows = []
    for test in TESTS:
        for other in (*others, UNTRAINED):
            for measure, value in MEASURES.items():
                rows.append({"test": test, "writer": first, "other": other, "measure": measure}
                            | _difference(study, found, test, (first, other), value))  # fmt: skip
    for row, corrected in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = corrected
    return rows


def _difference(
    study: Study, found: Found, test: str, sides: tuple[str, str], value: Callable[[Text], float | None]
) -> dict[str, Any]:
    def texts(writer: str, seed: int | None) -> Sequence[Text]:
        if writer == UNTRAINED:
            return found.texts[test, UNTRAINED, None].texts
        return found.texts[test, writer, seed].texts if seed is not None else _of_all(study, found, test, writer).texts

    units = [by_unit(texts(writer, None), value) for writer in sides]
    shared = sorted(units[0].keys() & units[1].keys())
    tested = paired(units[0], units[1])
    by_seed = [
        paired(*[by_unit(texts(writer, seed), value) for writer in sides]).mean.value for seed in study.training.seeds
    ]
    means = [fmean(each[unit] for unit in shared) if shared else None for each in units]
    return {
        "mean": means[0],
        "other_mean": means[1],
        "difference": tested.mean.value,
        "half_width": tested.mean.half_width,
        "by_seed": by_seed,
        # Of a few prompts that all differ by as much Student's t makes a certainty, which it is not.
        "p_value": tested.p_value if tested.mean.half_width else None,
        "n_pairs": tested.mean.n,
        "n_prompts": tested.mean.n_clusters,
    }


Units = dict[tuple[str, str], float]


def by_unit(texts: Sequence[Text], value: Callable[[Text], float | None]) -> Units:
    """(mix, prompt) -> mean over its texts that have a value."""
    found: dict[tuple[str, str], list[float]] = {}
    for text in texts:
        known = value(text)
        if known is not None:
            found.setdefault((text.persona, text.prompt), []).append(known)
    return {unit: fmean(values) for unit, values in found.items()}


def paired(one: Units, other: Units) -> Difference:
    """Of the units that both have, clustered by prompt."""
    shared = sorted(one.keys() & other.keys())
    return paired_difference([one[unit] - other[unit] for unit in shared], [prompt for _, prompt in shared])
