"""``mpg train``: from a table of pairs, or from two descriptions and some prompts, to an adapter with a card."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mpg.models.hub import Place
from mpg.models.template import PLAIN, ChatStyle
from mpg.train.recipe import Recipe, own_weight
from personas.errors import SourceError
from personas.examples import Example, load_pairs
from personas.preferences import is_held_out
from personas.profiles import with_system
from personas.prompts import Prompt, canonical_json, load_prompts_jsonl
from personas.records import row_seed
from pipeline.commands.arguments import add_words, in_commas, place, source
from pipeline.commands.chat_options import add_chat_options, style_of
from pipeline.commands.shared import InputError, Outcome, adapters_by_name, columns_by_name
from pipeline.commands.train_judge import PairsJudge, question_of
from pipeline.decode.loading import loading
from pipeline.exit_status import ExitStatus
from pipeline.job.licence_terms import checked
from pipeline.plan.errors import RunError

# How the reference is told what to be like, and how it answers then.
INSTRUCTION = "You are someone who {description}. Answer as such a person would, in your own words."
_SAMPLING = {"max_new_tokens": 80, "temperature": 0.9, "top_p": 0.95}
_RECIPE = {
    "rank": (int, "of the adapter"),
    "layers": (
        str,
        "that it changes: all, top:1/3, top:10, 20-29; those below are run once for all adapters",
    ),
    "learning_rate": (float, "peak, with a cosine schedule"),
    "beta": (float, "of DPO: how hard the policy is held to the reference"),
    "sft_weight": (float, "weight of the chosen answers' likelihood in the loss"),
    "steps": (int, "optimizer steps"),
    "batch_size": (int, "pairs a step"),
    "max_pairs": (int, "pairs trained on at most"),
    "max_pair_tokens": (int, "longer pairs are left out"),
    "seed": (int, "of the order of the pairs, and of the answers made from prompts"),
}


class TrainInputError(InputError):
    """Input that nothing can be trained from; one line with field, value and remedy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("pairs", nargs="?", metavar="TABLE", type=source,
                        help="table (JSONL, CSV, Parquet, ...) or Hub data set with columns prompt, chosen, rejected; "
                        "text, or lists of chat messages")  # fmt: skip
    parser.add_argument("--name", required=True, help="of the attribute")
    parser.add_argument("--output", type=place, required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument("--description", help="what texts that have it are like, in one line: judges grade by it, "
                        "in every job that describes the attribute no further (--attribute)")  # fmt: skip
    parser.add_argument("--model", type=source, default="embedded/smollm2-135m-instruct",
                        help="the reference model (embedded/smollm2-135m-instruct)")  # fmt: skip
    parser.add_argument("--column", action="append", default=[], metavar="NAME=COLUMN",
                        help="which column is prompt, chosen or rejected, where it has another name")  # fmt: skip
    made = parser.add_argument_group("pairs made by the reference model itself")
    made.add_argument("--from-prompts", type=place, metavar="PROMPTS", help="prompts, in any table")
    made.add_argument("--attribute", metavar="TEXT", help='what chosen answers are like: "speaks like a captain"')
    made.add_argument("--opposite", metavar="TEXT", help='what rejected ones are like: "speaks plainly"; of a TABLE: '
                      "for the card alone")  # fmt: skip
    made.add_argument("--samples", type=int, default=2, help="pairs for each prompt (2)")
    parser.add_argument("--objective", choices=("dpo", "modpo"), default="dpo",
                        help="dpo: one attribute; modpo: one model for several at given weights (MODPO)")  # fmt: skip
    add_words(parser, "--other", positional="pairs", unless="from_prompts", default=[], metavar="NAME[=FOLDER]:WEIGHT",
              help="modpo: the other attributes, shipped or by adapter folder, with their weights; "
              "the pairs' own attribute has what they leave of 1")  # fmt: skip
    parser.add_argument("--license", metavar="ID", type=_licence,
                        help="of the adapter, for its card: by an identifier of the Hub")  # fmt: skip
    parser.add_argument("--no-judge", action="store_true", help="fit no judge from the pairs beside the adapter")
    parser.add_argument("--judge-only", action="store_true",
                        help="fit a judge beside the adapter that is in FOLDER, from its TABLE")  # fmt: skip
    add_chat_options(parser)
    recipe = parser.add_argument_group("recipe")
    for name, (kind, text) in _RECIPE.items():
        recipe.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"{text} ({_default(name)})")
    recipe.add_argument("--from-answer", action="store_true",
                        help="on from where the answer begins: a prompt runs once for all adapters")  # fmt: skip


