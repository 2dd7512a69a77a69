"""Near-duplicates against Jaccard similarity by brute force."""

from __future__ import annotations

import random

import pytest

from evaluation.statistics.duplicates import MOST_COMPARED, bands, near_duplicates, shingles

WORDS = [f"w{i}" for i in range(400)]


def jaccard(a: str, b: str) -> float:
    one, other = set(shingles(a)), set(shingles(b))
    return len(one & other) / len(one | other)


def edited(text: str, share: float, rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) if rng.random() < share else word for word in text.split())


def corpus(n_sources: int, n_copies: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    texts = []
    for _ in range(n_sources):
        source = " ".join(rng.choices(WORDS, k=rng.randint(2, 120)))
        texts += [source, *(edited(source, rng.choice([0, 0.01, 0.03, 0.1, 0.5]), rng) for _ in range(n_copies))]
    rng.shuffle(texts)
    return texts


def by_hand(texts: list[str], groups: list[int], threshold: float) -> list[int]:
    first: list[int] = []
    for i, text in enumerate(texts):
        kept = [k for k in range(i) if first[k] == k and groups[k] == groups[i]]
        first.append(next((k for k in kept if jaccard(texts[k], text) >= threshold), i))
    return first


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95, 1.0])
def test_as_by_brute_force(threshold: float) -> None:
    texts = corpus(60, 4)
    groups = [i % 2 for i in range(len(texts))]
    expected, found = by_hand(texts, groups, threshold), near_duplicates(texts, groups, threshold=threshold).first
    assert sum(i != k for i, k in enumerate(expected)) > 20  # there is something to find
    # Of the pairs above the threshold each is overlooked with at most 1 %: of 100, more than 5 with 3e-3.
    assert sum(a != b for a, b in zip(expected, found, strict=True)) <= 5
    for i, k in enumerate(found):  # what goes is like what stays for it, without exception
        assert i == k or (jaccard(texts[i], texts[k]) >= threshold and found[k] == k and groups[i] == groups[k])


def test_a_false_positive_of_the_bands_is_dropped_by_no_chance() -> None:
    """At .8 a pair of similarity .7 is looked at with more than .8: the exact comparison is what decides."""
    n_bands, rows = bands(0.8)
    assert (n_bands, rows) == (32, 8) and 1 - (1 - 0.7**rows) ** n_bands > 0.8
    rng = random.Random(1)
    pairs = []
    while len(pairs) < 40:
        text = " ".join(rng.choices(WORDS, k=80))
        other = edited(text, 0.06, rng)
        if 0.6 < jaccard(text, other) < 0.78:
            pairs.append((text, other))
    texts = [text for pair in pairs for text in pair]
    assert all(near_duplicates(texts, [i // 2 for i in range(80)]).keep)


def test_texts_of_a_template_are_compared_with_the_most_alike() -> None:
    """Hundreds of candidates for each text, and the one that is a repetition is found among them."""
    rng = random.Random(2)
    template = [" ".join([*WORDS[:70], *(rng.choice(WORDS) for _ in range(14))]) for _ in range(3 * MOST_COMPARED)]
    texts = [*template, *(f"{text} more" for text in template[::10])]
    found = near_duplicates(texts, [0] * len(texts))
    assert found.keep == tuple(i < len(template) for i in range(len(texts)))


def test_the_first_of_each_cluster_stays() -> None:
    base = " ".join(WORDS[:60])
    texts = [base, "something else", base.upper() + "!", base.replace("w30", "x"), "Something, else"]
    found = near_duplicates(texts, ["p"] * 5)
    assert found.first == (0, 1, 0, 0, 1) and found.keep == (True, True, False, False, False)
    assert (found.n_texts, found.n_repeats, found.n_repeated) == (5, 3, 2)


def test_personas_are_apart() -> None:
    assert near_duplicates(["same text here"] * 4, ["a", "b", "a", "b"]).first == (0, 1, 0, 1)


def test_a_chain_ends_where_a_text_is_like_no_one_that_stays() -> None:
    words = [f"u{i}" for i in range(100)]
    first, second, third = (" ".join([*words[k:], *(f"v{i}" for i in range(k))]) for k in (0, 9, 18))
    assert jaccard(first, second) > 0.8 and jaccard(second, third) > 0.8 > jaccard(first, third)
    assert near_duplicates([first, second, third], [0] * 3).keep == (True, False, True)


@pytest.mark.parametrize(
    ("a", "b", "like"),
    [
        ("", "", True),
        ("", "   \n", True),
        ("", "!", False),
        ("🙂🙂", "🙂 🙂", True),
        ("🙂", "🙃", False),
        ("Yes.", "yes", True),
        ("yes", "no", False),
        ("one two", "two one", False),
        ("one two", "one two three", False),
        (
            "今日は本当に天気がいいですね、散歩に行きましょう",
            "今日は本当に天気がいいですね、散歩に行きましょうよ",
            True,
        ),
        ("今日は本当に天気がいいですね", "明日は雨が降ると思います", False),
        ("\ud83d broken half", "\ud83d broken half", True),
        ("Straße und Weg", "STRASSE UND WEG", True),
    ],
)
def test_short_and_odd_texts(a: str, b: str, like: bool) -> None:
    assert near_duplicates([a, b], [0, 0]).keep == (True, not like)


def test_the_same_whatever_randomness_is_about() -> None:
    texts = corpus(30, 3, seed=5)
    random.seed(1)
    one = near_duplicates(texts, [0] * len(texts))
    random.seed(2)
    assert near_duplicates(texts, [0] * len(texts)) == one


def test_nothing_and_wrong_arguments() -> None:
    assert near_duplicates([], []).n_texts == 0
    for threshold in (0, 1.01, float("nan"), -1):
        with pytest.raises(ValueError, match="threshold: "):
            near_duplicates(["a"], [0], threshold=threshold)
    with pytest.raises(ValueError, match="groups: 0 for 1 texts"):
        near_duplicates(["a"], [])
