"""Role-play pairs: what gives a side away is gone, and who is held out is a matter of the person."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from personas.preferences import ROLE_PLAY_FILE, load_role_play_pairs, plain, split


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ('"That sounds great! I\'d love to."', "That sounds great! I'd love to."),
        ("User Message: What’s up?  \n\nResponse: Not much — you?", "Not much-you?"),
        ("User Message: I like “jazz”.", "I like jazz."),
        ("No change here.", "No change here."),
    ],
)
def test_the_marks_of_how_it_was_made_are_taken_away(answer: str, wanted: str) -> None:
    assert plain(answer) == wanted


def test_pairs_are_read_under_the_message_that_their_adapter_reads(tmp_path: Path) -> None:
    row = {"attribute": "profile", "profile": "She bakes.", "personality": "She is kind.", "chosen": "I bake.",
           "rejected": '"I do not."'}  # fmt: skip
    rows = [
        row,
        row,  # once is enough
        row | {"attribute": "personality"},
        row | {"rejected": '"I bake."'},  # equal but for the marks
        row | {"rejected": "So so. Personalities: He is kind."},  # a leftover of the prompt
        *(row | {"profile": f"She is {i}."} for i in range(100)),
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / ROLE_PLAY_FILE)
    pairs = load_role_play_pairs(tmp_path, "profile")
    assert len(pairs) == 101
    system, user = pairs[0].as_chat()
    assert system["role"] == "system" and "Profile: She bakes.\nPersonality: She is kind." in system["content"]
    assert user["role"] == "user" and pairs[0].rejected == "I do not."
    train, held_out = split(pairs)
    assert 8 <= len(held_out) <= 35 and not {p.system for p in train} & {p.system for p in held_out}
    with pytest.raises(KeyError):
        load_role_play_pairs(tmp_path, "E")
