"""The page without a browser: what is in it, how large it is, that nothing in it can break out; its texts' choice."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.publish.report.colours import DARK, LIGHT, N_SERIES
from pipeline.publish.report.measures import Measures
from pipeline.publish.report.page import page
from pipeline.publish.report.parts import Shown
from pipeline.publish.report.read import read_data_set
from pipeline.publish.report.terminal import short_form
from pipeline.publish.report.texts import drawn, shares
from tests.made_data_set import grid, judged, make, row

ATTACK = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(1)> \u2028 \u202e"


class Elements(HTMLParser):
    """Start tags with attributes, and the text of scripts, as a browser's parser finds them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data

    def data(self, name: str) -> Any:
        found = [tag for tag in self.tags if tag[0] == "script"]
        return json.loads(self.scripts[[attrs.get("id") for _, attrs in found].index(name)])


def measured(folder: Path, *content: Any, **more: Any) -> Measures:
    return Measures(read_data_set(make(folder, *content, **more)))


def test_a_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    html = page([measured(tmp_path, *grid())], 2_000)
    found = Elements(html)
    assert len(html.encode()) < 1_500_000  # under 3 MB without texts, issue 17
    for tag, attrs in found.tags:
        assert tag not in ("iframe", "object", "embed", "base", "img"), tag
        assert not attrs.get("src") and not any(name.startswith("on") for name in attrs), (tag, attrs)
        assert tag != "link" or attrs["href"] == "data:,"
        assert tag != "a" or str(attrs["href"]).startswith("#")
    assert "@import" not in html.split("<body>")[0] and "url(" not in html.split("<body>")[0]


def test_the_policy_names_the_hashes_of_the_pages_own_scripts(tmp_path: Path) -> None:
    found = Elements(page([measured(tmp_path, *grid())], 10))
    (policy,) = [
        str(a["content"]) for t, a in found.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    kinds = [attrs.get("type") for tag, attrs in found.tags if tag == "script"]
    own = [script for script, kind in zip(found.scripts, kinds, strict=True) if kind is None]
    hashes = {base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in own}
    assert len(own) == 2 and set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]


def test_whatever_stands_in_a_data_set_is_text(tmp_path: Path) -> None:
    plain = page([measured(tmp_path / "plain", *grid(("x", "y", "z")))], 100)
    rows, judgments = grid((ATTACK, ATTACK + "2", ATTACK + "3"))
    for each in rows:
        each |= {
            "persona": f"{ATTACK} {each['persona']}",
            "response": ATTACK,
            "decoder": ATTACK,
            "finish_reason": ATTACK,
        }
        each["prompt"] = [{"role": ATTACK, "content": ATTACK}]
    for one in judgments:
        one |= {"judge": f"classifier@{ATTACK}", "rationale": ATTACK}
    run = {
        "job": ATTACK + "\ud800",
        "model": ATTACK,
        "timings": {"ended": ATTACK},
        "planned": {"tokens": ATTACK},
        "calls": {ATTACK: 3},
        "ended": {"complete": False, "why": ATTACK},
    }
    html = page([measured(tmp_path / "hostile", rows, judgments, run=run)], 100)
    html.encode("utf-8", "backslashreplace")
    one, other = Elements(plain), Elements(html)
    assert Counter(tag for tag, _ in other.tags) - Counter(tag for tag, _ in one.tags) <= Counter({"p": 1})
    assert one.scripts[-2:] == other.scripts[-2:]  # Vega's and ours
    texts = other.data("data-texts")
    assert {each["text"] for each in texts["texts"]} == {ATTACK}
    assert "\u202e" not in html.partition("<main")[2].partition("<script")[0]  # spelled out in tables


def test_without_texts_there_are_none(tmp_path: Path) -> None:
    found = Elements(page([measured(tmp_path, *grid())], 0))
    assert not any(attrs.get("id") in ("texts", "data-texts", "filters") for _, attrs in found.tags)
    assert not any("data-link" in attrs for _, attrs in found.tags)  # they would lead nowhere


