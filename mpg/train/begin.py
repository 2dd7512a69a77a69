"""What every training begins with: a model that can be had, what an adapter changes of it, where it goes on from."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mpg.models.adapter_files import adaptable
from mpg.models.chat import answer_start, stranger_problem
from mpg.models.ends import closing_id
from mpg.models.errors import BankError
from mpg.models.hub import Place, hub_errors
from mpg.models.load import embeddings_of
from mpg.models.pretrained import load_weights, skeleton_of
from mpg.models.probe import check_numbers, own_laws
from mpg.models.template import PLAIN, ChatStyle, argument_problem, template_problem
from mpg.train.recipe import adapted_layers

logger = logging.getLogger(__name__)

# Checkpoints in a training: what is lost when it is killed.
CHECKPOINTS = 6


class TrainError(ValueError):
    """A training that can't begin; one line with the remedy."""


def go_on(scratch: Path, plan: dict[str, Any]) -> str | None:
    """The last checkpoint of an interrupted training by the same plan, if there is one.

    Raises:
        TrainError: the folder is another plan's.
    """
    file = scratch / "plan.json"
    wanted = json.dumps(plan, indent=2, sort_keys=True)
    if file.is_file() and file.read_text(encoding="utf-8") != wanted:
        raise TrainError(f"{scratch}: an interrupted training with other pairs, prompts or recipe; remove it")
    scratch.mkdir(parents=True, exist_ok=True)
    file.write_text(wanted, encoding="utf-8")
    # The state is a checkpoint's last file: one that was cut off has none.
    states = (scratch / "trainer").glob("checkpoint-*/trainer_state.json")
    steps = sorted((int(state.parent.name.partition("-")[2]), str(state.parent)) for state in states)
    if not steps:
        return None
    logger.info("%s: going on from %s", plan["name"], steps[-1][1])
    return steps[-1][1]


def load_tokenizer(model_id: str, style: ChatStyle = PLAIN) -> tuple[Any, int]:
    """A model's tokenizer, and how many tokens the model can read, without its weights.

    Raises:
        TrainError: it can't be had, its chat template takes no chat, is given what it never reads, or closes no answer.
    """
    from mpg.models import pretrained

    with _problems_of(model_id):
        n_embeddings = embeddings_of(skeleton_of(Place(model_id)))
        tokenizer = pretrained.load_tokenizer(Place(model_id))
    problem = template_problem(tokenizer, style) or stranger_problem(tokenizer, n_embeddings, style)
    if problem is None and closing_id(tokenizer, style=style) is None:
        problem = "neither its chat template nor its tokenizer (eos_token) has a token that closes an answer; set one"
    if problem is not None:
        raise TrainError(f"model {model_id}: {problem}")
    argument = argument_problem(tokenizer, style)
    if argument is not None:
        raise TrainError(f"--template-argument {argument}")
    return tokenizer, n_embeddings


@contextmanager
def _problems_of(model_id: str) -> Iterator[None]:
    try:
        with hub_errors(Place(model_id)):
            yield
    except BankError as error:
        said = str(error).removeprefix("model ").removeprefix(f"{model_id}: ")
        raise TrainError(f"model {model_id}: can't be loaded ({said})") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise TrainError(f"model {model_id}: can't be loaded ({' '.join(str(error).split())})") from error


def load_base(model_id: str, dtype: torch.dtype) -> Any:
    """The model to be trained."""
    with _problems_of(model_id):
        model = load_weights(Place(model_id), dtype)
        check_numbers(own_laws(model), model_id, dtype)
    return model


def layers_of(model_id: str, layers: str) -> list[int] | None:
    """The layers that a recipe names of a model; ``None``: all. Raises TrainError: it has no such layers."""
    if layers == "all":
        return None
    with _problems_of(model_id):
        n_layers = skeleton_of(Place(model_id)).config.get_text_config().num_hidden_layers
    try:
        return adapted_layers(layers, n_layers)
    except ValueError as error:
        raise TrainError(f"--{error}") from error


def start_of(model_id: str, tokenizer: Any, from_answer: bool, style: ChatStyle) -> list[int]:
    """What every answer begins after, where the adapter is to be on from there only; else nothing.

    Raises:
        TrainError: there are no such tokens.
    """
    found = answer_start(tokenizer, style) if from_answer else []
    if from_answer and not found:
        raise TrainError(
            f"--from-answer: the chat template of {model_id} writes nothing between a prompt and its answer; "
            "leave it out"
        )
    return found


def targets(model: Any, layers: list[int] | None = None) -> dict[str, Any]:
    """What is trained, in the words of PEFT's config: all linear layers, or those of some decoder layers.

    Where some of those can't be decoded with, the others by name. Beside experts attention alone: of the names of their
    layers PEFT makes targets that are no layers.
    """
    found = _targets(model)
    if layers is None:
        return {"target_modules": found}
    if isinstance(found, list):
        return {"target_modules": [name for name in found if _decoder_layer(name) in layers]}
    suffixes = {name.rpartition(".")[2] for name in adaptable(model) if _decoder_layer(name) is not None}
    return {"target_modules": sorted(suffixes), "layers_to_transform": layers}


def _decoder_layer(name: str) -> int | None:
    """The number in a module's name, as PEFT finds it."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def _targets(model: Any) -> str | list[str]:
    taken, head = adaptable(model), model.get_output_embeddings()
    every = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    if any(parameter.ndim == 3 for parameter in model.parameters()):
        return [name for name in taken if "attn" in name or "attention" in name]
    return "all-linear" if set(taken) == set(every) else taken


def new_lora(model: Any, rank: int, alpha: float, layers: list[int] | None, start: list[int]) -> Any:
    """PEFT's config of an adapter that does not change anything yet.

    Args:
        layers: as :func:`layers_of` gives them; ``start``: as :func:`start_of` does.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        alora_invocation_tokens=start or None,
        **targets(model, layers),
    )
