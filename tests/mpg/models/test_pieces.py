"""A text in pieces, one a token: they join to it, and each character is the token's that completes it."""

from __future__ import annotations

import random
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pytest

from mpg.models.embedded import SMOLLM2
from mpg.models.ends import answer_text
from mpg.models.hub import Place
from mpg.models.pieces import answer_pieces
from mpg.models.pretrained import load_tokenizer
from tests.fakes import spelling_tokenizer, tiny_tokenizer

TEXTS = (
    "Hello, world! It's fine -- isn't it?",
    "  leading and trailing blanks \n\n",
    "日本語のテキストと한국어와 русский, zażółć gęślą jaźń",
    "👩‍👩‍👧‍👦 family, 🇩🇪 flag, 👍🏽 skin, ❤️ heart, e\u0301 composed",
    "code:\n\tif a != b:\n\t\treturn {'x': [1, 2]}\r\n",
    "𒀀𐍈𝔘 far planes \u00a0\u2003 odd blanks \u200b zero width",
    "\ufffd itself, and \ufffd\ufffd",
    " ",
    "",
    "𝔘",
)


def byte_fallback() -> Any:
    """As Llama 2's: words with a mark for the blank before them, bytes for what has no word, a first blank dropped."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyzHI,.!'", "日"]
    model = models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    replaced = decoders.Replace("▁", " ")
    parts = [replaced, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def word_pieces() -> Any:
    """As BERT's: blanks between words, which punctuation takes back."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz.,!?'", *(f"##{each}" for each in "abcdefghijklmnopqrst")]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="[SEP]", clean_up_tokenization_spaces=True)


KINDS = {
    "SmolLM2": lambda: load_tokenizer(Place(SMOLLM2)),
    "bytes": spelling_tokenizer,
    "byte fallback": byte_fallback,
    "word pieces": word_pieces,
    "characters": tiny_tokenizer,
}


@lru_cache
def tokenizer_of(kind: str) -> Any:
    return KINDS[kind]()


def slowly(tokenizer: Any, ids: list[int], ends: frozenset[int]) -> list[str]:
    """Every beginning decoded anew: what of the text was there with a token or before it."""
    said = ids[:-1] if ids and ids[-1] in ends else ids
    beginnings = [tokenizer.decode(said[: n + 1], skip_special_tokens=True) for n in range(len(said))]
    text = tokenizer.decode(said, skip_special_tokens=True)
    places, there = [0], 0
    for beginning in beginnings:
        there = max(n for n in range(len(text) + 1) if n <= there or beginning.startswith(text[:n]))
        places.append(there)
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    places = [min(max(place, first), last) for place in places]
    pieces = [text[a:b] for a, b in pairwise(places)]
    return pieces + [""] * (len(ids) - len(said))


def check(kind: str, ids: list[int]) -> list[str]:
    tokenizer = tokenizer_of(kind)
    ends = frozenset({tokenizer.eos_token_id})
    pieces = answer_pieces(tokenizer, ids, ends)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == answer_text(tokenizer, ids, ends)
    assert pieces == slowly(tokenizer, ids, ends)
    return pieces


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_of_a_written_text(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    for closed in ([], [tokenizer.eos_token_id]):
        check(kind, [*ids, *closed])
        check(kind, [*closed, *ids])
        check(kind, [*ids * 7, *closed])


@pytest.mark.parametrize("kind", KINDS)
def test_of_any_tokens(kind: str) -> None:
    """Bytes that are no characters, control tokens in the midst of a word, blanks upon blanks."""
    tokenizer, rng = tokenizer_of(kind), random.Random(11)
    special = tokenizer.all_special_ids
    texts = [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]
    for _ in range(150):
        ids: list[int] = []
        while len(ids) < rng.choice([1, 3, 20, 70]):
            few = [rng.randrange(len(tokenizer)) for _ in range(rng.randint(1, 4))]
            written = rng.choice(texts)
            start = rng.randrange(len(written) + 1)
            ids += rng.choice([few, written[start : start + rng.randint(1, 30)], [rng.choice(special)]])
        check(kind, ids)


def test_a_character_is_the_tokens_that_completes_it() -> None:
    tokenizer = tokenizer_of("bytes")
    ids = tokenizer("né日😀.", add_special_tokens=False).input_ids
    assert check("bytes", [*ids, tokenizer.eos_token_id]) == [
        *("n", "", "é", "", "", "日", "", "", "", "😀", ".", ""),
    ]
    # Of one that is never completed, its first byte's.
    assert check("bytes", ids[:-2]) == ["n", "", "é", "", "", "日", "\ufffd", "", ""]


def test_real_borders_of_emoji_and_cjk() -> None:
    tokenizer = tokenizer_of("SmolLM2")
    text = "I 👍🏽 日本語 ok"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    pieces = check("SmolLM2", [*ids, tokenizer.eos_token_id])
    assert "" in pieces[:-1] and pieces[-1] == "" and "".join(pieces) == text
    halves = [tokenizer.decode([each]) for each in ids]
    assert any("\ufffd" in half for half in halves) and not any("\ufffd" in piece for piece in pieces)


def test_blanks_that_the_text_is_stripped_of_are_nobodys() -> None:
    ids = tokenizer_of("characters")("  a b  ", add_special_tokens=False).input_ids
    assert check("characters", ids) == ["", "", "a", " ", "b", "", ""]
    assert check("characters", ids[:2]) == ["", ""] and check("characters", []) == []


def test_time_grows_with_the_text_and_not_with_its_square() -> None:
    """By the tokens decoded, not by a clock."""

    class Counting:
        n = 0

        def decode(self, ids: list[int], **how: Any) -> str:
            self.n += len(ids)
            return str(tokenizer_of("SmolLM2").decode(ids, **how))

    ids = [each for text in TEXTS for each in tokenizer_of("SmolLM2")(text).input_ids] * 12
    counting = Counting()
    assert "".join(answer_pieces(counting, ids, frozenset())) == answer_text(counting, ids, frozenset())
    assert len(ids) > 1500 and counting.n < 60 * len(ids)
