"""``mpg infer-weights``: from examples that a user liked to a persona."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.tables import aligned
from personas.attributes import Persona
from personas.examples import Example, columns_of, load_pairs, load_texts
from personas.files import save_personas
from personas.weights import rounded
from pipeline.commands.arguments import add_words, in_commas, place, source
from pipeline.commands.chat_options import add_chat_options, style_of
from pipeline.commands.shared import InputError, Outcome, adapters_by_name, columns_by_name
from pipeline.decode.loading import loading
from pipeline.plan.errors import RunError

if TYPE_CHECKING:
    from mpg import ModelBank
    from mpg.models.hub import Place
    from mpg.models.template import ChatStyle
    from mpg.score.weights import InferredWeights


logger = logging.getLogger(__name__)


class InferError(InputError):
    """Input that no weights can be inferred from; one line with field, value and remedy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "examples",
        metavar="TABLE",
        nargs="?",
        type=source,
        help="table (JSONL, CSV, Parquet, ...) or Hub data set with columns prompt, chosen, rejected (pairs) or "
        "prompt, response",
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="which column is prompt, chosen, rejected or response, where it has another name",
    )
    add_words(
        parser,
        "--attributes",
        positional="examples",
        required=True,
        metavar="NAME[=ADAPTER]",
        help="shipped attributes by name, or NAME=FOLDER of an adapter (or NAME=owner/name@revision/subfolder)",
    )
    parser.add_argument(
        "--model",
        type=source,
        default="embedded/smollm2-135m-instruct",
        help="the reference model (embedded/smollm2-135m-instruct)",
    )
    parser.add_argument("--any-base", action="store_true", help="the adapters may name another base than --model")
    add_chat_options(parser)
    parser.add_argument("--name", help="of the persona; left out: the output file's")
    parser.add_argument("--output", type=place, required=True, metavar="PERSONA.yaml", help="file to write")
    parser.add_argument(
        "--horizon", type=int, default=8, help="for texts alone: the decoder's horizon (8); 0: never reset"
    )
    parser.add_argument("--strength", type=float, default=1.0, help="for texts alone: the decoder's strength (1)")
    parser.add_argument("--batch-size", type=int, default=8, help="texts scored together (8)")
    parser.add_argument("--seed", type=int, default=0, help="of the posterior's draws (0)")


def infer_weights(options: argparse.Namespace) -> Outcome:
    """Infer, write the persona file, and return the report.

    Raises:
        InferError: before a model is loaded where that can be known; nothing is written then.
    """
    try:
        adapters = adapters_by_name(in_commas(options.attributes), "--attributes")
    except ValueError as error:
        raise InferError(str(error)) from error
    if options.any_base:
        adapters = {name: replace(place, any_base=True) for name, place in adapters.items()}
    output: Path = options.output
    if output.exists():
        raise InferError(f"--output {output}: is there already; name another file, or remove it")
    if output.suffix not in (".yaml", ".yml"):
        raise InferError(f"--output {output}: is no .yaml file; a persona is written as one")
    if options.batch_size < 1:
        raise InferError(f"--batch-size: {options.batch_size} must be at least 1")
    try:
        named = columns_by_name(options.column, ("prompt", "chosen", "rejected", "response"))
        pairs = bool({"chosen", "rejected"} & {*columns_of(options.examples), *named})
        examples = (load_pairs if pairs else load_texts)(options.examples, named)
    except ValueError as error:  # ExampleError is one
        raise InferError(str(error)) from error
    from mpg.settings import DecoderSettings

    try:
        settings = DecoderSettings(horizon=options.horizon or None, strength=options.strength)
    except ValueError as error:
        raise InferError(f"--{str(error).removeprefix('decoder.')}") from error
    style = style_of(options)
    _check_template(options.model, [example.as_chat() for example in examples], style, adapters)
    found = _infer(_load(options.model, adapters, style), examples, settings, options, style)
    weights = dict(zip(found.weights, rounded(list(found.weights.values())), strict=True))
    save_personas(output, [Persona(options.name or output.stem, weights)])
    return Outcome(_report(found, pairs=pairs, output=output))


def _load(model: str, adapters: Mapping[str, Place], style: ChatStyle) -> ModelBank:
    import torch
    from transformers.utils import logging as transformers_logging

    from mpg import ModelBank
    from mpg.models.dtype import pick_dtype

    transformers_logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with loading(f"--model {model}", "--attributes"):
            dtype = getattr(torch, pick_dtype("auto"))
            return ModelBank.load(model, adapters, dtype=dtype, device=device, style=style)
    except RunError:  # the line is made
        raise
    except (ValueError, OSError, RuntimeError) as error:
        raise InferError(f"--model {model}: {' '.join(str(error).split())}") from error


