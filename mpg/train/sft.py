"""Train an adapter on given answers: supervised fine-tuning (TRL's SFTTrainer), its loss of the answers' tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mpg.models.chat import encode_chat, encode_text
from mpg.models.hub import Place
from mpg.models.template import PLAIN, ChatStyle
from mpg.train.begin import new_lora
from mpg.train.pairs import closed_answer, length_grouped, with_pad_token
from mpg.train.recipe import RefineRecipe, SftRecipe
from mpg.train.save import put_in_place, save_with_card


def sft_row(
    tokenizer: Any, chat: Sequence[Mapping[str, str]], answer: str, style: ChatStyle = PLAIN, *, ended: bool = True
) -> dict[str, Any]:
    """A row for TRL in tokens, as decoding reads and writes them: the prompt, the answer, and which of both is learnt.

    Args:
        ended: whether the answer is closed. One that was cut off at a limit is not: to close it would teach to stop in
            the middle of a sentence.
    """
    prompt = encode_chat(tokenizer, chat, style=style)
    said = closed_answer(tokenizer, answer, style) if ended else encode_text(tokenizer, answer)
    row = {"input_ids": [*prompt, *said], "completion_mask": [0] * len(prompt) + [1] * len(said)}
    return row | {"n_tokens": len(prompt) + len(said)}


def sft_trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    recipe: RefineRecipe | SftRecipe,
    folder: Path,
    *,
    bf16: bool,
    lora: Any = None,
) -> Any:
    """TRL's trainer on rows of :func:`sft_row`, in batches of like length whose order the recipe's seed decides.

    Args:
        folder: of the trainer's own files.
        lora: PEFT config of a new adapter; ``None``: the model is a PEFT model already.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.batch_size,
        max_steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=2,
        max_length=None,
        completion_only_loss=True,
        use_cpu=not torch.cuda.is_available(),
        bf16=bf16,
        seed=recipe.seed,
        train_sampling_strategy="sequential",  # length_grouped has shuffled
        logging_steps=4,
        save_strategy="no",
        disable_tqdm=None,
        report_to=[],
    )
    data = Dataset.from_list(length_grouped(rows, recipe.batch_size, recipe.seed, ("input_ids", "completion_mask")))
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        processing_class=with_pad_token(tokenizer),
        peft_config=lora,
    )


def train_sft(
    rows: Sequence[dict[str, Any]],
    *,
    place: Place,
    recipe: SftRecipe,
    output: str | Path,
    about: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Train a new adapter on rows of :func:`sft_row` and write it with its card; returns the card.

    Args:
        rows: at least one.
        place: of the model.
        output: replaced whole when training has ended; cut off before, the same call trains anew.
        about: what the card says beside recipe and loss.
        dtype: of the frozen base weights; the adapter itself trains in float32.

    Raises:
        BankError: the model can't be had. ValueError: no rows.
    """
    from transformers import set_seed

    from mpg.models.pretrained import load_tokenizer, load_weights

    if not rows:
        raise ValueError("rows: none to train on; give at least one")
    output = Path(output)
    scratch = output.parent / f".{output.name}.training"
    tokenizer, model = load_tokenizer(place), load_weights(place, dtype)
    lora = new_lora(model, recipe.rank, recipe.lora_alpha, None, [])
    set_seed(recipe.seed)  # the trainer does so only after it has drawn the adapter's first weights
    trainer = sft_trainer(model, tokenizer, rows, recipe, scratch / "trainer", bf16=dtype == torch.bfloat16, lora=lora)
    loss = trainer.train().training_loss
    card = dict(about) | {"base_model": place.source, "recipe": asdict(recipe), "answers": len(rows), "loss": loss}
    save_with_card(trainer.model, scratch / "adapter", place.source, card)
    put_in_place(scratch, output)
    return card
