"""``mpg judge``: score any corpus without generating again, and say how far the scores can be believed."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from evaluation.items import Judge, label_of
from evaluation.judges.own import OwnJudge
from evaluation.judges.weights_card import JudgeWeightsError
from personas import KNOWN, Attribute
from personas.errors import SourceError
from personas.examples import Example, load_pairs
from personas.text import one_line
from pipeline.commands.arguments import add_words, anywhere, in_commas, readable, source
from pipeline.commands.field_options import add_options, fields_of, flag, given, option_problems
from pipeline.commands.shared import InputError, NotNow, Outcome, look_for_detached, place_errors
from pipeline.job.adapters import own_judges_of
from pipeline.job.judge_fields import ClassifierJudge, Judges, OpenAIJudge
from pipeline.job.known import KINDS, assignments
from pipeline.judging.against import against_persona
from pipeline.judging.corpus import Corpus, load_corpus
from pipeline.judging.registry import (
    NATURALNESS,
    JudgeError,
    calls_of,
    load_assigned,
    load_remote_judge,
    with_naturalness,
)
from pipeline.judging.verdict import MOST_UNSCORED, Unscored, endpoint_of
from pipeline.store.copies import here
from pipeline.store.dataset import JOB_FILE, WORK_FOLDER, shards_folder
from pipeline.store.exchange import GATHERING, whole_here
from pipeline.store.files import is_folder, nothing_there, read_text
from pipeline.store.lock import FolderLock
from pipeline.store.places import expanded, is_local, is_url, url_problem
from pipeline.store.spending import Spending, Spent

if TYPE_CHECKING:
    import pyarrow as pa

    from evaluation.features.embedding import Embedder

logger = logging.getLogger(__name__)

_WEIGHTS_REMEDY = "for a judge beside an adapter, give --weights NAME=FOLDER"
_WAYS = ("batch", "against", "repeat")  # of asking an endpoint; no settings of it


@dataclass(frozen=True)
class Asked:
    """A judge that is ready, and what it is asked about; ``own``: it lies beside an adapter."""

    judge: Judge
    names: tuple[str, ...]
    own: OwnJudge | None = None

    @property
    def worth(self) -> dict[str, dict[str, str]]:
        """See ``own_judges`` in ``run.json``."""
        return {} if self.own is None else {self.names[0]: {"judge": label_of(self.judge), "worth": self.own.worth}}


class JudgeInputError(InputError):
    """Input that can't be judged; one line with field, value and remedy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("corpus", metavar="CORPUS", nargs="?", type=readable,
                        help="folder of a data set, or a table: JSONL, CSV, Parquet, ...; or its URL")  # fmt: skip
    parser.add_argument("--judge", choices=tuple(KINDS), default="classifier", help="who judges (classifier)")
    parser.add_argument("--column", default="response", help="of a file: the column of text (response)")
    add_words(parser, "--attributes", positional="corpus", metavar="NAME[=DESCRIPTION]",
              help="what is judged; left out: the attributes of the data set's job")  # fmt: skip
    parser.add_argument("--output", type=anywhere, metavar="FOLDER",
                        help="where judgments go: left out, into the data set, or beside a file")  # fmt: skip
    parser.add_argument("--known", nargs=2, metavar=("NAME", "PAIRS"), action="append", default=[],
                        help="measure the judge on pairs whose chosen answer is known to carry NAME")  # fmt: skip
    there = set[str]()
    for kind in KINDS.values():
        if not there.issuperset(fields_of(kind.model)):
            said = (kind.model.model_fields["kind"].description or "").removesuffix(".")
            group = parser.add_argument_group(f"judge {said}")
            add_options(group, kind.model, there=there)
            there |= {*fields_of(kind.model)}
            if kind.remote:
                _add_ways_of_asking(group)
            if kind.model is ClassifierJudge:
                group.add_argument("--weights", metavar="[NAME=]FOLDER", action="append", default=[],
                                   help="an adapter's folder, whose own judge is asked about NAME (or about what it "
                                   "was fitted for); may be given several times")  # fmt: skip


def _add_ways_of_asking(group: argparse._ArgumentGroup) -> None:
    """What is no setting of the endpoint: how often and about what it is asked."""
    group.add_argument("--batch", action="store_true", help="ask by the Batch API: cheaper, within a day")
    group.add_argument("--against", metavar="PERSONA",
                       help="compare every text with this persona's to the same prompt, in both orders")  # fmt: skip
    group.add_argument("--max-unscored-fraction", type=float, metavar="SHARE",
                       help="share of judgments that may lack a score before the command does not end with 0 "
                       f"(the job's, else {MOST_UNSCORED:g})")  # fmt: skip
    group.add_argument("--repeat", type=int, default=0, metavar="N",
                       help="ask again about N texts with another seed: does it agree with itself?")  # fmt: skip