def _licence(text: str) -> str:
    try:
        return checked(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def train(options: argparse.Namespace) -> Outcome:
    """Train, and return the report; in all but the first of several processes an empty one.

    Raises:
        TrainInputError: before a model is loaded where that can be known; nothing is written then.
    """
    output: Path = options.output
    absent = [package for package in ("trl", "peft") if find_spec(package) is None]
    if absent and not options.judge_only:
        raise TrainInputError(
            f"train: needs {' and '.join(absent)}; pip install 'mpg-scr[train]' (or make install-dev)"
        )
    _check(options)
    recipe, others, style = _recipe(options), _others(options), style_of(options)
    if options.from_prompts is None:
        examples = _from_table(options.pairs, options.column)
        data: dict[str, Any] = {"table": Path(options.pairs).name, **_file_hash(options.pairs)}
        made = None
    else:
        examples, data, made = _from_prompts(options, recipe.seed, style)
    sides: dict[bool, list[Example]] = {False: [], True: []}
    for example in examples:
        sides[is_held_out(question_of(example))].append(example)
    described = {"description": options.description or options.attribute or "", "opposite": options.opposite or ""}
    judge = PairsJudge(options.name, sides[False], sides[True], {**described, "data": data})
    if options.judge_only:
        judge.fit(output, describe=True)
        return Outcome(judge.line) if judge.fitted else Outcome("", judge.line, ExitStatus.BAD_INPUT)
    import torch

    from mpg.models.dtype import pick_dtype
    from mpg.train.begin import TrainError
    from mpg.train.dpo import train_adapter

    def finish(folder: Path) -> None:
        _check_numbers(folder, options.model)
        if not options.no_judge:
            judge.fit(folder)

    try:
        with loading(f"--model {options.model}", "--other"):
            card = train_adapter(
                name=options.name,
                **described,
                license=options.license or "",
                model_id=options.model,
                train_pairs=sides[False],
                held_out_pairs=sides[True],
                data=data,
                output=output,
                recipe=recipe,
                dtype=getattr(torch, pick_dtype("auto")),
                others=others,
                finish=finish,
                style=style,
            )
    except TrainError as error:
        raise TrainInputError(str(error)) from error
    from accelerate import PartialState

    if not PartialState().is_main_process:  # of several processes, one moves files and speaks
        return Outcome("")
    if made is not None:
        made.replace(output / "pairs.jsonl")
    return Outcome(_report(card, output) + (f"\n{judge.line}" if judge.line else ""))


def _check(options: argparse.Namespace) -> None:
    if (options.pairs is None) == (options.from_prompts is None):
        what = "neither is" if options.pairs is None else "both are"
        raise TrainInputError(f"TABLE, --from-prompts: {what} given; give one of the two")
    described = [name for name in ("attribute", "opposite") if not getattr(options, name)]
    if options.from_prompts is not None and described:
        raise TrainInputError(f"--{described[0]}: needed with --from-prompts; say what such answers are like")
    if options.samples < 1:
        raise TrainInputError(f"--samples: {options.samples} must be at least 1")
    if options.judge_only:
        _check_judge_only(options)
    elif options.output.exists():
        raise TrainInputError(f"--output {options.output}: is there already; name another folder, or remove it")


def _check_numbers(folder: Path, model: str) -> None:
    """Raises TrainInputError: what was measured of an adapter are no numbers, so that it is worth nothing."""
    held_out = json.loads((folder / "card.json").read_text("utf-8"))["held_out"]
    numbers = {name: value for name, value in held_out.items() if isinstance(value, float)}
    strange = [name for name, value in numbers.items() if not math.isfinite(value)]
    if any("reference" in name for name in strange):
        why = "its log-likelihoods are no numbers (NaN or infinite): a file is damaged; fetch it again"
        raise TrainInputError(f"--model {model}: {why}, no adapter is written")
    if strange:
        why = f"after training {strange[0]} is {numbers[strange[0]]}: it diverged; give a lower one"
        raise TrainInputError(f"--learning-rate: {why}, no adapter is written")


def _check_judge_only(options: argparse.Namespace) -> None:
    if options.no_judge or options.from_prompts is not None:
        what = "--no-judge" if options.no_judge else "--from-prompts"
        raise TrainInputError(f"--judge-only, {what}: both are given; give TABLE alone (of made pairs, pairs.jsonl)")
    if not (options.output / "adapter_config.json").is_file():
        raise TrainInputError(f"--output {options.output}: no adapter is there; give its folder, or no --judge-only")


def _others(options: argparse.Namespace) -> dict[str, tuple[Place | str, float]]:
    """Attribute -> (adapter, weight), of ``--objective modpo``."""
    if (options.objective == "modpo") != bool(options.other):
        remedy = (
            "name the other attributes" if options.objective == "modpo" else "give --objective modpo, or leave it out"
        )
        raise TrainInputError(f"--other: {'none' if not options.other else 'some'} given; {remedy}")
    names: list[str] = []
    weights: list[float] = []
    for entry in in_commas(options.other):
        named, colon, weight = entry.rpartition(":")
        try:
            weights.append(float(weight))
        except ValueError:
            colon = ""
        if not colon:
            raise TrainInputError(f"--other {entry}: no weight; write NAME:WEIGHT or NAME=FOLDER:WEIGHT")
        names.append(named)
    try:
        adapters = adapters_by_name(names, "--other")
    except ValueError as error:
        raise TrainInputError(str(error)) from error
    try:
        own_weight(dict(zip(adapters, weights, strict=True)))
    except ValueError as error:
        raise TrainInputError(f"--other: {error}") from error
    return {name: (place, weight) for (name, place), weight in zip(adapters.items(), weights, strict=True)}


def _recipe(options: argparse.Namespace) -> Recipe:
    given = {name: getattr(options, name) for name in _RECIPE if getattr(options, name) is not None}
    try:
        return Recipe(**given, from_answer=options.from_answer)
    except ValueError as error:
        name, _, problem = str(error).partition(":")
        raise TrainInputError(f"--{name.replace('_', '-')}:{problem}") from error


def _default(name: str) -> Any:
    return next(field.default for field in fields(Recipe) if field.name == name)


def _from_table(table: str, columns: Sequence[str] = ()) -> list[Example]:
    try:
        return load_pairs(table, columns_by_name(columns, ("prompt", "chosen", "rejected")))
    except ValueError as error:  # SourceError is one
        raise TrainInputError(str(error)) from error


def _from_prompts(
    options: argparse.Namespace, seed: int, style: ChatStyle
) -> tuple[list[Example], dict[str, Any], Path]:
    """Pairs, their provenance, and the file that holds them: made once, and found again by a run that goes on."""
    try:
        prompts = load_prompts_jsonl(options.from_prompts)
    except SourceError as error:
        raise TrainInputError(f"--from-prompts {error}") from error
    how = {
        "attribute": options.attribute,
        "opposite": options.opposite,
        "samples": options.samples,
        "prompts": [prompt.as_chat() for prompt in prompts],
        "model": options.model,
        "seed": seed,
        "sampling": _SAMPLING,
    } | ({"template": style.described()} if style.described() else {})
    digest = hashlib.sha256(canonical_json(how).encode()).hexdigest()
    file = options.output.parent / f".{options.output.name}.{digest[:12]}.pairs.jsonl"
    from accelerate import PartialState

    with PartialState().main_process_first():  # the others read what the first has written
        if not file.is_file():
            told = (options.attribute, options.opposite)
            rows = make_pairs(options.model, prompts, *told, options.samples, seed, style)
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch = file.with_suffix(".part")
            scratch.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            scratch.replace(file)
    data = {"made_from": options.from_prompts.name, **_file_hash(options.from_prompts)}
    data |= {name: how[name] for name in ("attribute", "opposite", "samples", "sampling")}
    return _from_table(str(file)), data, file


def make_pairs(
    model: str,
    prompts: Sequence[Prompt],
    attribute: str,
    opposite: str,
    samples: int,
    seed: int,
    style: ChatStyle = PLAIN,
) -> list[dict[str, Any]]:
    """The reference's answers under both descriptions, as rows with ``prompt``, ``chosen``, ``rejected``.

    The prompt of a row is the bare one: what the description did to an answer is what the adapter learns.
    Pairs with an empty side, or with equal ones, are left out.

    Raises:
        TrainInputError: a model that can't be loaded, or whose chat template takes no system message.
    """
    import torch
    from tqdm import tqdm

    from mpg import Completion, DecoderSettings, ModelBank, Request, decode
    from mpg.models.chat import encode_chat
    from mpg.models.dtype import pick_dtype
    from mpg.models.ends import answer_text
    from mpg.train.begin import TrainError, load_tokenizer
    from mpg.train.pairs import refused_system

    chats = [
        with_system(prompt.as_chat(), INSTRUCTION.format(description=description))
        for prompt in prompts
        for description in (attribute, opposite)
    ]
    try:
        tokenizer, _ = load_tokenizer(model, style)
    except TrainError as error:
        raise TrainInputError(f"--{error}") from error
    refused = refused_system(tokenizer, chats, style)
    if refused is not None:
        raise TrainInputError(f"--model {model}: {refused}, which tells it how to answer; give --system-role fold")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with loading(f"--model {model}"):
            dtype = getattr(torch, pick_dtype("auto"))
            bank = ModelBank.load(model, {}, dtype=dtype, device=device, style=style)
    except RunError:  # the line is made
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise TrainInputError(f"--model {model}: can't be loaded ({' '.join(str(error).split())})") from error
    requests = []
    for i in range(len(prompts)):
        encoded = [encode_chat(bank.tokenizer, chat, style=style) for chat in chats[2 * i : 2 * i + 2]]
        for j in range(samples):
            for side, ids in enumerate(encoded):
                requests.append(Request(ids, {}, row_seed(seed, f"{i}:{j}:{side}")))
    settings = DecoderSettings(name="reference", **_SAMPLING)  # type: ignore[arg-type]
    with tqdm(total=len(requests), desc="answers", unit="text", leave=False) as bar:

        def answered(index: int, completion: Completion) -> None:
            bar.update()

        done = list(decode(bank, requests, settings, on_done=answered))
    texts = [answer_text(bank.tokenizer, c.token_ids, bank.eos_ids) for c in done]
    rows = []
    for i in range(0, len(texts), 2):
        chosen, rejected = texts[i : i + 2]
        if chosen and rejected and chosen != rejected:
            rows.append({"prompt": prompts[i // 2 // samples].as_chat(), "chosen": chosen, "rejected": rejected})
    return rows


def _file_hash(place: str | Path) -> dict[str, str]:
    path = Path(place)
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}


def _report(card: dict[str, Any], output: Path) -> str:
    held_out = card["held_out"]
    before, after = held_out["chosen_log_likelihood_reference"], held_out["chosen_log_likelihood"]
    return "\n".join(
        [
            f"{card['name']}: trained on {card['recipe']['train_pairs']} pairs; on {held_out['n_pairs']} held out:",
            f"  reward accuracy                  {held_out['accuracy']:.3f}",
            f"  chosen over rejected             {held_out['mean_margin']:.1f} nats",
            f"  log-likelihood of the chosen     {before:.1f} (reference) -> {after:.1f}",
            f"  KL from the reference            {held_out['kl_per_token']:.3f} nats a token",
            f"  the reference's drafts accepted  {held_out['acceptance_per_token']:.2f}",
            f"written: {output} (in a job: attributes: [{{name: {card['name']}, adapter: {output}}}])",
        ]
    )
