"""Cards of data sets that a test makes up, read as Markdown is; and texts and names that are hard on one."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pyarrow as pa
import yaml
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from pipeline.publish.card import write_card
from pipeline.publish.digest import digest_of
from pipeline.store.dataset import FOLDERS, write_pieces
from pipeline.store.schema import GENERATIONS, JUDGMENTS, REJECTED
from pipeline.store.shards import write_bytes
from tests.job_desk import Desk

ROW = {
    **{field.name: "" for field in GENERATIONS if field.type == pa.string()},
    **{field.name: 1 for field in GENERATIONS if pa.types.is_integer(field.type)},
    **{field.name: [] for field in GENERATIONS if pa.types.is_list(field.type)},
    **{"exact": True, "acceptance_rate": 0.5, "tv_bound": None, "log_prob_reference": -1.0},
}
RUN: dict[str, Any] = {
    "model": "m",
    "dtype": "float32",
    "counts": {"rows": 2, "rejected": 0},
    "accept": None,
    "judges": [],
}
ODD = ["E1.00", "a|b", "a\\|b", "a\\", "|||", "<b>x", "`a`|", "# a", "- a", "---", "**a**", "&amp;", "1. a", "a_b_"]
# What would be markup, or worse, if a card put it in as it is.
NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![a](http://example.org/a.png)",
    "[a](javascript:alert(1))",
    "---\nlicense: mit\n---",
    "```\ncode\n```",
    "~~~",
    "# heading",
    "    indented",
    "\tindented",
    "- item",
    "+ item",
    "1. item",
    "1) item",
    "> quote",
    "a\n===",
    "a\n---",
    "***",
    "| a | b |\n|---|---|\n| c | d |",
    "<!-- gone -->",
    "&lt;b&gt;",
    "*a* _b_ ~~c~~ `d`",
    "a  \nb\\\nc",
    "{{ title }}{% if x %}",
    "\u202eabc\x1b[1m",
    "[a]: http://example.org\n\n[a]",
    "$x$",
    "<http://example.org>",
    "a\r\nb\rc\u2028d",
    "\\",
    "",
]
MARKDOWN = MarkdownIt("commonmark").enable("table").enable("strikethrough")


def generations(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([ROW | {"row_id": f"{i}", "prompt_id": "p"} | row for i, row in enumerate(rows)],
                                schema=GENERATIONS)  # fmt: skip


def judgment(row_id: str, attribute: str, score: float | None, judge: str = "classifier@1") -> dict[str, Any]:
    empty = dict.fromkeys(JUDGMENTS.names)
    status = "ok" if score is not None else "refused"
    return empty | {"row_id": row_id, "attribute": attribute, "judge": judge, "score": score, "status": status}


def card(
    desk: Desk, rows: pa.Table, *judgments: dict[str, Any], run: dict[str, Any] | None = None, job: tuple[str, ...] = ()
) -> str:
    """The card of a data set that is written into the desk's folder."""
    run = RUN | {"judges": sorted({each["judge"] for each in judgments})} | (run or {})
    tables = {
        "generations": rows,
        "judgments": pa.Table.from_pylist(list(judgments), schema=JUDGMENTS),
        "rejected": REJECTED.empty_table(),
    }
    for folder in FOLDERS.values():
        shutil.rmtree(desk.folder / folder, ignore_errors=True)
    write_pieces(desk.folder, [tables])
    write_bytes(json.dumps(run).encode(), desk.folder / "run.json")
    write_card(desk.folder, desk.load(*job), digest_of(desk.folder, list("ENTJ"), set(run["judges"])), run)
    return (desk.folder / "README.md").read_text("utf-8")


def body(text: str) -> str:
    return DatasetCard(text).text


def section(text: str, title: str) -> str:
    return body(text).split(f"\n## {title}\n")[1].split("\n## ")[0]


def cells(markdown: str) -> list[list[str]]:
    """Of its tables, row by row, as they are shown."""
    found: list[list[str]] = []
    in_cell = False
    for token in MARKDOWN.parse(markdown):
        if token.type == "tr_open":
            found.append([])
        elif token.type == "inline" and in_cell:
            found[-1].append(shown(token.children or ()))
        in_cell = token.type in ("td_open", "th_open")
    return found


def shown(tokens: Any) -> str:
    return "".join(
        each.content if each.type in ("text", "code_inline", "html_inline") else "\n" if "break" in each.type else ""
        for each in tokens
    )


def kinds(markdown: str) -> set[str]:
    """What is in a piece of Markdown beside paragraphs, quotes and text."""
    found = set()
    for token in MARKDOWN.parse(markdown):
        found.add(token.type)
        found |= {each.type for each in token.children or ()}
    plain = {"paragraph_open", "paragraph_close", "inline", "text", "softbreak", "hardbreak", "text_special"}
    return found - plain - {"blockquote_open", "blockquote_close"}


def front(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n")))
