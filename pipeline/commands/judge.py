"""``mpg judge``: score any corpus without generating again, and say how far the scores can be believed."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.endpoint.rubrics import FLUENCY
from evaluation.items import Judge, label_of
from personas import KNOWN, Attribute
from personas.errors import SourceError
from personas.examples import load_pairs
from pipeline.commands.shared import InputError, Outcome
from pipeline.job.fields import ClassifierJudge, LogRatioJudge, OpenAIJudge, PersonaMatchJudge
from pipeline.judging.against import against_persona
from pipeline.judging.corpus import Corpus, load_corpus
from pipeline.judging.registry import NATURALNESS, JudgeError, load_judge, load_remote_judge, with_naturalness
from pipeline.store.dataset import WORK_FOLDER, shards_folder
from pipeline.store.lock import FolderInUse, FolderLock

if TYPE_CHECKING:
    import pyarrow as pa

    from evaluation.features.embedding import Embedder

logger = logging.getLogger(__name__)

KINDS = ("classifier", "persona-match", "log-ratio", "openai")


class JudgeInputError(InputError):
    """Input that can't be judged; one line with field, value and remedy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("corpus", metavar="CORPUS", help="folder of a data set, or a Parquet, JSONL or CSV file")
    parser.add_argument("--judge", choices=KINDS, default="classifier", help="who judges (classifier)")
    parser.add_argument("--column", default="response", help="of a file: the column of text (response)")
    parser.add_argument("--attributes", nargs="+", metavar="NAME[=DESCRIPTION]",
                        help="what is judged; left out: the attributes of the data set's job")  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="FOLDER",
                        help="where judgments go: left out, into the data set, or beside a file")  # fmt: skip
    parser.add_argument("--abstain", type=float, default=0.0, help="classifier: leave scores nearer to 0.5 unscored")
    parser.add_argument("--known", nargs=2, metavar=("NAME", "PAIRS"), action="append", default=[],
                        help="measure the judge on pairs whose chosen answer is known to carry NAME")  # fmt: skip
    remote = parser.add_argument_group("judge openai: any OpenAI-compatible endpoint; its key from the environment")
    remote.add_argument("--model", help="as the endpoint names it")
    remote.add_argument("--base-url", help="of the endpoint; left out: OpenAI's own, or OPENAI_BASE_URL")
    remote.add_argument("--api-key-env", default="OPENAI_API_KEY", help="variable with the key (OPENAI_API_KEY)")
    remote.add_argument("--batch", action="store_true", help="ask by the Batch API: cheaper, within a day")
    remote.add_argument("--against", metavar="PERSONA",
                        help="compare every text with this persona's to the same prompt, in both orders")  # fmt: skip
    remote.add_argument("--repeat", type=int, default=0, metavar="N",
                        help="ask again about N texts with another seed: does it agree with itself?")  # fmt: skip
    remote.add_argument("--structured", choices=("auto", "json_schema", "none"), default="auto",
                        help="how the answer's form is asked for (auto)")  # fmt: skip
    remote.add_argument("--in-flight", type=int, default=32, help="calls at once at most (32)")
    remote.add_argument("--per-minute", type=int, default=0, help="calls in any minute at most; 0: no limit (0)")
    remote.add_argument("--timeout-s", type=float, default=60.0, help="of one call (60)")
    remote.add_argument("--max-tokens", type=int, default=600, help="of an answer (600)")
    remote.add_argument("--patience-s", type=float, default=900.0,
                        help="how long a server may refuse all calls before it is given up (900)")  # fmt: skip
    remote.add_argument("--budget", type=float, help="most to spend, in the currency of the prices; no limit")
    remote.add_argument("--prompt-price", type=float, default=0.0, help="per million prompt tokens (0)")
    remote.add_argument("--completion-price", type=float, default=0.0, help="per million completion tokens (0)")