def _check_template(
    model: str, chats: Sequence[Sequence[Mapping[str, str]]], style: ChatStyle, adapters: Mapping[str, Place]
) -> None:
    """Raises InferError: the model's chat template does not take what it will be given. No weights are loaded.

    Args:
        adapters: that may be on from where it begins an answer.
    """
    from mpg.models.adapter_files import read_lora
    from mpg.models.chat import stranger_problem
    from mpg.models.hub import Place, adapter_folder
    from mpg.models.load import embeddings_of
    from mpg.models.pretrained import load_tokenizer, skeleton_of
    from mpg.models.template import argument_problem, fate_of, reads_day, template_problem
    from mpg.settings import DEFAULT_DATE
    from pipeline.plan.cards import start_problem

    try:
        n_embeddings, tokenizer = embeddings_of(skeleton_of(Place(model))), load_tokenizer(Place(model))
    except (ValueError, OSError, RuntimeError) as error:
        raise InferError(f"--model {model}: {' '.join(str(error).split())}") from error
    problem = template_problem(tokenizer, style) or stranger_problem(tokenizer, n_embeddings, style)
    if problem is not None:
        raise InferError(f"--model {model}: {problem}")
    argument = argument_problem(tokenizer, style)
    if argument is not None:
        raise InferError(f"--template-argument {argument}")
    for name, adapter in adapters.items():
        with loading(f"--model {model}", "--attributes"):
            folder = adapter_folder(adapter)
            problem = None if folder is None else start_problem(adapter, read_lora(folder).invocation, tokenizer, style)
        if problem is not None:
            raise InferError(f"--attributes {name}: {problem}")
    if style.date is None and reads_day(tokenizer):
        logger.warning("the chat template asks for today's date: all texts read %s (--date)", DEFAULT_DATE)
    for number, chat in enumerate(chats, start=1):
        fate = fate_of(tokenizer, tuple(message["role"] for message in chat), style)
        if fate is not None:
            remedy = "give --system-role fold" if fate.of_system else "leave it out"
            raise InferError(f"row {number}: {fate.what}; {remedy}")


def _infer(
    bank: ModelBank, examples: Sequence[Example], settings: object, options: argparse.Namespace, style: ChatStyle
) -> InferredWeights:
    from mpg.models.chat import encode_chat, encode_text, without_end
    from mpg.models.control_tokens import ControlTokenError
    from mpg.models.ends import closing_id
    from mpg.score.weights import from_pairs, from_texts
    from mpg.settings import DecoderSettings

    assert isinstance(settings, DecoderSettings)
    tokenizer, end = bank.tokenizer, closing_id(bank.tokenizer, bank.eos_ids, style)
    eos = [] if end is None else [end]
    encoded: list[Any] = []
    for number, example in enumerate(examples, start=1):
        try:
            prompt = encode_chat(tokenizer, example.as_chat(), style=style)
            answers = [
                encode_text(tokenizer, without_end(tokenizer, text, bank.eos_ids)) + eos for text in example.answers
            ]
        except ControlTokenError as error:
            raise InferError(f"{options.examples}: row {number}: {error}") from error
        except Exception as error:  # a template may raise anything
            raise InferError(f"{options.examples}: row {number}: {type(error).__name__}: {error}") from error
        longest = len(prompt) + max(map(len, answers))
        if bank.max_positions is not None and longest > bank.max_positions:
            raise InferError(
                f"{options.examples}: row {number}: {longest} tokens, the model takes {bank.max_positions}"
            )
        encoded.append((prompt, *answers))
    common = {"batch_size": options.batch_size, "seed": options.seed}
    try:
        if len(examples[0].answers) == 2:
            return from_pairs(bank, encoded, **common)
        return from_texts(bank, encoded, settings, **common)
    except ValueError as error:
        raise InferError(f"{options.examples}: {error}") from error


def _report(found: InferredWeights, *, pairs: bool, output: Path) -> str:
    rows = [[name, f"{w:.2f}", f"{found.low[name]:.2f} .. {found.high[name]:.2f}"] for name, w in found.weights.items()]
    lines = [aligned(["attribute", "weight", "95 % interval"], rows)]
    if pairs:
        lines.append(f"{found.n} pairs; these weights order {found.fit:.0%} of them as they were given")
    else:
        lines.append(f"{found.n} texts; {found.fit:.3f} nats a token more likely than under equal weights")
    lines.append(f"written: {output} (in a job: personas: {{kind: file, file: {output.name}}})")
    return "\n".join(lines)
