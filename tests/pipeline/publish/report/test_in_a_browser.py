"""The report as its readers have it: in Chromium, from a file, with hostile names and texts in its data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from tests.browser import Page, chromium, require
from tests.made_data_set import grid, judged, make

# Each would set `pwned` if it ran anywhere: as markup, in an attribute, at the end of a script, in an expression.
HOSTILE = (
    "<img src=x onerror=window.pwned=1>",
    "</script><script>window.pwned=1</script>",
    '"><svg onload=window.pwned=1>',
    "<!--<script>window.pwned=1",
    "'-(window.pwned=1)-'",
    "${window.pwned=1}{{window.pwned=1}}",
)
BIDI = "\u202eright to left\u2066 \x01 and control\u2028"
ATTRIBUTES = ("a.b[0]", HOSTILE[0], "'] || (window.pwned=1) || datum['")
OTHER_JUDGE = "openai</script><b>@1+x"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    require()
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        browser.look(width=1440)
        yield browser


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a data set that has everything, and whose every word is an attack."""
    rows, judgments = grid(ATTRIBUTES, exact=False, decoder="scr", tv_bound=0.25)
    for i, row in enumerate(rows):
        pieces = [f"{HOSTILE[i % len(HOSTILE)]} ", BIDI, f" text {i}"]
        row["response"] = "".join(pieces)
        row["prompt"] = [{"role": "system", "content": HOSTILE[1]}, {"role": "user", "content": HOSTILE[i % 3]}]
        row["tokens"] = pieces
        row["token_log_ratios"] = [[1.5, -0.75, 0.0]] * len(row["attributes"])
    rows[-1]["tokens"] = ["not", "this text"]
    names = {row["persona"]: f"{HOSTILE[i % len(HOSTILE)]} {row['persona']}" for i, row in enumerate(rows)}
    for row in rows:
        row["persona"] = names[row["persona"]]
    more = judged(
        rows[:-3], ATTRIBUTES[0], [0.1 * (i % 7) for i in range(len(rows) - 3)], OTHER_JUDGE, rationale=HOSTILE[1]
    )
    more += judged(rows[-3:], ATTRIBUTES[0], [None] * 3, OTHER_JUDGE, status="refused", rationale=f"No. {HOSTILE[0]}")
    folder = tmp_path_factory.mktemp("hostile")
    make(folder, rows, [*judgments, *more], run={"job": HOSTILE[1], "model": HOSTILE[2]})
    assert main(["report", str(folder)]) == 0
    return folder / "report.html"


def count(page: Page) -> str:
    return str(page.js("return document.getElementById('count').textContent"))


def put(page: Page, **values: Any) -> None:
    """Fill in filters as a reader does, each followed by its event."""
    for name, value in values.items():
        page.js(
            "const at = document.getElementById('filters').elements.namedItem(arguments[0]);"
            "if (at.tagName === 'SELECT') {"
            "  const option = [...at.options].find((o) => o.textContent === arguments[1]);"
            "  if (!option) throw Error('no option ' + arguments[1]);"
            "  at.value = option.value;"
            "} else at.value = arguments[1];"
            "at.dispatchEvent(new Event('input', { bubbles: true }));",
            name.replace("_", "-"),
            str(value),
        )


def reset(page: Page) -> None:
    page.js("document.querySelector('#filters [type=reset]').click()")
    page.wait("document.getElementById('count').textContent.startsWith('1 to 20')")


def test_everything_is_text_and_nothing_is_asked_for(page: Page, hostile: Path) -> None:
    page.asked_for()  # of the browser's own first page
    page.open(hostile)
    assert [url for url in page.asked_for() if not url.startswith("data:")] == [hostile.absolute().as_uri()]
    assert page.js("return window.pwned") is None
    assert page.js("return document.querySelectorAll('main img, main b, svg [onload]').length") == 0
    text = page.js("return document.body.textContent")
    for words in (*HOSTILE[:3], *ATTRIBUTES, OTHER_JUDGE):
        assert words in text, words
    assert page.said() == []


def test_every_plot_is_drawn(page: Page, hostile: Path) -> None:
    page.open(hostile)
    plots = page.js(
        "return [...document.querySelectorAll('[data-chart]')].map((at) => [at.dataset.chart, "
        "at.parentElement.getAttribute('aria-label'),"
        "at.querySelectorAll('svg .mark-symbol path, svg .mark-rect path').length,"
        "at.querySelector('svg') ? at.querySelector('svg').getBoundingClientRect().width : 0])"
    )
    sections = {name.rpartition("-")[0] for name, *_ in plots}
    assert sections == {"control", "leakage", "simplex", "joint", "quality", "cells", "judges"}
    for name, label, marks, width in plots:
        assert marks >= 3 and width > 100 and len(label) > 20, name
    for section in sections:  # each has its numbers in a table, too
        assert page.js("return document.querySelectorAll(`#${arguments[0]} table tbody tr`).length", section) > 0