def judge(options: argparse.Namespace) -> Outcome:
    """Judge what is not judged yet, write, and report.

    Raises:
        JudgeInputError: before a model is loaded or a call is made where that can be known.
    """
    try:
        corpus = load_corpus(options.corpus, column=options.column, output=options.output)
        known = {name: load_pairs(pairs) for name, pairs in options.known}
    except SourceError as error:
        raise JudgeInputError(str(error)) from error
    attributes = _attributes(options, corpus)
    judge = _judge(options, attributes, corpus)
    names = [a.name for a in attributes if judge.knows(a.name)]
    strangers = [a.name for a in attributes if not judge.knows(a.name)]
    if not names or (strangers and options.attributes):
        raise JudgeInputError(f"--attributes: the judge {judge.name!r} does not know {', '.join(strangers) or 'any'}")
    for name in known:
        if name not in names:
            raise JudgeInputError(f"--known {name}: not among the attributes judged ({', '.join(names)})")
    if judge.name == "openai":
        names.append(FLUENCY)
    from tqdm import tqdm

    from pipeline.judging.report import agreement_lines, known_lines, means_table, quality_lines
    from pipeline.judging.table import gather, judge_items

    try:
        shards = shards_folder(corpus.folder, "judgments")
        with FolderLock(shards.parent, shared=True):  # beside other judges, not beside a run
            if load_corpus(options.corpus, column=options.column, output=options.output).items != corpus.items:
                raise JudgeInputError(
                    f"{options.corpus}: has changed while the judge was loaded; give the command again"
                )
            try:
                with tqdm(total=len(corpus.items), desc="judging", unit="text", mininterval=1.0) as bar:
                    n_new = judge_items(judge, corpus.items, names, shards, on_text=bar.update)
                    bar.update(len(corpus.items) - bar.n)
            finally:
                with FolderLock(shards.parent, wait=True, name="gathering"):  # one at a time
                    table = gather(shards, [item.key for item in corpus.items], corpus.folder)
    except FolderInUse as error:
        raise JudgeInputError(str(error)) from error
    except OSError as error:
        raise JudgeInputError(f"{corpus.folder}: can't be written ({error}); what was judged before is kept") from error
    stopped = getattr(judge, "stopped", None)
    lines = [means_table(table, corpus), *agreement_lines(table), *known_lines(judge, known)]
    lines += quality_lines(corpus, _embedder())
    if options.repeat:
        lines.append(_repeated(options, judge, attributes, corpus, table))
    bias = getattr(judge, "position_bias", None)
    if bias is not None:
        lines.append(f"of the decided answers {bias:.0%} named the text shown first (50 %: no position bias)")
    budget = getattr(judge, "budget", None)
    if budget is not None:
        lines.append(f"{judge.n_calls} calls, {budget.prompt_tokens} + {budget.completion_tokens} tokens, "  # type: ignore[attr-defined]
                     f"cost {budget.spent:.4g}")  # fmt: skip
    lines.append(
        f"{len(corpus.items)} texts, {n_new} of them asked about now; judgments: {corpus.folder / 'judgments'}"
    )
    problem = None if stopped is None else f"stopped: {stopped}; the same command asks for the rest"
    return Outcome("\n".join(lines), problem)


def _attributes(options: argparse.Namespace, corpus: Corpus) -> list[Attribute]:
    if not options.attributes:
        if not corpus.attributes:
            raise JudgeInputError("--attributes: none given, and the corpus names none; give NAME or NAME=DESCRIPTION")
        return list(with_naturalness(corpus.attributes))
    of_corpus = {each.name: each for each in (*corpus.attributes, NATURALNESS)}
    found: dict[str, Attribute] = {}
    for entry in options.attributes:
        name, equals, description = entry.partition("=")
        if name in found:
            raise JudgeInputError(f"--attributes {entry}: {name!r} is given twice; remove one")
        found[name] = (
            Attribute(name, description) if equals else of_corpus.get(name) or KNOWN.get(name, Attribute(name, ""))
        )
    return list(found.values())


def _judge(options: argparse.Namespace, attributes: Sequence[Attribute], corpus: Corpus) -> Judge:
    if options.judge == "openai":
        return _remote(options, attributes, corpus)
    for name in ("batch", "against", "model", "base_url", "repeat"):
        if getattr(options, name):
            raise JudgeInputError(f"--{name.replace('_', '-')}: belongs to --judge openai; add that, or leave it out")
    if not 0 <= options.abstain < 0.5:
        raise JudgeInputError(f"--abstain: {options.abstain} is out of range; give a number from 0 to below 0.5")
    specs = {
        "classifier": ClassifierJudge(kind="classifier", abstain=options.abstain),
        "persona-match": PersonaMatchJudge(kind="persona-match"),
        "log-ratio": LogRatioJudge(kind="log-ratio"),
    }
    try:
        return load_judge(specs[options.judge])
    except JudgeError as error:
        raise JudgeInputError(str(error)) from error


def _endpoint_fields(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in OpenAIJudge.model_fields if hasattr(options, name)}


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
    spec = OpenAIJudge(kind="openai", seed=1, **_endpoint_fields(options))
    other = load_remote_judge(spec, attributes, corpus.folder / WORK_FOLDER)
    other.budget = judge.budget
    names = [each.name for each in attributes]
    again = {name: [score.score for score in scores] for name, scores in other.judge(items, names).items()}
    judge.n_calls += other.n_calls
    known = {
        (row["row_id"], row["attribute"]): row["score"] for row in table.to_pylist() if row["judge"] == label_of(judge)
    }
    first = {name: [known.get((item.key, name)) for item in items] for name in names}
    return repeat_line(first, {name: again[name] for name in names})


def _remote(options: argparse.Namespace, attributes: Sequence[Attribute], corpus: Corpus) -> Judge:
    from evaluation.endpoint.calls import JudgeSetupError, OpenAISettings, key_of

    if not options.model:
        raise JudgeInputError("--model: none given; judge openai needs the endpoint's name of one")
    if options.repeat < 0 or (options.repeat and (options.batch or options.against)):
        raise JudgeInputError(f"--repeat {options.repeat}: give 0 or more, without --batch and --against")
    if options.batch and options.against:
        raise JudgeInputError("--batch, --against: both are given; comparisons are not asked by batch")
    given = _endpoint_fields(options)
    try:
        key_of(OpenAISettings(**given))
    except JudgeSetupError as error:
        field, _, problem = str(error).partition(":")
        raise JudgeInputError(f"--{field.replace('_', '-')}:{problem}") from error
    mode = "batch" if options.batch else "pairwise" if options.against else "grades"
    try:
        judge = load_remote_judge(OpenAIJudge(kind="openai", **given), attributes, corpus.folder / WORK_FOLDER, mode)
    except JudgeError as error:
        raise JudgeInputError(str(error)) from error
    if not options.against:
        return judge
    try:
        return against_persona(judge, options.against, corpus)
    except ValueError as error:
        raise JudgeInputError(f"--against {error}") from error
