"""Training an adapter by DPO, for a few steps on a tiny Llama: the real trainer, files and card."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from mpg import ModelBank
from mpg.models.chat import answer_start, encode_chat
from mpg.score.texts import component_log_probs
from mpg.train.begin import TrainError
from mpg.train.dpo import train_adapter
from mpg.train.pairs import closed_answer, rows_of
from mpg.train.recipe import Recipe, adapted_layers
from personas.preferences import PreferencePair, is_held_out, load_mbti_pairs, split
from tests.fakes import feed_every_branch, spelling_llama, spelling_tokenizer, tiny_llama

PAIRS = [
    PreferencePair(f"what {word}?", "yes " * (1 + i % 4), "no " * (1 + i % 3)) for i, word in enumerate("abcdefghijkl")
]


def train(folder: Path, base: Path, **changes: object) -> dict:
    recipe = Recipe(**({"steps": 12, "batch_size": 4, "rank": 2, "learning_rate": 1e-2} | changes))  # type: ignore[arg-type]
    return train_adapter(
        name="yes",
        description="says yes",
        model_id=str(base),
        train_pairs=PAIRS,
        held_out_pairs=PAIRS[:5],
        data={"file": "made up"},
        output=folder,
        recipe=recipe,
        dtype=torch.float32,
    )


def test_training_prefers_the_chosen_side_and_leaves_a_loadable_folder(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    card = train(tmp_path / "yes", base)
    assert card["held_out"]["accuracy"] == 1.0
    assert card["held_out"]["mean_margin"] > 1.0
    assert json.loads((tmp_path / "yes" / "card.json").read_text()) == card
    assert sorted(p.name for p in (tmp_path / "yes").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "card.json",
    ]
    assert json.loads((tmp_path / "yes" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    assert not list(tmp_path.glob(".yes*"))  # no scratch folder is left
    bank = ModelBank.load(str(base), {"yes": tmp_path / "yes"})
    ids = torch.tensor([[3, 4, 5]])
    states = feed_every_branch(bank, ids)
    logits = states.logits(slice(None), 2)
    assert (logits[0] - logits[1]).abs().max() > 0.01


def test_the_distance_from_the_reference(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    near, far = (train(tmp_path / str(steps), base, steps=steps)["held_out"] for steps in (1, 12))
    assert 0 <= near["kl_per_token"] < far["kl_per_token"]
    assert 1 + 1e-6 >= near["acceptance_per_token"] > far["acceptance_per_token"] > 0


def test_without_a_pair_that_is_short_enough_nothing_begins(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    with pytest.raises(TrainError, match="yes: no pair to train on has at most 3 tokens; give more prompts, or raise"):
        train(tmp_path / "yes", base, max_pair_tokens=3)


def test_pairs_that_are_too_long_are_left_out_whole(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    card = train(tmp_path / "yes", base, max_pair_tokens=17, steps=2)
    assert 0 < card["recipe"]["train_pairs"] < len(PAIRS)


def test_the_split_is_by_question_and_the_opposite_pole_is_turned_round(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for i in range(200):
        rows.append({"pole": "E", "question": f"Q {i}", "chosen": f"party {i}", "rejected": f"book {i}"})
        rows.append({"pole": "I", "question": f"q  {i}", "chosen": f"book {i}", "rejected": f"party {i} "})
    rows.append({"pole": "E", "question": "same", "chosen": "x", "rejected": "x"})
    rows.append({"pole": "J", "question": "other", "chosen": "x", "rejected": "y"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mbti_preferences.parquet")
    pairs = load_mbti_pairs(tmp_path, "E")
    assert all(p.chosen.startswith("party") and p.rejected.startswith("book") for p in pairs)
    train_side, held_out = split(pairs)
    assert len(train_side) + len(held_out) == 400
    assert 40 <= len(held_out) <= 130
    assert all(is_held_out(f"Q {i}") == is_held_out(f"q  {i}") for i in range(200))
    assert [(p.chosen, p.rejected) for p in load_mbti_pairs(tmp_path, "I")] == [(p.rejected, p.chosen) for p in pairs]
    with pytest.raises(KeyError):
        load_mbti_pairs(tmp_path, "Q")


def test_an_adapter_of_the_upper_layers_alone(tmp_path: Path) -> None:
    """All of the recipe's layers are changed and no other; branches then share the rest."""
    base = tiny_llama(tmp_path / "base", n_layers=4)
    card = train(tmp_path / "yes", base, layers="top:1/2")
    assert card["recipe"]["layers"] == "top:1/2" and card["held_out"]["accuracy"] == 1.0
    bank = ModelBank.load(str(base), {"yes": tmp_path / "yes"})
    (backbone,) = bank.backbones
    assert backbone.first_layers == (2,)
    config = json.loads((tmp_path / "yes" / "adapter_config.json").read_text())
    assert config["layers_to_transform"] == [2, 3] and "q_proj" in config["target_modules"]
    assert "down_proj" in config["target_modules"]