def test_a_plots_own_words_under_the_pointer_are_text(page: Page, hostile: Path) -> None:
    from selenium.webdriver import ActionChains

    page.open(hostile)
    mark = page.driver.find_element("css selector", "#cells .mark-rect path")
    page.js("arguments[0].scrollIntoView({ block: 'center' })", mark)
    ActionChains(page.driver).move_to_element(mark).perform()
    page.wait("document.querySelector('#vg-tooltip-element.visible')")
    shown = page.js("return document.querySelector('#vg-tooltip-element').textContent")
    assert HOSTILE[2] in shown and "acceptance" in shown
    assert page.js("return document.querySelectorAll('#vg-tooltip-element :is(img, svg, script)').length") == 0
    assert page.js("return window.pwned") is None and page.said() == []


def test_filters_find_what_they_say(page: Page, hostile: Path) -> None:
    """Seven personas, three of one attribute, three of two, and the reference, on three prompts: 21 texts."""
    page.open(hostile)
    assert count(page) == "1 to 20 of 21 texts"
    page.js("document.getElementById('on').click()")
    assert count(page) == "21 to 21 of 21 texts"
    put(page, weight=ATTRIBUTES[1], weight_low="0.5", weight_high="0.5")
    assert count(page) == "1 to 6 of 6 texts (of 21 in this report)"
    put(page, weight_low="0.6", weight_high="1")
    assert count(page) == "1 to 3 of 3 texts (of 21 in this report)"
    reset(page)
    put(page, status="refused")
    assert count(page) == "1 to 3 of 3 texts (of 21 in this report)"
    put(page, status="ok", score=ATTRIBUTES[2], score_low="0.75")
    assert count(page) == "1 to 3 of 3 texts (of 21 in this report)"
    reset(page)
    put(page, words="text 20")
    assert count(page) == "1 to 1 of 1 text (of 21 in this report)"
    put(page, words="nobody wrote this")
    assert count(page) == "No text of the 21 in this report is like that."
    reset(page)
    persona = page.js("return document.getElementById('filters').elements.namedItem('persona').options[1].textContent")
    put(page, persona=persona)
    assert count(page) == "1 to 3 of 3 texts (of 21 in this report)"
    assert page.said() == []


def test_a_score_leads_to_its_text_its_reasons_and_its_tokens(page: Page, hostile: Path) -> None:
    page.open(hostile)
    put(page, weight=ATTRIBUTES[0], weight_low="1")
    page.js("document.querySelector('.scores button').click()")
    assert page.js("return document.activeElement.getAttribute('aria-expanded')") == "true"
    opened = page.js("return document.querySelector('.open').textContent")
    assert HOSTILE[1] in opened and OTHER_JUDGE in opened and "U+202E" in opened and "U+0001" in opened
    pieces = page.js("return [...document.querySelectorAll('.open .text > span')].map((s) => [s.className, s.title])")
    assert pieces == [["t up", "+1.50 nats"], ["t down", "-0.75 nats"], ["", ""]]
    page.js("document.querySelector('.scores button').click()")
    assert page.js("return document.querySelector('.open')") is None
    # Tokens that are not this text's are not shown for it.
    reset(page)
    put(page, words="text 20")
    page.js("document.querySelector('.scores button').click()")
    assert page.js("return document.querySelectorAll('.open .t').length") == 0
    assert "No. " + HOSTILE[0] in page.js("return document.querySelector('.open').textContent")
    assert page.js("return window.pwned") is None and page.said() == []


def test_tables_and_plots_lead_to_their_texts(page: Page, hostile: Path) -> None:
    from selenium.webdriver import ActionChains

    page.open(hostile)
    page.js("document.querySelector('#joint .go').click()")
    assert count(page) == "1 to 3 of 3 texts (of 21 in this report)"
    page.js("document.querySelectorAll('#control details')[1].open = true")
    page.js("document.querySelectorAll('#control .go')[2].click()")
    assert count(page) == "1 to 3 of 3 texts (of 21 in this report)"  # weight 1 of the first attribute
    mark = page.driver.find_element("css selector", "#quality .mark-symbol path")
    page.js("arguments[0].scrollIntoView({ block: 'center' }); document.getElementById('filters').reset()", mark)
    ActionChains(page.driver).move_to_element(mark).click().perform()
    assert count(page) == "1 to 3 of 3 texts (of 21 in this report)"
    assert page.said() == []


