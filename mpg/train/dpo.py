"""Train a preference model: a LoRA adapter by DPO (Rafailov et al. 2023) with an SFT term.

``loss = -log sigmoid(beta * (log r(chosen) - log r(rejected))) - sft_weight * mean log pi(chosen)``

where ``log r(y) = log pi(y|x) - log pi_0(y|x)``. The second term (RPO, Pang et al. 2024) holds the
likelihood of the chosen answers up: with plain DPO it falls, and an adapter used as a density ratio
at strength 1 then pushes the text away from fluent language instead of towards the attribute.
"""

from __future__ import annotations

import json
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
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
from mpg.models.template import PLAIN, ChatStyle, argument_problem, reads_day, template_problem
from mpg.settings import DEFAULT_DATE
from mpg.train.modpo import with_margins
from mpg.train.pairs import IN_AN_ANSWER, digest, length_grouped, refused_system, rows_of, with_pad_token
from mpg.train.recipe import Recipe, adapted_layers, own_weight
from mpg.train.rewards import reward_report
from mpg.train.save import put_in_place, save_adapter

logger = logging.getLogger(__name__)

CARD_FILE = "card.json"
# Checkpoints in a training: what is lost when it is killed.
_CHECKPOINTS = 6


class TrainError(ValueError):
    """A training that can't begin; one line with the remedy."""


def _go_on(scratch: Path, plan: dict[str, Any]) -> str | None:
    """The last checkpoint of an interrupted training by the same plan, if there is one.

    Raises:
        TrainError: the folder is another plan's.
    """
    file = scratch / "plan.json"
    wanted = json.dumps(plan, indent=2, sort_keys=True)
    if file.is_file() and file.read_text(encoding="utf-8") != wanted:
        raise TrainError(f"{scratch}: an interrupted training with other pairs or another recipe; remove it")
    scratch.mkdir(parents=True, exist_ok=True)
    file.write_text(wanted, encoding="utf-8")
    # The state is a checkpoint's last file: one that was cut off has none.
    states = (scratch / "trainer").glob("checkpoint-*/trainer_state.json")
    steps = sorted((int(state.parent.name.partition("-")[2]), str(state.parent)) for state in states)
    if not steps:
        return None
    logger.info("%s: going on from %s", plan["name"], steps[-1][1])
    return steps[-1][1]