def test_layers_that_a_model_lacks_are_said(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    for layers in ("top:3", "1-2"):
        with pytest.raises(TrainError, match=rf"--layers: '{layers}'.*\(the model has 2, 0 to 1\)"):
            train(tmp_path / "yes", base, layers=layers)


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ("all", None),
        ("top:1/3", [20, 21, 22, 23, 24, 25, 26, 27, 28, 29]),
        ("top:1/100", [29]),
        ("top:2/2", list(range(30))),
        ("top:2", [28, 29]),
        ("0-1", [0, 1]),
        ("29-29", [29]),
    ],
)
def test_the_layers_of_a_recipe(layers: str, wanted: list[int] | None) -> None:
    assert adapted_layers(layers, 30) == wanted


@pytest.mark.parametrize(
    "layers", ["", "top", "top:0", "top:1/0", "top:0.5", "bottom:3", "1", "-1-2", "top:4/3", "3-2"]
)
def test_what_names_no_layers(layers: str) -> None:
    with pytest.raises(ValueError, match=r"^layers: "):
        Recipe(layers=layers)


def test_an_adapter_from_the_answer_on_leaves_the_prompt_to_the_reference(tmp_path: Path) -> None:
    """Trained, measured and decoded alike: on from the tokens that the template writes before an answer."""
    base = spelling_llama(tmp_path / "base")
    card = train(tmp_path / "yes", base, from_answer=True)
    assert card["recipe"]["from_answer"] and card["held_out"]["accuracy"] == 1.0
    bank = ModelBank.load(str(base), {"yes": tmp_path / "yes"})
    start = answer_start(bank.tokenizer)
    assert bank.branch_invocations == ((), tuple(start)) and start
    chosen = rejected = 0
    for pair in PAIRS[:5]:  # the reward of the engine's own passes is the card's, which is PEFT's
        prompt = encode_chat(bank.tokenizer, pair.as_chat())
        assert prompt[-len(start) :] == start
        sides = [closed_answer(bank.tokenizer, text) for text in (pair.chosen, pair.rejected)]
        scored = component_log_probs(bank, [(prompt, side) for side in sides])
        ratios = [float((terms[:, 1] - terms[:, 0]).sum()) for _, terms in scored]
        chosen, rejected = chosen + ratios[0], rejected + ratios[1]
    assert (chosen - rejected) / 5 == pytest.approx(card["held_out"]["mean_margin"], rel=0.02)


def test_a_template_without_anything_before_an_answer_is_an_error(tmp_path: Path) -> None:
    base = spelling_llama(tmp_path / "base", template="{{ messages[-1]['content'] }}")
    with pytest.raises(TrainError, match=r"--from-answer: the chat template of .* leave it out"):
        train(tmp_path / "yes", base, from_answer=True)
    assert not (tmp_path / "yes").exists()


def test_an_answer_that_holds_what_answers_begin_after_is_left_out() -> None:
    """A trainer would find the place in the answer, a decoder in the prompt."""
    tokenizer = spelling_tokenizer(template="{% for m in messages %}{{ m['content'] }}\nReply:{% endfor %}")
    start, left_out = answer_start(tokenizer), Counter[str]()
    assert tokenizer.decode(start) == "\nReply:"
    pairs = [PreferencePair("a?", "Reply: no", "no"), PreferencePair("b?", "x\nReply: no", "no")]
    rows = rows_of(tokenizer, pairs, 160, left_out=left_out, start=start)
    assert len(rows) == 1 and left_out == {"hold in an answer what an answer begins after ('\\nReply:')": 1}
    assert len(rows_of(tokenizer, pairs, 160)) == 2


def test_what_answers_begin_after_does_not_depend_on_a_system_message() -> None:
    """Nor on anything else that a chat holds; a prompt that lacks it all the same is left out with its reason."""
    template = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}{% endfor %}"
    template += "{% for m in messages if m['role'] == 'system' %}{{ m['content'] }}{% endfor %}Reply:"
    tokenizer = spelling_tokenizer(template=template)
    start, left_out = answer_start(tokenizer), Counter[str]()
    assert tokenizer.decode(start) == "Reply:"
    assert rows_of(tokenizer, [PreferencePair("a?", "yes", "no")], 160, left_out=left_out, start=[*start, 7]) == []
    assert left_out == {f"have a prompt that does not end with what an answer begins after "
                        f"({tokenizer.decode([*start, 7])!r})": 1}  # fmt: skip


def test_answers_that_hold_what_answers_begin_after_are_told_what_to_do(tmp_path: Path) -> None:
    base = spelling_llama(tmp_path / "base", template="{% for m in messages %}{{ m['content'] }} {% endfor %}")
    with pytest.raises(
        TrainError, match=r"hold in an answer what .* \(' '\)\); give more .*or leave out --from-answer"
    ):
        train(tmp_path / "yes", base, from_answer=True)
