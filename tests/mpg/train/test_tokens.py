"""What is trained on, and measured on, is what decoding reads and writes: one BOS, the template's own end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mpg import ModelBank
from mpg.models.chat import encode_chat, encode_text
from mpg.models.template import ChatStyle
from mpg.score.texts import component_log_probs
from mpg.settings import DEFAULT_DATE
from mpg.train import dpo, rewards
from mpg.train.begin import TrainError
from mpg.train.dpo import train_adapter
from mpg.train.pairs import refused_system, rows_of, with_pad_token
from mpg.train.recipe import Recipe, RefineRecipe
from mpg.train.refine import Answer, refine_adapter
from personas.preferences import PreferencePair
from tests.templates import KINDS, templated_llama, tokenizer_of

PAIRS = [PreferencePair(f"what {w}?", f"yes {w}", " no\n") for w in ("one", "two three", "four", "five")]
RECIPE = Recipe(steps=1, batch_size=2, rank=2)
# Both add BOS, none has a token for padding, and their turns end otherwise than texts do.
TWICE = ("llama3", "gemma")


def tokens(tokenizer: Any, kind: str, pair: Any, side: str, style: ChatStyle) -> tuple[list[int], list[int]]:
    """As decoding has them, spelled out here once more."""
    end = tokenizer.convert_tokens_to_ids(KINDS[kind].closing)
    return encode_chat(tokenizer, pair.as_chat(), style=style), [*encode_text(tokenizer, getattr(pair, side)), end]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_what_decoding_reads_and_writes(kind: str) -> None:
    tokenizer, style = tokenizer_of(kind), ChatStyle.of(date="2025-03-09")
    rows = rows_of(tokenizer, PAIRS, 1000, style=style)
    for row, pair in zip(rows, PAIRS, strict=True):
        for side in ("chosen", "rejected"):
            assert (row["prompt_ids"], row[f"{side}_ids"]) == tokens(tokenizer, kind, pair, side, style)
        longest = len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        assert row["n_tokens"] == longest
        assert rows_of(tokenizer, [pair], longest, style=style) and not rows_of(
            tokenizer, [pair], longest - 1, style=style
        )


@pytest.mark.parametrize("kind", TWICE)
def test_the_trainer_trains_on_them(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batches that reach TRL's loss, and the measured log-likelihoods against those of the scoring in a bank."""
    place = templated_llama(tmp_path / "base", kind)
    tokenizer, style = tokenizer_of(kind), ChatStyle.of(date="2025-03-09")
    assert tokenizer.pad_token is None
    trainers = []
    made = dpo._trainer
    monkeypatch.setattr(dpo, "_trainer", lambda *a, **k: trainers.append(made(*a, **k)) or trainers[-1])
    card = train_adapter(
        name="yes", description="", model_id=str(place), train_pairs=PAIRS, held_out_pairs=PAIRS, data={},
        output=tmp_path / "yes", recipe=RECIPE, dtype=torch.float32, style=style,
    )  # fmt: skip
    assert card["template"] == {"date": "2025-03-09"}  # as given
    (trainer,) = trainers
    seen = set()
    for batch in trainer.get_train_dataloader():
        for ids, mask, scored in zip(
            batch["input_ids"], batch["attention_mask"], batch["completion_mask"], strict=True
        ):
            n = int(mask.sum())
            seen.add((tuple(ids[:n].tolist()), int(scored.sum())))
    wanted = set()
    for pair in PAIRS:
        for side in ("chosen", "rejected"):
            prompt, answer = tokens(tokenizer, kind, pair, side, style)
            wanted.add(((*prompt, *answer), len(answer)))
    assert seen == wanted
    assert all(ids.count(tokenizer.bos_token_id) == 1 for ids, _ in seen)
    bank = ModelBank.load(str(place), {"yes": tmp_path / "yes"})
    scored = component_log_probs(bank, [tokens(tokenizer, kind, pair, "chosen", style) for pair in PAIRS])
    totals = torch.stack([log_probs.sum(0) for _, log_probs in scored]).mean(0)
    assert card["held_out"]["chosen_log_likelihood_reference"] == pytest.approx(float(totals[0]), abs=1e-2)
    again = rewards.adapter_report(str(place), tmp_path / "yes", PAIRS, 1000, style)
    assert again.chosen_log_likelihood == pytest.approx(float(totals[1]), abs=1e-2)


