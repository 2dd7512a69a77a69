"""The error in a body, whatever form an endpoint gives it.

As text, as an object or a list, under ``error``, ``detail`` (FastAPI), ``message`` or ``errors``, in text that is JSON
itself, handed on from another server (``metadata.raw``), or an HTML page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Said:
    """An error as a body puts it."""

    words: str = ""
    codes: frozenset[str] = frozenset()  # code, type and status words, in lower case
    param: str = ""
    number: int | None = None  # a status inside the body

    def over(self, outer: Said) -> Said:
        """This one, and what it lacks from what stands around it."""
        return Said(
            self.words or outer.words, self.codes | outer.codes, self.param or outer.param, self.number or outer.number
        )


def error_of(value: object, depth: int = 0) -> Said | None:
    """The error in a body, whatever form it has; ``None``: there is none."""
    if depth > 6:
        return None
    if isinstance(value, str):
        inner = json_of(value.encode("utf-8", "replace")) if value.lstrip()[:1] in ("{", "[") else None
        found = error_of(inner, depth + 1) if isinstance(inner, dict | list) else None
        return found or (Said(value) if value.strip() else None)
    if isinstance(value, list):  # one, or as FastAPI lists what did not fit
        found_all = [found for each in value[:5] if (found := error_of(each, depth + 1)) is not None]
        if not found_all:
            return None
        return replace(found_all[0], words="; ".join(each.words for each in found_all if each.words))
    if not isinstance(value, Mapping):
        return None
    words = next((value[n] for n in ("message", "msg", "title") if isinstance(value.get(n), str) and value[n]), "")
    place = [str(part) for part in value["loc"] if part != "body"] if isinstance(value.get("loc"), list) else []
    if place:
        words = f"{'.'.join(place)}: {words}"
    named = [value.get(name) for name in ("code", "type", "status", "reason")]
    inner_code = value.get("innererror")
    named.append(inner_code.get("code") if isinstance(inner_code, Mapping) else None)
    numbers = [number for each in (value.get("code"), value.get("status")) if (number := _http(each)) is not None]
    param = value.get("param")
    outer = Said(
        words.strip(),
        frozenset(each.lower() for each in named if isinstance(each, str)),
        param if isinstance(param, str) else place[0] if place else "",
        numbers[0] if numbers else None,
    )
    raw = value["metadata"].get("raw") if isinstance(value.get("metadata"), Mapping) else None
    for nested in (value.get("error"), value.get("detail"), value.get("errors"), raw):
        found = error_of(nested, depth + 1) if isinstance(nested, str | list | Mapping) else None
        if found is not None:
            both = found.words if not outer.words or nested is not raw else f"{outer.words}: {found.words}"
            return replace(found.over(outer), words=both or outer.words)
    if words.lstrip()[:1] == "{":
        deeper = error_of(words, depth + 1)
        return deeper.over(outer) if deeper is not None else outer
    return outer if outer.words or outer.codes else None


def page_of(body: bytes) -> str:
    """What a body says that is no JSON: of an HTML page its title."""
    text = body[:20_000].decode("utf-8", "replace").strip()
    if not text.startswith("<"):
        return text[:500]
    found = re.search(r"<(title|h1)[^>]{0,200}>(.{0,300}?)</\1", text, re.IGNORECASE | re.DOTALL)
    said = found.group(2) if found else re.sub(r"<[^>]{0,500}>", " ", text)[:200]
    return f"a page and no JSON ({' '.join(said.split()) or 'without a title'}); is base_url the API's address?"


def json_of(body: bytes) -> Any:
    """What a body holds, or ``None``: no JSON, or JSON that is nested without end."""
    try:
        return json.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None


def _http(value: object) -> int | None:
    """A status of HTTP that means an error, as a number or in digits."""
    if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value):
        return int(value)
    return value if isinstance(value, int) and 400 <= value <= 599 else None
