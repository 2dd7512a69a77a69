"""Licences by the Hub's identifiers, and what each asks of those who pass on what was made with it.

The identifiers are those of https://huggingface.co/docs/hub/repositories-licenses (as of huggingface/hub-docs in
November 2026). What they ask is this project's short reading of them, by kinds, for
:mod:`pipeline.publish.licence_rules`; it is no legal advice, and docs/publishing.md says so.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from enum import IntEnum

# Licences that are none of the list's, and what nobody knows.
OTHER, UNKNOWN = "other", "unknown"
# What the operator of an endpoint may say of its answers, where that is no licence.
UNRESTRICTED, NO_TRAINING = "unrestricted", "no-training"


class Kind(IntEnum):
    """What a licence asks, from least to most; a mix asks what its strictest part does, where that can be stated."""

    FREE = 0  # nothing
    NOTICE = 1  # its notice is kept
    ATTRIBUTION = 2  # the source is named
    NON_COMMERCIAL = 3  # and nothing is sold
    SHARE_ALIKE = 4  # what is made from it has the same licence
    OWN_TERMS = 5  # terms of its own, which come along: of models, of research
    NO_DERIVATIVES = 6  # nothing made from it is passed on
    NOT_SAID = 7  # a family of licences that differ in just this


# In the order of a mix's choice: of one kind, the later asks as much or more.
_BY_KIND: Mapping[Kind, str] = {
    Kind.FREE: "unlicense wtfpl cc0-1.0 pddl",
    Kind.NOTICE: "zlib bsl-1.0 cdla-permissive-2.0 openmdw-1.0 openmdw-1.1 postgresql isc mit ncsa bsd bsd-2-clause "
    "bsd-3-clause bsd-3-clause-clear artistic-2.0 afl-3.0 ecl-2.0 apache-2.0",
    Kind.ATTRIBUTION: "cdla-permissive-1.0 etalab-2.0 odc-by cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0",
    Kind.NON_COMMERCIAL: "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0",
    Kind.SHARE_ALIKE: "cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
    "odbl lgpl lgpl-2.1 lgpl-3.0 lgpl-lr gpl gpl-2.0 gpl-3.0 agpl-3.0 gfdl mpl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 "
    "osl-3.0 ms-pl lppl-1.3c ofl-1.1",
    Kind.OWN_TERMS: "c-uda openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m openrail++ deepfloyd-if-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma "
    "grok2-community h-research intel-research apple-ascl apple-amlr fair-noncommercial-research-license other",
    Kind.NO_DERIVATIVES: "cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0",
    Kind.NOT_SAID: "cc unknown",
}
KINDS: Mapping[str, Kind] = {name: kind for kind, names in _BY_KIND.items() for name in names.split()}
_ORDER = {name: index for index, name in enumerate(KINDS)}

# Share-alike licences that say themselves that what is made from them may have a later version (section 4 b of the
# Creative Commons licences from 2.0 on).
LATER: Mapping[str, str] = {
    "cc-by-sa-3.0": "cc-by-sa-4.0",
    "cc-by-nc-sa-2.0": "cc-by-nc-sa-4.0",
    "cc-by-nc-sa-3.0": "cc-by-nc-sa-4.0",
}
# Share-alike licences that forbid to sell, too: what only forbids that may go under them.
NON_COMMERCIAL_SHARE_ALIKE = frozenset(name for name in KINDS if name.startswith("cc-by-nc-sa-"))

# SPDX's names of licences that the Hub calls otherwise.
_SPDX = {
    "odbl-1.0": "odbl",
    "odc-by-1.0": "odc-by",
    "pddl-1.0": "pddl",
    "lppl-1.3": "lppl-1.3c",
    "artistic-license-2.0": "artistic-2.0",
    "gfdl-1.3": "gfdl",
}


def identifier(written: str) -> str | None:
    """The Hub's identifier of a licence, whatever case it is written in, or by SPDX's name; ``None``: it is none."""
    name = written.strip().lower()
    name = _SPDX.get(name, name)
    name = name if name in KINDS else re.sub(r"-(only|or-later)$", "", name)
    name = _SPDX.get(name, name)
    return name if name in KINDS else None


def order(name: str) -> int:
    """Where an identifier stands: of two, the later asks as much or more, if not something else."""
    return _ORDER[name]


def hint(written: str) -> str:
    """What may have been meant: never a family of licences, which would be refused, too."""
    name = "-".join(word for word in re.split(r"[\s_]+", written.lower()) if word not in ("the", "licence", "license"))
    known = [each for each, kind in KINDS.items() if kind is not Kind.NOT_SAID]
    # of those that begin so the last, which is the latest version
    longer = [each for each in known if re.match(rf"{re.escape(name)}($|[-.]?\d)", each)] if name else []
    near = longer[-1:] or difflib.get_close_matches(name, known, n=1)
    meant = (
        f"did you mean {near[0]!r}?" if near else "choose from https://huggingface.co/docs/hub/repositories-licenses"
    )
    return f"is no licence identifier of the Hub; {meant}"


def checked_part(written: str, *also: str) -> str:
    """As :func:`checked`, of a part of a data set, whose licence has no field for a name of its own."""
    found = checked(written, *also)
    if found == OTHER:
        raise ValueError(
            f"{written!r} does not say what is asked; leave it out, and state the data set's: card.license"
        )
    return found


def checked(written: str, *also: str) -> str:
    """The identifier of a licence that somebody states.

    Args:
        also: words that are taken beside identifiers.

    Raises:
        ValueError: it is none; value and remedy.
    """
    if written.strip().lower() in also:
        return written.strip().lower()
    name = identifier(written)
    if name is None:
        raise ValueError(f"{written!r} {hint(written)}")
    if KINDS[name] is Kind.NOT_SAID:
        raise ValueError(f"{written!r} does not say what is asked; name the very licence, e.g. cc-by-4.0")
    return name


_NAME = "an identifier of your own for it, e.g. my-licence"
_LINK = "LICENSE, for such a file beside the card, or a URL (https://...)"


def stated_problem(license: str | None, name: str | None, link: str | None) -> tuple[str, str] | None:
    """What is wrong with a licence that somebody states for a whole data set: field and text; ``None``: nothing."""
    if license is None:
        given = "license_name" if name else "license_link" if link else None
        return None if given is None else (given, f"{name or link!r} is of license: other; give that, or remove it")
    try:
        found = checked(license)
    except ValueError as error:
        return "license", str(error)
    if found == OTHER and not (name and link):
        missing = "license_name" if not name else "license_link"
        return missing, f"nothing given, which license: other needs; give {_NAME if not name else _LINK}"
    if found == OTHER and name and re.search(r"\s", name):
        return "license_name", f"{name!r} has spaces in it; give {_NAME}"
    if found == OTHER and link and link != "LICENSE" and not re.match(r"https?://\S+$", link):
        return "license_link", f"{link!r} is no address; give {_LINK}"
    if found != OTHER and (name or link):
        given = "license_name" if name else "license_link"
        return given, f"{name or link!r} is for license: other; remove it"
    return None