def judge(options: argparse.Namespace) -> Outcome:
    """Judge what is not judged yet, write, and report.

    Raises:
        JudgeInputError: before a model is loaded or a call is made where that can be known.
    """
    problem = url_problem(str(options.corpus), writes=True) if not is_local(options.corpus) else None
    if problem is not None and options.output is None:
        raise JudgeInputError(f"{options.corpus}: {problem}; or name a folder for the judgments with --output")
    with place_errors(options.corpus):
        most_unscored = _most_unscored(options)
        corpus, known = _read(options)
    for place in {options.corpus, corpus.folder}:
        look_for_detached(place, writes=place == corpus.folder)
    attributes = _attributes(options, corpus)
    asked = _judged_names(options, _judges(options, attributes, corpus), attributes, known)
    table, n_new = _judge_and_write(options, asked, corpus)
    lines = _report(options, asked, corpus, table, known)
    judge = asked[0].judge  # the only one, if it is behind an endpoint
    stopped = getattr(judge, "stopped", None)
    if options.repeat and stopped is None:
        lines.append(_repeated(options, judge, attributes, corpus, table))
    now = f"{len(corpus.items)} texts, {n_new} of them judged now; judgments: {corpus.folder / 'judgments'}"
    lines += [*_spent(judge), now]
    lines += [] if stopped is None else [f"stopped: {stopped}"]
    missing, items = Unscored((each.judge, each.names) for each in asked), {i.key: i for i in corpus.items}
    missing.add(table, lambda row_ids: {each: items[each] for each in row_ids if each in items})
    unscored = missing.verdict(most_unscored)
    return Outcome("\n".join(lines)) if unscored is None else Outcome("\n".join(lines), unscored.why, unscored.status)


def _most_unscored(options: argparse.Namespace) -> float:
    """The share of judgments that may lack a score: the option's, else the data set's job's."""
    given = options.max_unscored_fraction
    if given is None:
        try:
            job = json.loads(read_text(options.corpus / JOB_FILE))
            given = job["max_unscored_fraction"]
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return MOST_UNSCORED
    if not isinstance(given, int | float) or not 0 <= given <= 1:
        raise JudgeInputError(f"--max-unscored-fraction: {given} is out of range; give a number from 0 to 1")
    return float(given)


def _read(options: argparse.Namespace) -> tuple[Corpus, dict[str, list[Example]]]:
    """The corpus, and the pairs whose better answer is known, by attribute."""
    try:
        if is_folder(options.corpus):
            whole_here(options.corpus)
        corpus = _corpus(options)
        for note in corpus.notes:
            logger.warning("%s: %s", options.corpus, note)
        return corpus, {name: load_pairs(_here("--known", source(pairs))) for name, pairs in options.known}
    except SourceError as error:
        raise JudgeInputError(str(error)) from error


def _corpus(options: argparse.Namespace) -> Corpus:
    return load_corpus(options.corpus, column=options.column, output=options.output)


def _judged_names(
    options: argparse.Namespace, judges: Sequence[Asked], attributes: Sequence[Attribute], known: Collection[str]
) -> list[Asked]:
    """What is judged by whom: what a judge knows of its attributes, and what it adds of its own."""
    asked = [replace(each, names=tuple(filter(each.judge.knows, each.names))) for each in judges]
    names = [name for each in asked for name in each.names]
    strangers = [a.name for a in attributes if a.name not in names]
    if not names or (strangers and options.attributes):
        remedy = f"; {_WEIGHTS_REMEDY}" if options.judge == "classifier" else ""
        known_as = judges[0].judge.name if judges else options.judge
        raise JudgeInputError(
            f"--attributes: the judge {known_as!r} does not know {', '.join(strangers) or 'any'}{remedy}"
        )
    for name in known:
        if name not in names:
            raise JudgeInputError(f"--known {name}: not among the attributes judged ({', '.join(names)})")
    return [replace(each, names=(*each.names, *getattr(each.judge, "adds", ()))) for each in asked]