@pytest.mark.parametrize("width", [320, 360, 820, 1440])
def test_no_width_scrolls_the_page_sideways(page: Page, hostile: Path, width: int) -> None:
    page.look(width=width)
    page.open(hostile)
    page.js("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.js("document.querySelector('.scores button').click()")
    assert page.js("return document.documentElement.scrollWidth") <= width
    page.look(width=1440)


def test_dark_is_dark_in_plots_too_and_print_is_light(page: Page, hostile: Path) -> None:
    page.open(hostile)
    seen = {}
    for scheme, media in (("light", ""), ("dark", ""), ("dark", "print")):
        page.look(width=820, scheme=scheme, media=media)
        seen[scheme, media] = page.js(
            "const fill = (at) => getComputedStyle(document.querySelector(at)).fill;"
            "return [getComputedStyle(document.body).backgroundColor, fill('#control .role-axis-label text'),"
            "fill('#leakage .mark-rect path'), getComputedStyle(document.querySelector('nav')).display]"
        )
    light, dark, printed = seen.values()
    assert light[:3] == ["rgb(255, 255, 255)", "rgb(28, 37, 48)", light[2]] and dark[0] == "rgb(20, 24, 29)"
    assert all(a != b for a, b in zip(light[:3], dark[:3], strict=True)) and light[2].startswith("rgb(")
    assert printed[:3] == light[:3] and printed[3] == "none"
    page.look(width=1440)


def test_the_keyboard_reaches_everything_in_order(page: Page, hostile: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    page.open(hostile)
    ActionChains(page.driver).send_keys(Keys.TAB).perform()
    assert page.js("return document.activeElement.className") == "skip"
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    page.wait("document.activeElement.id === 'main'")
    order = []
    for _ in range(12):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        order.append(page.js("return document.activeElement.getBoundingClientRect().top + scrollY"))
    assert page.js("return document.activeElement.closest('main') !== null") and order == sorted(order)
    unlabelled = page.js(
        "return [...document.querySelectorAll('input, select, button')].filter((at) => !(at.labels && at.labels.length)"
        " && !at.textContent.trim() && !at.getAttribute('aria-label')).length"
    )
    assert unlabelled == 0
    headings = page.js("return [...document.querySelectorAll('h1,h2,h3')].map((h) => h.tagName)")
    assert headings[0] == "H1" and headings.count("H1") == 1 and headings[1] == "H2"
    bare = "(t) => !t.caption || !t.querySelector('th[scope=col]') || !t.querySelector('th[scope=row]')"
    assert page.js(f"return [...document.querySelectorAll('table')].filter({bare}).length") == 0


def test_no_script_but_the_pages_own_runs(page: Page, hostile: Path) -> None:
    """The policy holds even where something came through: a script that is put in does not run."""
    page.open(hostile)
    page.js("const s = document.createElement('script'); s.textContent = 'window.pwned = 1'; document.body.append(s);")
    page.js("document.body.insertAdjacentHTML('beforeend', arguments[0])", HOSTILE[0])
    page.wait("document.readyState === 'complete'")
    assert page.js("return window.pwned") is None
    assert any("Content Security Policy" in line for line in page.said())


def test_two_data_sets_side_by_side(page: Page, tmp_path: Path) -> None:
    one = make(tmp_path / "one", *grid(("E", "N")), run={"job": "same name"})
    two = make(tmp_path / "two", *grid(("E", "T"), control=False), run={"job": "same name"})
    assert main(["report", str(one), str(two), "--output", str(tmp_path / "both.html")]) == 0
    page.open(tmp_path / "both.html")
    assert page.js("return document.querySelector('h1').textContent") == "same name (one) beside same name (two)"
    assert page.js("return document.querySelectorAll('#control figure').length") == 3
    assert page.js("return document.querySelector('#control .role-legend').textContent.includes('same name (two)')")
    titles = page.js("return [...document.querySelectorAll('#joint th[scope=col]')].map((t) => t.textContent)")
    assert "joint, same name (one)" in titles and "joint, same name (two)" in titles
    assert count(page) == "1 to 20 of 21 texts"
    put(page, set="same name (two)")
    assert count(page) == "1 to 9 of 9 texts (of 21 in this report)"
    assert page.said() == []


def test_texts_that_nobody_judged_are_found(page: Page, tmp_path: Path) -> None:
    rows, judgments = grid(("E",))
    known = rows[0]["row_id"]
    folder = make(tmp_path / "some", rows, [each for each in judgments if each["row_id"] == known])
    assert main(["report", str(folder), "--output", str(tmp_path / "some.html")]) == 0
    page.open(tmp_path / "some.html")
    put(page, status="not judged")
    assert count(page) == f"1 to {len(rows) - 1} of {len(rows) - 1} texts (of {len(rows)} in this report)"
    assert page.js(
        "return [...document.querySelectorAll('article')].every((a) => a.textContent.includes('not judged'))"
    )
    put(page, status="ok")
    assert count(page) == f"1 to 1 of 1 text (of {len(rows)} in this report)"


def test_a_link_to_a_text_opens_it(page: Page, hostile: Path) -> None:
    page.open(hostile)
    page.js("document.getElementById('on').click()")
    name = page.js("return document.querySelector('article').id")
    page.open(hostile.parent / "report.html", "?again#" + name)
    assert page.js("return document.querySelector('.open').id") == f"{name}-open"
