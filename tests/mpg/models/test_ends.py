"""With which tokens a text ends: the files' and the template's, and no word that a default happens to name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, GenerationConfig

from mpg import ModelBank
from mpg.models.chat import without_end
from mpg.models.embedded import SMOLLM2, resolve
from mpg.models.ends import answer_text, closing_id, closing_of, ends_of
from mpg.models.hub import Place
from mpg.models.load import ends_at
from mpg.models.pretrained import load_tokenizer, skeleton_of
from mpg.models.template import ChatStyle
from mpg.train.pairs import rows_of
from personas.examples import Example
from personas.prompts import Message
from tests.fakes import CHATML, spelling_tokenizer
from tests.templates import KINDS, templated_llama, tokenizer_of


def config(**values: Any) -> Any:
    return AutoConfig.for_model("llama", vocab_size=50000, **values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_template_names_the_token_that_closes_an_answer(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    assert tokenizer.convert_ids_to_tokens(closing_of(tokenizer).token_id) == KINDS[kind].closing
    assert closing_id(tokenizer) == tokenizer.convert_tokens_to_ids(KINDS[kind].closing)


@pytest.mark.parametrize("kind", KINDS)
def test_all_ends_are_known_whatever_the_files_name(kind: str, tmp_path: Path) -> None:
    """Of a model as it is loaded, and of its files alone."""
    place = templated_llama(tmp_path / "base", kind, eos_ids=7)
    bank = ModelBank.load(str(place), {})
    tokenizer = bank.tokenizer
    wanted = {7, tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(KINDS[kind].closing)}
    assert bank.eos_ids == wanted
    found = ends_at(Place(str(place)), skeleton_of(Place(str(place))), load_tokenizer(Place(str(place))))
    assert found.ids == wanted and found.stated == {7} and found.named


@pytest.mark.parametrize(
    ("template", "after"),
    [
        (CHATML.replace("<|im_end|>\n", "\n\nUser: "), "\n\nUser: "),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", ""),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "unknown: it leaves the answer out"),
        ("{{ raise_exception('no') if messages | length > 1 }}", "unknown: TemplateError: no"),
    ],
)
def test_where_no_control_token_closes_an_answer_the_tokenizers_own_does(template: str, after: str) -> None:
    tokenizer = spelling_tokenizer(template=template)
    assert closing_of(tokenizer).token_id is None and closing_of(tokenizer).after == after
    assert closing_id(tokenizer) == tokenizer.eos_token_id
    tokenizer.eos_token = None
    assert closing_id(tokenizer) is None and closing_id(tokenizer, frozenset({9, 5})) == 5


def test_blanks_before_the_closing_token_and_text_after_it_do_not_hide_it() -> None:
    tokenizer = spelling_tokenizer(template=CHATML.replace("<|im_end|>\n", "\n <|im_end|>\n\nUser: <|pad|>"))
    assert closing_of(tokenizer).token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_default_of_the_architecture_is_no_end_unless_it_is_a_control_token() -> None:
    tokenizer = tokenizer_of("phi3")
    named = GenerationConfig(eos_token_id=[tokenizer.eos_token_id])
    own = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")}
    assert ends_of(named, config(eos_token_id=1000), tokenizer).ids == own  # an ordinary word
    assert ends_of(named, config(eos_token_id=1), tokenizer).ids == own | {1}  # <|im_start|>
    # Where generation_config names none, the configuration is believed, as ever.
    assert ends_of(None, config(eos_token_id=1000), tokenizer).ids == own | {1000}
    assert ends_of(GenerationConfig(), config(eos_token_id=[3, 4]), tokenizer).stated == {3, 4}
    assert tokenizer.convert_tokens_to_ids("<|end|>") not in ends_of(named, config(), tokenizer, 600).ids


def test_the_shipped_model_ends_as_it_did() -> None:
    place = Place(SMOLLM2)
    found = ends_at(place, skeleton_of(place), load_tokenizer(place))
    assert found.ids == found.stated == {2} and found.closing.token_id == 2
    assert Path(resolve(SMOLLM2)).is_dir()


def test_an_answer_has_no_end_in_it_special_or_not() -> None:
    tokenizer = spelling_tokenizer(template=CHATML.replace("<|im_end|>", "[TOOL]"))
    end = tokenizer.convert_tokens_to_ids("[TOOL]")  # no special token: decoding it would write it
    ids = [*tokenizer("yes [TOOL] no", add_special_tokens=False).input_ids, end]
    assert answer_text(tokenizer, ids, frozenset({end})) == "yes [TOOL] no"
    assert answer_text(tokenizer, ids[:-1], frozenset({end})) == "yes [TOOL] no"
    assert answer_text(tokenizer, [end], frozenset({end})) == answer_text(tokenizer, [], frozenset({end})) == ""
    assert without_end(tokenizer, "yes[TOOL]\n") == without_end(tokenizer, "yes<|im_end|>") == "yes"
    assert without_end(tokenizer, "yes<|pad|>") == "yes<|pad|>"
    assert without_end(tokenizer, "yes<|pad|>", frozenset({tokenizer.pad_token_id})) == "yes"


def test_an_answer_that_is_closed_only_where_a_turn_follows() -> None:
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if not loop.last %}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|end|><|assistant|>{% endif %}"
    )
    tokenizer = tokenizer_of("phi3", template=template)
    assert closing_of(tokenizer).token_id == tokenizer.convert_tokens_to_ids("<|end|>")


# Which token closes a turn is for an argument to say; without one the template takes no chat at all.
BY_ARGUMENT = (
    "{% if mode is not defined %}{{ raise_exception('mode is missing') }}{% endif %}{% for m in messages %}"
    "<|{{ m.role }}|>{{ m.content }}{{ '<|end|>' if mode == 'long' else '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.parametrize(("mode", "closing"), [("long", "<|end|>"), ("short", "</s>")])
def test_a_template_may_close_turns_by_what_it_is_told(mode: str, closing: str, tmp_path: Path) -> None:
    base, style = templated_llama(tmp_path, "phi3", template=BY_ARGUMENT), ChatStyle.of({"mode": mode})
    bank, place = ModelBank.load(base, {}, style=style), Place(str(base))
    found = ends_at(place, skeleton_of(place), bank.tokenizer, style)
    end = bank.tokenizer.convert_tokens_to_ids(closing)
    assert found.closing.token_id == end and bank.eos_ids == found.ids == {end, bank.tokenizer.eos_token_id}
    pair = Example((Message("user", "hi"),), (f"yes{closing}", "no"))
    assert rows_of(bank.tokenizer, [pair], 99, style=style)[0]["chosen_ids"][-1] == end
