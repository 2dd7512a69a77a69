"""What must reach no file, no log and no screen: keys and passwords, known by their form or by their field's name."""

from __future__ import annotations

import re
from urllib.parse import quote

from personas.text import one_line

HIDDEN = "***"
# Shortest beginning of a key that is still hidden where a message holds only a part of it, and the shortest key that is
# hidden inside of words: a server that asks for no key is told any text, "x" for one.
_PART, SHORT = 10, 8
# The end of such a key, as servers show it to tell keys apart: behind stars or dots, or alone (then with a digit, or
# it may be a word).
_MASKED_END = re.compile(r"[\w-]{0,40}(?:[*•]{2,}\s?|\.{2,}|…)([\w+/=-]{2,})")
_LONE_END = re.compile(r"[\w-]{6,}")
_MOST_READ, _LONGEST_MESSAGE = 4000, 300

_FORMS = re.compile(
    r"\bsk-[\w-]{4,}"  # OpenAI and those who took its form over
    r"|\b(?:sk|rk|gsk|csk|xai|hf|ghp|gho|ghs|glpat|nvapi|pplx|r8|tgp|xox[abp])[-_](?=[\w-]*\d)[\w-]{8,}"
    r"|\bgithub_pat_\w{16,}|\bAIza[\w-]{20,}|\bAKIA[A-Z0-9]{12,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # a JSON web token
)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+(?=\S{0,200}\d)[^\s\"',;]{8,}", re.IGNORECASE)
_IN_A_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,20}:/{0,2})[^\s'\"]{0,200}@")
_SECRET_WORDS = {
    "key", "apikey", "keys", "secret", "secrets", "password", "passwd", "pwd", "passphrase", "token", "auth",
    "authorization", "credential", "credentials", "bearer", "accesstoken",
}  # fmt: skip
_SIGNATURES = {"sig", "signature"}  # of parameters that give their bearer rights: SAS, signed URLs of buckets
_PARAMETER = re.compile(r"([?&;]([\w.-]+)=)[^\s&;#'\"]+")
_ASSIGNED = re.compile(r"\b([A-Za-z][\w.\[\]-]{0,60})[\"']?\s*[:=]\s*")
_DIGIT = re.compile(r"[0-9]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def names_a_secret(name: str) -> bool:
    """Whether a field of this name holds a secret: ``api_key``, ``authToken``; not ``max_tokens``."""
    return not _SECRET_WORDS.isdisjoint(_words_of(name))


def _is_secret_parameter(name: str) -> bool:
    return not (_SECRET_WORDS | _SIGNATURES).isdisjoint(_words_of(name))


def _words_of(name: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())


def looks_secret(text: str) -> bool:
    """Whether a text has the form of a key."""
    return _FORMS.search(text) is not None or _BEARER.search(text) is not None


def has_credentials(url: str) -> bool:
    """Whether a URL names a user or a key: before its host, among its parameters, or anywhere in the form of one."""
    parameters = re.split(r"[?&;#]", url)[1:]
    return "@" in url or looks_secret(url) or any(_is_secret_parameter(each.partition("=")[0]) for each in parameters)


def is_variable_name(text: str) -> bool:
    """Whether a text can be the name of an environment variable, and is no key that was pasted in its place."""
    if not _NAME.fullmatch(text) or len(text) > 64 or looks_secret(text):
        return False
    digits = sum(char.isdigit() for char in text)
    random = len(text) >= 16 and digits >= 3 and (not text.isupper() or "_" not in text)
    return not random


def shown_name(name: str) -> str | None:
    """The name of a variable, if it has the form that people give one, so that it is surely no key; else ``None``."""
    plain = re.fullmatch(r"[A-Z]+[0-9]{0,3}(_[A-Z0-9]{1,20})*", name) is not None
    return name if plain and len(name) <= 40 and is_variable_name(name) else None


def masked(text: str) -> str:
    """A user's text with all hidden that has the form of a secret, or stands behind the name of one."""
    return "\n".join(map(_masked_line, without_forms(text).split("\n")))


def without_forms(text: str) -> str:
    """The text with all hidden that has the form of a secret."""
    text = without_parameters(_FORMS.sub(HIDDEN, _IN_A_URL.sub(rf"\1{HIDDEN}@", text)))
    return _BEARER.sub(rf"\1 {HIDDEN}", text)


def without_parameters(text: str) -> str:
    """The text with the values of URLs' parameters hidden that name a secret: ``?token=``, ``&sig=``."""
    return _PARAMETER.sub(lambda found: f"{found[1]}{HIDDEN}" if _is_secret_parameter(found[2]) else found[0], text)


def masked_words(text: str) -> str:
    """Words of a command line: what follows an option that names a secret is hidden, too."""
    words, hide = [], False
    for word in without_forms(text).split(" "):
        name, equals, _ = word.partition("=")
        words.append(HIDDEN if hide else word)
        hide = word.startswith("-") and not word.endswith(":") and names_a_secret(name)
        if hide and equals:
            words[-1], hide = f"{name}={HIDDEN}", False
    return " ".join(words)


def without_key(error: object, key: str) -> str:
    """An error's text on one line, without the key, or a part of it, or another secret; 300 characters at most."""
    return hidden(one_line(str(error)[:_MOST_READ])[:_MOST_READ], key)[:_LONGEST_MESSAGE]


def hidden(text: str, key: str) -> str:
    """A text of a few thousand characters at most without the key, or a part of it, or what has the form of another."""
    for form in {key, quote(key, safe=""), repr(key)[1:-1]}:
        if len(form) >= SHORT:
            text = text.replace(form, HIDDEN)
        else:  # only where it stands alone
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])", HIDDEN, text) if form else text
    if len(key) > _PART:
        part = re.escape(key[:_PART])
        text = re.sub(rf"{part}[\w*.+/=-]*", HIDDEN, text)
        text = _MASKED_END.sub(lambda end: HIDDEN if key.endswith(end[1]) else end[0], text)
        text = _LONE_END.sub(lambda end: HIDDEN if key.endswith(end[0]) and _DIGIT.search(end[0]) else end[0], text)
    return without_forms(text)


def _masked_line(line: str) -> str:
    for found in _ASSIGNED.finditer(line):
        if names_a_secret(found.group(1).rsplit(".", 1)[-1]) and found.end() < len(line):
            return line[: found.end()] + HIDDEN
    return line