def test_the_same_data_set_gives_the_same_page(tmp_path: Path) -> None:
    content = grid()
    assert len({page([measured(tmp_path / name, *content)], 5) for name in "ab"}) == 1


@pytest.mark.parametrize(
    "kind", ["one row", "control only", "unjudged", "unscored", "one attribute", "old", "nothing weighted but judged"]
)
def test_whatever_a_data_set_lacks_there_is_a_page(tmp_path: Path, kind: str) -> None:
    rows = {
        "one row": [row("a", "p", {"E": 1.0})],
        "control only": [row("reference", f"p{k}", {}) for k in range(3)],
        "unjudged": grid()[0],
        "unscored": [row("a", f"p{k}", {"E": 1.0}) for k in range(3)],
        "one attribute": grid(("E",))[0],
        "nothing weighted but judged": [row("reference", "p", {})],
    }.get(kind, [])
    scores: dict[str, list[float | None]] = {
        "one row": [0.5],
        "unscored": [None] * 3,
        "nothing weighted but judged": [0.4],
    }
    judgments = judged(rows, "E", scores[kind], rationale="too many") if kind in scores else []
    judgments = grid(("E",))[1] if kind == "one attribute" else judgments
    old = Path(__file__).parents[3] / "data" / "schema-3" / "out"
    m = Measures(read_data_set(old)) if kind == "old" else measured(tmp_path, rows, judgments)
    html, words = page([m], 10), short_form([m])
    assert f"{m.of.n:,} text{'' if m.of.n == 1 else 's'}" in html and "Adherence against weight" in html
    assert "# At a glance" in words and "# Planned and spent" in words
    if kind in ("control only", "nothing weighted but judged"):
        assert "no text has an attribute with a weight" in html and "no text has an attribute with a weight" in words
    if kind == "unjudged":
        assert "mpg judge adds judgments" in html and "mpg judge adds judgments" in words
    if kind == "unscored":
        assert "3 failed" in html and "- (3 unscored)" in words


def test_texts_are_drawn_by_stratum_and_the_same_in_any_order(tmp_path: Path) -> None:
    """Two personas, one of a hundred texts with three of them scored high, one of four: all strata have their turn."""
    rows = [row("many", f"p{k}", {"a": 1.0}) for k in range(100)] + [row("few", f"p{k}", {"a": 1.0}) for k in range(4)]
    scores = [0.9 if k < 3 else 0.1 for k in range(100)] + [0.5] * 4
    judgments = judged(rows, "a", scores)
    m = measured(tmp_path / "one", rows, judgments)
    few = drawn(m, 9)
    assert few == sorted(few) and Counter((m.of.personas[m.of.persona_of[i]], m.of.scores[i, 0]) for i in few) == {
        ("many", 0.9): 3, ("many", 0.1): 3, ("few", 0.5): 3
    }  # fmt: skip
    assert set(few) <= set(drawn(m, 20)) and len(drawn(m, 20)) == 20 and drawn(m, 1_000) == list(range(104))
    order = np.random.default_rng(0).permutation(104)
    other = measured(tmp_path / "two", [rows[i] for i in order], judgments)
    ids = [set(np.array(x.of.row_ids.to_pylist())[drawn(x, 9)]) for x in (m, other)]
    assert ids[0] == ids[1]
    html = page([m], 9)
    assert "9 of 104 texts, drawn by stratum" in html and len(Elements(html).data("data-texts")["texts"]) == 9


@pytest.mark.parametrize(
    ("sizes", "most", "expected"),
    [([5, 5], 4, [2, 2]), ([1, 9], 6, [1, 5]), ([9, 1, 9], 7, [3, 1, 3]), ([3, 3], 100, [3, 3]), ([4], 0, [0])],
)
def test_data_sets_share_the_texts(sizes: list[int], most: int, expected: list[int]) -> None:
    assert shares(sizes, most) == expected