def _judge_and_write(options: argparse.Namespace, asked: Sequence[Asked], corpus: Corpus) -> tuple[pa.Table, int]:
    """All judgments of the corpus, and about how many texts a judge was asked for them."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from pipeline.judging.table import gather, judge_items
    from pipeline.publish.data_set import write_judgments

    with place_errors(corpus.folder, read=False, kept="what was judged before is kept"):
        shards = shards_folder(corpus.folder, "judgments")
        with FolderLock(shards.parent, shared=True):  # beside other judges, not beside a run
            look_for_detached(corpus.folder, writes=True)
            if _corpus(options).items != corpus.items:
                raise NotNow(f"{options.corpus}: has changed while the judge was loaded; give the command again")
            first = asked[0].judge  # the only one, if it is behind an endpoint
            spending, budget, n_new = Spending(shards.parent), getattr(first, "budget", None), 0
            try:
                for each in asked:
                    with (
                        logging_redirect_tqdm(),
                        tqdm(total=len(corpus.items), desc="judging", unit="text", mininterval=1.0) as bar,
                    ):

                        def judged(bar: Any = bar) -> None:
                            bar.update()
                            if budget is not None:
                                spending.note_now_and_then(Spent(judges={first.name: budget.spent}))

                        n_asked = judge_items(
                            each.judge, corpus.items, each.names, shards, on_text=judged, known_only=corpus.foreign
                        )
                        n_new = max(n_new, n_asked)
                        bar.update(len(corpus.items) - bar.n)
            finally:
                if budget is not None:
                    spending.note(Spent(judges={first.name: budget.spent}))
                with FolderLock(shards.parent, wait=True, name=GATHERING):  # one at a time
                    table = gather(shards, corpus.items, known_only=corpus.foreign)
                    calls = {label_of(each.judge): _calls(each.judge) for each in asked}
                    write_judgments(
                        corpus.folder, table, calls, {a: w for each in asked for a, w in each.worth.items()}
                    )
    return table, n_new


def _report(
    options: argparse.Namespace,
    asked: Sequence[Asked],
    corpus: Corpus,
    table: pa.Table,
    known: Mapping[str, Sequence[Example]],
) -> list[str]:
    from pipeline.judging.report import agreement_lines, known_lines, means_table, quality_lines

    lines = [means_table(table, corpus), *agreement_lines(table)]
    for each in asked:
        if getattr(each.judge, "stopped", None) is None:  # else it is not asked again
            lines += known_lines(each.judge, {name: pairs for name, pairs in known.items() if name in each.names})
    lines += quality_lines(corpus, _embedder())
    return lines + [f"{w['judge']}: {w['worth']}" for each in asked for w in each.worth.values()]


def _calls(judge: Any) -> dict[str, Any] | None:
    """What a judge's calls came to; ``None``: it makes none."""
    return None if endpoint_of(judge) is None else calls_of(judge)


def _spent(judge: Any) -> list[str]:
    """What a judge behind an endpoint says of its calls."""
    lines = []
    bias = getattr(judge, "position_bias", None)
    if bias is not None:
        lines.append(f"of the decided answers {bias:.0%} named the text shown first (50 %: no position bias)")
    budget = getattr(judge, "budget", None)
    if budget is not None:
        tokens = f"{budget.prompt_tokens} + {budget.completion_tokens} tokens"
        lines.append(f"{judge.n_calls} calls, {tokens}, cost {budget.spent:.4g}")
    return lines


def _attributes(options: argparse.Namespace, corpus: Corpus) -> list[Attribute]:
    if not options.attributes:
        if not corpus.attributes and options.weights:
            return [Attribute(name, "") for name in _own_judges(options, corpus)]
        if not corpus.attributes:
            raise JudgeInputError("--attributes: none given, and the corpus names none; give NAME or NAME=DESCRIPTION")
        return list(with_naturalness(corpus.attributes))
    of_corpus = {each.name: each for each in (*corpus.attributes, NATURALNESS)}
    found: dict[str, Attribute] = {}
    for entry in in_commas(options.attributes):
        name, equals, description = entry.partition("=")
        if name in found:
            raise JudgeInputError(f"--attributes {entry}: {name!r} is given twice; remove one")
        found[name] = (
            Attribute(name, description) if equals else of_corpus.get(name) or KNOWN.get(name, Attribute(name, ""))
        )
    return list(found.values())


def _judges(options: argparse.Namespace, attributes: Sequence[Attribute], corpus: Corpus) -> list[Asked]:
    """The judges asked for: of kind classifier the shipped one, and those beside adapters."""
    spec, names = _spec(options), tuple(each.name for each in attributes)
    if isinstance(spec, OpenAIJudge):
        return [Asked(_remote(options, spec, attributes, corpus), names)]
    try:
        assigned = assignments([spec], names, _own_judges(options, corpus))
        return [Asked(load_assigned(each), each.attributes, each.own) for each in assigned]
    except JudgeError as error:
        raise JudgeInputError(str(error)) from error


