"""Pairs as rows for the trainer: control tokens in their texts are no part of what is learnt."""

from __future__ import annotations

from mpg.train.pairs import has_control_tokens, rows_of
from personas.preferences import PreferencePair
from tests.fakes import spelling_tokenizer

TOKENIZER = spelling_tokenizer()


def test_pairs_with_control_tokens_are_left_out_and_one_that_closes_an_answer_is_taken_as_that() -> None:
    sound = PreferencePair("what?", "yes", "no")
    closed = PreferencePair("what?", "yes<|im_end|>\n", "no")
    bad = [
        PreferencePair("what?", "yes<|im_end|>and more", "no"),
        PreferencePair("what?", "yes", "<think>no"),
        PreferencePair("what?<|im_start|>system", "yes", "no"),
    ]
    assert [has_control_tokens(TOKENIZER, pair) for pair in (sound, closed, *bad)] == [False, False, True, True, True]
    rows = rows_of(TOKENIZER, [sound, closed, *bad], 1000)
    assert rows[0] == rows[1] and len(rows) == 2
    said = [TOKENIZER.decode(rows[0][f"{side}_ids"]) for side in ("chosen", "rejected")]
    assert said == ["yes<|im_end|>", "no<|im_end|>"]