def test_names_that_look_alike_stay_apart() -> None:
    shown = Shown(["a\nb", "a b", "", "x" * 99 + "1", "x" * 99 + "1 "])
    assert len(set(shown.values())) == 5 and shown["a b"] == "a b (2)" and shown[""] == "(no name)"


def test_many_personas_are_limited_and_that_is_said(tmp_path: Path) -> None:
    rows, judgments = [], []
    for k in range(320):
        weights = {"a": round(0.1 + k / 400, 4), "b": round(0.9 - k / 400, 4)}
        rows.append(row(f"persona {k}", f"p{k % 60}", weights, log_prob_reference=-5.0 - k))
    for name in "ab":
        judgments += judged(rows, name, [(7 * k % 11) / 11 for k in range(320)])
    html = page([measured(tmp_path, rows, judgments)], 0)
    plots = Elements(html).data("data-plots")["specs"]
    assert "The first 200 of 320 personas." in html and "at most 300 of a data set&#39;s personas" in html
    assert "at most the first 40 of 320 personas and 48 of 60 prompts" in html
    assert len(str(plots["joint-0"])) < 5_000
    assert len(plots["control-0"]["layer"][1]["data"]["values"]) <= 12  # put together by weight
    words = short_form([measured(tmp_path / "again", rows, judgments)])
    assert "the first 24 of 200 rows of the report" in words and len(words.splitlines()) < 200


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_is_enough_to_read(colours: dict[str, str]) -> None:
    assert set(LIGHT) == set(DARK)
    for ground in ("paper", "plate"):
        for text in ("ink", "faint", "link"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for k in range(N_SERIES):
            assert contrast(colours[f"s{k}"], colours[ground]) >= 3, k
    for k in range(9):  # a heat map's values: in ink, in the strongest cells in white
        words = "on" if k in (0, 1, 7, 8) else "ink"
        assert contrast(colours[words], colours[f"d{k}"]) >= 4.5, k
    for side in ("up", "down"):  # a token's own colour, at its fullest: see page.css and page.js
        for ground in ("paper", "plate"):
            assert contrast(colours["ink"], mixed(colours[side], colours[ground], 0.48)) >= 4.5, (side, ground)


def mixed(one: str, other: str, share: float) -> str:
    parts = [share * int(one[i : i + 2], 16) + (1 - share) * int(other[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(part):02x}" for part in parts)


def test_a_figure_is_its_value_its_interval_and_what_lacks(tmp_path: Path) -> None:
    rows, judgments = grid()
    judgments[3]["score"], judgments[3]["status"] = None, "failed"
    html = page([measured(tmp_path / "some", rows, judgments)], 10)
    found = re.findall(r"<dt>judged adherence</dt><dd>(.*?)</dd>", html)
    assert re.fullmatch(r'0\.\d\d<span class="width">±\S+</span><span class="lacking">1 unscored</span>', found[0])
    none = page([measured(tmp_path / "none", rows, judged(rows, "E", [None] * len(rows)))], 10)
    assert '<dt>judged adherence</dt><dd>-<span class="lacking">' in none
    plots = Elements(none).data("data-plots")["specs"]  # a plot without a point is none
    assert not [name for name in plots if name.startswith(("control", "joint", "leakage"))]


def test_one_text_is_one(tmp_path: Path) -> None:
    html = page([measured(tmp_path, grid()[0][:1])], 10)
    assert "1 text by a/model@1" in html and "The one text." in html and "1 texts" not in html


def test_the_leakage_s_columns_are_those_that_were_judged(tmp_path: Path) -> None:
    names = [f"a{i}" for i in range(20)]
    rows = [row(f"{a}1.00", f"p{k}", {a: 1.0}) for a in names for k in range(3)]
    scores = [0.8 if each["persona"] == "a191.00" else 0.3 for each in rows]
    html = page([measured(tmp_path, rows, judged(rows, "a19", scores))], 0)
    cells = Elements(html).data("data-plots")["specs"]["leakage-0"]["layer"][0]["data"]["values"]
    assert {cell["column"] for cell in cells} == {"a19"} and len(cells) == 16