def train_adapter(
    *,
    name: str,
    description: str,
    model_id: str,
    train_pairs: Sequence[Any],
    held_out_pairs: Sequence[Any],
    data: dict[str, Any],
    output: str | Path,
    recipe: Recipe,
    dtype: torch.dtype = torch.bfloat16,
    others: Mapping[str, tuple[Place | str, float]] | None = None,
    opposite: str = "",
    license: str = "",
    finish: Callable[[Path], None] | None = None,
    style: ChatStyle = PLAIN,
) -> dict[str, Any]:
    """Train one adapter and write it with its card; returns the card.

    Args:
        name: attribute the adapter speaks for.
        description: one line for people.
        model_id: embedded id, Hub id or folder.
        train_pairs, held_out_pairs: objects with ``as_chat()``, ``chosen``, ``rejected``.
        data: provenance of the pairs, copied into the card.
        output: folder to write; replaced whole when training has ended. Killed, the same call goes on
            from the last checkpoint, which lies beside it.
        recipe: see :class:`Recipe`.
        dtype: of the frozen base weights; the adapter itself trains in float32.
        others: other attributes -> (adapter, weight): trains by MODPO for all of them at once, the pairs' own
            attribute having the weight they leave of 1, see :mod:`mpg.train.modpo`.
        opposite: what texts at the other end are like, in one line; for the card.
        license: of the adapter, for the card: data sets that are made with it take it into account.
        finish: adds files to the finished folder, before that is put in its place; of several processes, in one.
        style: what the chat template is told beside the messages; a card says what is not as by default.

    Raises:
        TrainError: weights that leave nothing, an adapter among ``others`` that does not fit, a model that
            can't be loaded or whose chat template takes no such chats, no pair to train on or to hold out that is short
            enough, or the checkpoints beside ``output`` are another training's.
    """
    objective, beta = _objective(name, others or {}, recipe)
    tokenizer, n_embeddings = load_tokenizer(model_id, style)
    pairs = (train_pairs, held_out_pairs)
    refused = refused_system(tokenizer, [pair.as_chat() for some in pairs for pair in some], style)
    if refused is not None:
        raise TrainError(f"model {model_id}: {refused}; give --system-role fold, or pairs without system messages")
    if style.date is None and reads_day(tokenizer):
        logger.warning("the chat template asks for today's date: all texts read %s (--date)", DEFAULT_DATE)
    start = _start(model_id, tokenizer, recipe, style)
    rows, held_out_rows = _short_enough(name, tokenizer, *pairs, recipe, style, n_embeddings, start)
    adapted = {"layers": _layers(model_id, recipe), "start": start or None}
    model = _load(model_id, dtype)
    output = Path(output)
    scratch = output.parent / f".{output.name}.training"
    plan = {"name": name, "model": model_id, "recipe": asdict(recipe), "data": data, "pairs": digest(rows)}
    checkpoint = _go_on(scratch, plan | objective)
    bf16 = dtype == torch.bfloat16
    trainer = _trainer(model, tokenizer, rows, replace(recipe, beta=beta), scratch / "trainer", adapted, bf16=bf16)
    if others:
        _shift_references(trainer, name, model_id, others, dtype)
    trainer.train(resume_from_checkpoint=checkpoint)
    card: dict[str, Any] = {"name": name, "description": description, **({"opposite": opposite} if opposite else {})}
    card |= {"base_model": model_id, **({"license": license} if license else {}), "data": data}
    described = style.described() | ({"date": style.date or DEFAULT_DATE} if reads_day(tokenizer) else {})
    card |= {"template": described} if described else {}
    card |= _made(trainer, recipe, len(rows), objective)
    card |= {"held_out": asdict(reward_report(trainer.model, held_out_rows))}
    if trainer.is_world_process_zero():
        save_adapter(trainer.model, scratch / "adapter", model_id)
        (scratch / "adapter" / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        if finish is not None:
            finish(scratch / "adapter")
        put_in_place(scratch, output)
    trainer.accelerator.wait_for_everyone()
    return card


def _objective(
    name: str, others: Mapping[str, tuple[Place | str, float]], recipe: Recipe
) -> tuple[dict[str, Any], float]:
    """What a plan and a card say of the loss, and its beta: DPO's, or MODPO's ``beta / w_k``."""
    weights = {other: weight for other, (_, weight) in others.items()}
    try:
        weight = own_weight(weights)
    except ValueError as error:
        raise TrainError(f"{name}: {error}") from error
    said = {"objective": "modpo", "weight": weight, "others": weights} if others else {"objective": "dpo"}
    return said, recipe.beta / weight


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


def _load(model_id: str, dtype: torch.dtype) -> Any:
    """The model to be trained."""
    with _problems_of(model_id):
        model = load_weights(Place(model_id), dtype)
        check_numbers(own_laws(model), model_id, dtype)
    return model


def _layers(model_id: str, recipe: Recipe) -> list[int] | None:
    """The layers that a recipe names of a model. Raises TrainError: it has no such layers."""
    if recipe.layers == "all":
        return None
    with _problems_of(model_id):
        n_layers = skeleton_of(Place(model_id)).config.get_text_config().num_hidden_layers
    try:
        return adapted_layers(recipe.layers, n_layers)
    except ValueError as error:
        raise TrainError(f"--{error}") from error


def _start(model_id: str, tokenizer: Any, recipe: Recipe, style: ChatStyle) -> list[int]:
    """What every answer begins after, where the adapter is to be on from there only; else nothing.

    Raises:
        TrainError: there are no such tokens.
    """
    found = answer_start(tokenizer, style) if recipe.from_answer else []
    if recipe.from_answer and not found:
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


def _short_enough(
    name: str,
    tokenizer: Any,
    train_pairs: Sequence[Any],
    held_out_pairs: Sequence[Any],
    recipe: Recipe,
    style: ChatStyle,
    n_embeddings: int,
    start: Sequence[int],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows to train on, in the recipe's order, and rows held out."""
    shuffled = list(train_pairs)
    random.Random(recipe.seed).shuffle(shuffled)
    left_out = Counter[str]()
    how: dict[str, Any] = {"style": style, "n_embeddings": n_embeddings, "left_out": left_out, "start": start}
    rows = rows_of(tokenizer, shuffled, recipe.max_pair_tokens, **how)[: recipe.max_pairs]
    held_out_rows = rows_of(tokenizer, held_out_pairs, 2 * recipe.max_pair_tokens, **how)
    for reason, n in left_out.most_common():
        logger.warning("%s: %d pairs %s and are left out", name, n, reason)
    for kind, some, limit in (("to train on", rows, 1), ("held out", held_out_rows, 2)):
        if not some:
            (why, n), *_ = left_out.most_common(1) or [("", 0)]
            remedy = "leave out --from-answer" if why.startswith(IN_AN_ANSWER) else "raise max_pair_tokens"
            raise TrainError(
                f"{name}: no pair {kind} has at most {limit * recipe.max_pair_tokens} tokens"
                f"{f' ({n} {why})' if n else ''}; give more prompts, or {remedy}"
            )
    logger.info("%s: %d pairs to train on, %d held out", name, len(rows), len(held_out_rows))
    return rows, held_out_rows


def _shift_references(
    trainer: Any, name: str, model_id: str, others: Mapping[str, tuple[Place | str, float]], dtype: torch.dtype
) -> None:
    """Make DPO's references MODPO's, see :mod:`mpg.train.modpo`."""
    places = {other: place for other, (place, _) in others.items()}
    weights = {other: weight for other, (_, weight) in others.items()}
    try:
        trainer.train_dataset = with_margins(trainer.train_dataset, model_id, places, weights, dtype)
    except (BankError, OSError) as error:
        raise TrainError(f"{name}: {' '.join(str(error).split())}") from error


def _made(trainer: Any, recipe: Recipe, n_pairs: int, objective: dict[str, Any]) -> dict[str, Any]:
    """What a card says of how its adapter was made."""
    made = asdict(recipe) | {"train_pairs": n_pairs, "loss": "sigmoid + sft_weight * sft"} | objective
    return {"recipe": made | {"processes": trainer.accelerator.num_processes}}


def _trainer(
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    recipe: Recipe,
    folder: Path,
    adapted: Mapping[str, Any],
    *,
    bf16: bool,
) -> Any:
    from accelerate import PartialState
    from datasets import Dataset, load_from_disk
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # set by whoever launched the processes
    arguments = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.batch_size,
        max_steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=5,
        beta=recipe.beta,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, recipe.sft_weight],
        max_length=None,
        precompute_ref_log_probs=True,
        activation_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        ddp_backend="gloo" if several and not torch.cuda.is_available() else None,
        disable_tqdm=None,
        bf16=bf16,
        seed=recipe.seed,
        train_sampling_strategy="sequential",  # length_grouped has shuffled
        logging_steps=5,
        save_strategy="steps",
        save_steps=max(1, recipe.steps // _CHECKPOINTS),
        save_total_limit=1,
        report_to=[],
    )
    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        alora_invocation_tokens=adapted["start"],
        **targets(model, adapted["layers"]),
    )
    pairs = folder / "pairs"
    with PartialState().main_process_first():  # one copy for all: what one process adds to it, the others read
        if not (pairs / "state.json").is_file():
            Dataset.from_list(length_grouped(rows, recipe.batch_size, recipe.seed)).save_to_disk(pairs)

    class Trainer(DPOTrainer):
        """TRL's own, on rows that are tokens already: it would add the tokenizer's BOS and EOS to texts."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    return Trainer(
        model=model,
        args=arguments,
        train_dataset=load_from_disk(pairs),
        processing_class=with_pad_token(tokenizer),
        peft_config=lora,
    )