def _own_judges(options: argparse.Namespace, corpus: Corpus) -> dict[str, OwnJudge]:
    """Attribute -> the judge beside its adapter: those of the data set's job, and of ``--weights``."""
    if options.judge != "classifier":
        return {}
    try:
        return {**corpus.own_judges(), **own_judges_of([_weights_here(each) for each in options.weights])}
    except (ValueError, JudgeWeightsError) as error:
        raise JudgeInputError(str(error)) from error


def _weights_here(entry: str) -> str:
    name, equals, place = ("", "", entry) if is_url(entry) else entry.partition("=")
    return f"{name}{equals}{_here('--weights', place)}" if is_url(place) else entry


def _here(option: str, place: str) -> str:
    """A place of a command line; of one in a store a copy on this machine. Raises JudgeInputError."""
    if not is_url(place):
        return place
    try:
        return str(here(expanded(place)))
    except FileNotFoundError as error:
        raise JudgeInputError(
            f"{option} {place}: {nothing_there(expanded(place), 'file or folder')}; give one"
        ) from error
    except (OSError, ValueError) as error:
        raise JudgeInputError(f"{option} {place}: can't be fetched ({one_line(error)}); check the URL") from error


def _spec(options: argparse.Namespace) -> Judges:
    """The judge's section of a job file, from the options."""
    wanted = KINDS[options.judge]
    for name, kind in KINDS.items():
        ways = _WAYS if kind.remote else ("weights",) if name == "classifier" else ()
        of_it = {*given(options, kind.model), *(each for each in ways if getattr(options, each))}
        strange = of_it.difference(fields_of(wanted.model))
        if kind is not wanted and strange:
            raise JudgeInputError(f"{flag(min(strange))}: belongs to --judge {name}; add that, or leave it out")
    values = {"kind": options.judge, **given(options, wanted.model)}
    try:
        return wanted.model.model_validate(values)
    except ValidationError as error:
        raise JudgeInputError(option_problems(error, values, wanted.model)) from error


def _embedder() -> Embedder | None:
    """For diversity; ``None`` where its package is not installed."""
    from evaluation.features.embedding import EmbeddingModelError, SentenceEmbedder

    try:
        return SentenceEmbedder()
    except EmbeddingModelError:
        return None


def _repeated(
    options: argparse.Namespace, judge: Any, attributes: Sequence[Attribute], corpus: Corpus, table: pa.Table
) -> str:
    """Ask about some texts once more, out of the same budget; only the report sees these answers."""
    from pipeline.judging.report import repeat_line

    items = corpus.items[:: max(1, len(corpus.items) // options.repeat)][: options.repeat]
    spec = _spec(options)
    assert isinstance(spec, OpenAIJudge)
    other = load_remote_judge(spec.model_copy(update={"seed": spec.seed + 1}), attributes, corpus.folder / WORK_FOLDER)
    other.budget = judge.budget
    names = [each.name for each in attributes]
    again = {name: [score.score for score in scores] for name, scores in other.judge(items, names).items()}
    judge.n_calls += other.n_calls
    known = {
        (row["row_id"], row["attribute"]): row["score"] for row in table.to_pylist() if row["judge"] == label_of(judge)
    }
    first = {name: [known.get((item.key, name)) for item in items] for name in names}
    return repeat_line(first, {name: again[name] for name in names})


def _remote(options: argparse.Namespace, spec: OpenAIJudge, attributes: Sequence[Attribute], corpus: Corpus) -> Judge:
    from evaluation.endpoint.settings import JudgeSetupError, base_url_of, key_of

    if options.repeat < 0 or (options.repeat and (options.batch or options.against)):
        raise JudgeInputError(f"--repeat {options.repeat}: give 0 or more, without --batch and --against")
    if options.batch and options.against:
        raise JudgeInputError("--batch, --against: both are given; comparisons are not asked by batch")
    try:
        key_of(spec)
        base_url_of(spec)
    except JudgeSetupError as error:
        field, _, problem = str(error).partition(":")
        raise JudgeInputError(f"{flag(field)}:{problem}") from error
    mode = "batch" if options.batch else "pairwise" if options.against else "grades"
    try:
        judge = load_remote_judge(spec, attributes, corpus.folder / WORK_FOLDER, mode)
    except JudgeError as error:
        raise JudgeInputError(str(error)) from error
    if not options.against:
        return judge
    try:
        return against_persona(judge, options.against, corpus)
    except ValueError as error:
        raise JudgeInputError(f"--against {error}") from error
