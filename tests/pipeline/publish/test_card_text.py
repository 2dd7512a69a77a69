"""Whatever text or name a data set holds, its card shows as the text that it is."""

from __future__ import annotations

import re

import pytest
import yaml
from huggingface_hub import DatasetCard, DatasetCardData

from pipeline.publish.card.words import code, inline, quoted, table
from tests.card_desk import MARKDOWN, NASTY, ODD, body, card, cells, front, generations, kinds, section, shown
from tests.job_desk import Desk


@pytest.mark.parametrize("text", [*NASTY, *ODD])
def test_any_text_is_shown_as_it_is(text: str) -> None:
    assert kinds(inline(text)) == set()
    (quote,) = [token for token in MARKDOWN.parse(quoted(text or "x", 999)) if token.type == "blockquote_open"]
    assert quote.level == 0 and kinds(quoted(text or "x", 999)) == set()
    lines = "\n".join(
        shown(token.children) for token in MARKDOWN.parse(quoted(text, 999)) if token.type == "inline" and text
    )
    words = re.sub(r"\\(x1b|u202e)", "", re.sub(r"\s+", "", lines))
    assert words == re.sub(r"\s+", "", text.replace("\x1b", "").replace("\u202e", ""))


@pytest.mark.parametrize("text", [*NASTY, *ODD])
def test_any_text_is_one_cell_and_any_name_is_code(text: str) -> None:
    rows = cells(table(["a", "b"], [[text, "1"], ["x", code(text)]]))
    assert [len(row) for row in rows] == [2, 2, 2] and rows[2][0] == "x"
    assert kinds(table([text or "x"], [])) <= {each for each in kinds(table(["a"], []))}


def test_links_are_not_made_of_what_texts_say() -> None:
    """GitHub's and the Hub's Markdown make links of bare addresses; a backslash keeps each from being one."""
    assert inline("see http://a.org, www.b.org or c@d.org") == "see http\\://a.org, www\\.b.org or c\\@d.org"


def test_a_text_that_is_cut_says_so() -> None:
    assert quoted("ab" * 500, 10) == "> ababababab \\[…\\]" and quoted("a\n\nb\nc", 99) == "> a\n>\n> b\\\n> c"
    assert "empty" in quoted("", 9)


@pytest.mark.parametrize(
    "name", [*NASTY[:-1], *ODD, "no", "1.0", "null", "2026-11-26", "a: b", "'\"", "é 你好 🙂", "\u0085x"]
)
def test_odd_names_go_through_yaml_and_the_hubs_own_parser(desk: Desk, name: str) -> None:
    given = yaml.safe_dump({"card": {"pretty_name": name, "tags": [name], "language": ["no", "en"]}})
    (desk.folder / "job.yaml").write_text((desk.folder / "job.yaml").read_text() + given)
    text = card(desk, generations({"persona": name}))
    read = DatasetCard(text)
    assert (read.data.pretty_name, read.data.language, read.data.tags[-1]) == (name, ["no", "en"], name)
    assert DatasetCardData(**front(text)).to_dict() == read.data.to_dict()
    headings = [token.tag for token in MARKDOWN.parse(read.text) if token.type == "heading_open"]
    assert headings[0] == "h1" and headings.count("h1") == 1
    assert not kinds(read.text) & {"html_block", "html_inline", "image"}


@pytest.mark.parametrize("name", ODD)
def test_a_persona_of_any_name_is_one_cell(desk: Desk, name: str) -> None:
    text = card(desk, generations({"persona": "reference"}, {"persona": name}))
    titles, *rows = cells(section(text, "Judged adherence"))
    assert titles == ["persona", "rows", "acceptance", "perplexity"]
    assert rows == [["reference", "1", "0.50", "2.72"], [name, "1", "0.50", "2.72"]]


def test_what_can_not_be_printed_is_spelled_out_and_a_long_name_is_cut(desk: Desk) -> None:
    text = card(desk, generations({"persona": "a\x1b[1mb"}, {"persona": "x" * 999}, {"persona": "one\ntwo"}))
    first, second, third = (row[0] for row in cells(section(text, "Judged adherence"))[1:])
    assert first == "a\\x1b[1mb" and len(second) < 200 and "…" in second and third == "one two"


def test_a_model_of_any_name_is_code(desk: Desk) -> None:
    assert "``my`model|@1``" in card(desk, generations({}), run={"model": "my`model|@1"}).replace("\\|", "|")


def test_texts_with_markup_in_them_are_text(desk: Desk) -> None:
    rows = generations(*({"response": text, "persona": text[:9] or "x", "prompt": [{"role": "user", "content": text}]}
                         for text in NASTY))  # fmt: skip
    clean = kinds(body(card(desk, generations({"response": "", "persona": "b"}))))
    for i in range(len(NASTY)):
        assert kinds(body(card(desk, rows.slice(i, 1)))) <= clean, NASTY[i]