def test_a_second_stage_trains_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpg.train import refine
    from tests.fakes import tiny_adapter

    place = templated_llama(tmp_path / "base", "llama3")
    tiny_adapter(place, tmp_path / "x", seed=1)
    trainers = []
    made = refine.sft_trainer
    monkeypatch.setattr(refine, "sft_trainer", lambda *a, **k: trainers.append(made(*a, **k)) or trainers[-1])
    prompts = [pair.as_chat() for pair in PAIRS]
    answers = [Answer(i, pair.chosen, 0.0, 0.0) for i, pair in enumerate(PAIRS)]
    refine_adapter(
        tmp_path / "x", model_id=str(place), prompts=prompts, answers=answers,
        recipe=RefineRecipe(steps=1, batch_size=2), output=tmp_path / "y",
    )  # fmt: skip
    tokenizer = tokenizer_of("llama3")
    seen = {
        (tuple(ids[labels > -100].tolist()), tuple(ids[mask > 0].tolist()))
        for batch in trainers[0].get_train_dataloader()
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True)
    }
    both = [tokens(tokenizer, "llama3", pair, "chosen", ChatStyle()) for pair in PAIRS]
    assert seen == {(tuple(answer), (*prompt, *answer)) for prompt, answer in both}


# --------------------------------------------------------------------------- before anything is loaded


def train(place: Path, output: Path, pairs: list[Any], style: ChatStyle = ChatStyle()) -> dict[str, Any]:  # noqa: B008
    return train_adapter(
        name="yes", description="", model_id=str(place), train_pairs=pairs, held_out_pairs=pairs, data={},
        output=output, recipe=RECIPE, dtype=torch.float32, style=style,
    )  # fmt: skip


class Told:
    """A pair with a system message."""

    chosen, rejected = "yes", "no"

    def as_chat(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what?"}]


@pytest.mark.parametrize("kind", ["gemma", "mistral-silent"])
def test_a_template_without_a_system_role_is_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = templated_llama(tmp_path / "base", kind)
    with monkeypatch.context() as none_loaded:
        none_loaded.setattr(dpo, "load_base", None)
        with pytest.raises(TrainError, match=r"system message .*; give --system-role fold, or pairs without"):
            train(place, tmp_path / "yes", [Told()])
    card = train(place, tmp_path / "yes", [Told()], ChatStyle.of(fold_system=True))
    assert (
        card["template"]
        == {"system_role": "fold"}
        == json.loads((tmp_path / "yes" / "card.json").read_text())["template"]
    )
    assert refused_system(tokenizer_of(kind), [Told().as_chat()], ChatStyle()) is not None


@pytest.mark.parametrize(
    ("kind", "changes", "style", "says"),
    [
        ("phi3", {"n_embeddings": 600}, {}, "its chat template writes '<|user|>', token 601"),
        ("phi3", {"template": "{{ raise_exception('no') }}"}, {}, "refuses every chat (TemplateError: no)"),
        ("phi3", {}, {"enable_thinking": False}, "--template-argument enable_thinking: the chat template never reads"),
        ("qwen3", {"template": "{% for m in messages %}{{ m.content }} {% endfor %}", "eos": None}, {},
         "has a token that closes an answer; set one"),
    ],
)  # fmt: skip
def test_what_no_chat_can_be_trained_on_is_one_line(
    kind: str, changes: dict[str, Any], style: dict[str, Any], says: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    place = templated_llama(tmp_path / "base", kind, **changes)
    monkeypatch.setattr(dpo, "load_base", None)
    with pytest.raises(TrainError) as error:
        train(place, tmp_path / "yes", PAIRS, ChatStyle.of(style))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_pairs_that_the_template_or_the_model_do_not_take_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = templated_llama(tmp_path / "base", "gemma")
    tokenizer = tokenizer_of("gemma")
    tokenizer.add_tokens(["unheard"])  # a fine-tune added a word and never resized the model for it
    tokenizer.save_pretrained(place)

    class Twice(Told):
        def as_chat(self) -> list[dict[str, str]]:
            return [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]

    strange = PreferencePair("unheard of?", "yes", "no")
    with caplog.at_level("WARNING", logger="mpg.train.dpo"):
        card = train(place, tmp_path / "yes", [*PAIRS, Twice(), strange])
    assert card["recipe"]["train_pairs"] == len(PAIRS)
    assert "2 pairs can't be put to the model (TemplateError: Roles must alternate" in caplog.text  # once a split
    assert "2 pairs hold tokens that the model has no embeddings for and are left out" in caplog.text


def test_padding_needs_no_token_of_its_own() -> None:
    tokenizer = tokenizer_of("gemma")
    assert with_pad_token(tokenizer).pad_token == "<end_of_turn>"
    tokenizer.pad_token = "<eos>"
    assert with_pad_token(tokenizer).pad_token == "<eos>"


def test_the_day_that_a_template_reads_is_in_the_card_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="mpg.train.dpo"):
        card = train(templated_llama(tmp_path / "base", "smollm3"), tmp_path / "yes", PAIRS)
    assert card["template"] == {"date": DEFAULT_DATE}
    assert caplog.text.count(f"asks for today's date: all texts read {DEFAULT_DATE} (--date)") == 1
