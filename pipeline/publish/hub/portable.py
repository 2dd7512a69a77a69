"""A data set's words as they are published: by name what lies on this machine, and no keys.

Of what names a place, what is known to tell nothing of a machine stays (an id of the Hub, a file below the job's
folder, the address of a public service); the rest is published as the name at its end.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit

from evaluation.tables import escaped
from personas.secrets import HIDDEN, looks_secret, without_forms, without_parameters
from pipeline.job.recorded import named_places
from pipeline.store.copies import origin_of
from pipeline.store.dataset import WORK_FOLDER, job_folder
from pipeline.store.places import is_local, is_url

# Services that anybody may ask, and names of one's own machine for itself; other hosts may be nobody's business.
_PUBLIC_HOSTS = (
    "localhost", "127.0.0.1", "api.openai.com", "api.anthropic.com", "api.mistral.ai", "api.cohere.com",
    "api.cohere.ai", "api.deepseek.com", "api.together.xyz", "api.together.ai", "api.groq.com", "api.fireworks.ai",
    "api.x.ai", "api.perplexity.ai", "api.cerebras.ai", "openrouter.ai", "router.huggingface.co",
    "api-inference.huggingface.co", "generativelanguage.googleapis.com", "integrate.api.nvidia.com",
    "dashscope.aliyuncs.com",
)  # fmt: skip
NO_HOST = "endpoint.invalid"  # RFC 2606: a name that no host ever has
_END = r"[^\s/\\'\"`<>|*?,;()\[\]{}]"  # characters of a path's part
_MARK = r"\\[!-/:-@\[-`{-~]"  # a character as Markdown escapes it
_PART = rf"(?:{_MARK}|{_END})+"
_PATH = re.compile(
    rf"file://[^\s'\"`<>]+|(?<![\w.:/~\\-])(?:\\?~[\w.-]*(?:/{_PART})+|(?:/{_PART}){{2,}})/?"
    rf"|(?<![\w:/\\])[A-Za-z]:\\{_END}+(?:\\{_END}+)*"
)
_REST = re.compile(rf"(?:/{_PART})*")
_MOST_OF_A_PATH = 400
_OF_THE_SYSTEM = ("/usr/", "/bin/", "/sbin/", "/etc/", "/dev/", "/proc/", "/sys/", "/lib/", "/lib64/", "/boot/")
_OF_PEOPLE = ("/home/", "/Users/", "/root/", "file://", "~")
_OF_PEOPLE_S = ("card_template",)  # in run.json
_USER_IN_URL = re.compile(r"(\b[A-Za-z][\w+.-]*://)[^\s/@'\"]*@")


@dataclass
class Machine:
    """What names a place of this machine; and what was replaced so far.

    Attributes:
        roots: folders that a path of this machine begins with.
        hosts: names that are not published.
        n_places, n_secrets: how many of either were replaced.
    """

    roots: tuple[str, ...]
    hosts: list[str]
    n_places: int = 0
    n_secrets: int = 0
    _names: dict[str, str] = field(default_factory=dict)
    _of_the_job: list[str] = field(default_factory=list)

    @classmethod
    def here(cls, folder: Path) -> Machine:
        """This one, with a data set in that folder."""
        noted = job_folder(origin_of(folder) / WORK_FOLDER)
        places = [
            Path.home(),
            folder,
            folder.parent,
            Path.cwd(),
            Path(tempfile.gettempdir()),
            *([noted] if noted and is_local(noted) else []),
        ]
        roots = {str(kind) for place in places for kind in (place.absolute(), Path(os.path.realpath(place)))}
        name = socket.gethostname()
        hosts = [each for each in sorted({name, socket.getfqdn()}) if _is_telling(each)]
        return cls(tuple(sorted(roots - {"/"}, key=len, reverse=True)), hosts)

    def holds(self, path: str) -> bool:
        """Whether a path is one of this machine, or of somebody's home."""
        if path.startswith(_OF_PEOPLE) or "\\" in path or any(f"{path}/".startswith(f"{root}/") for root in self.roots):
            return True
        return not path.startswith(_OF_THE_SYSTEM) and os.path.exists(path)

    def name_of(self, place: str) -> str:
        """A place's last part, marked as one of a machine; two places never get one name."""
        if place not in self._names:
            own = (PureWindowsPath(place) if "\\" in place else PurePosixPath(place.removeprefix("file://"))).name
            own = own if own not in ("", "..", "~") else "local"
            taken, name, n = set(self._names.values()), f"./{own}", 1
            while name in taken:
                n += 1
                name = f"./{own}-{n}"
            self._names[place] = name
        return self._names[place]

    def place_of_the_job(self, place: str) -> str:
        """The name of a place that the job names; texts that name it, too, have that name from here on."""
        self.n_places += 1
        self._of_the_job.append(place)
        return self.name_of(place)

    def _whole(self, path: str, text: str) -> str:
        """The path that a text begins with, as far as it leads to what is there: its parts may hold blanks."""
        line = re.sub(r"\s", " ", text[:_MOST_OF_A_PATH])  # a card's lines are wrapped
        for end in sorted({found.start() for found in re.finditer(r"[^\w.-]|$", line)}, reverse=True):
            if end <= len(path):
                break
            if os.path.exists(_unmarked(line[:end])):
                return line[:end] + _REST.match(line[end:])[0]  # type: ignore[index]
        return path

    def words(self, text: str, *, all_paths: bool) -> str:
        """A text without places of this machine, hosts and keys.

        Args:
            all_paths: every absolute path is one of this machine; else the system's own stay: anybody may write of
                ``/usr/bin``.
        """

        for place in sorted(self._of_the_job, key=len, reverse=True):  # as the card names what the job needs
            for form in (place, escaped(place)):
                text = re.sub(rf"(?<![\w/.-]){re.escape(form)}(?![\w/-])", lambda _: self.name_of(place), text)  # noqa: B023
        parts, end = [], 0
        for found in _PATH.finditer(text):
            if found.start() < end:  # in the one before
                continue
            path = self._whole(found[0], text[found.start() :]).rstrip("/.:")
            if all_paths or self.holds(_unmarked(path)):
                self.n_places += 1
                parts += [text[end : found.start()], self.name_of(_unmarked(path)).removeprefix("./")]
                end = found.start() + len(path)
        text = "".join(parts) + text[end:]
        for host in self.hosts:
            text, n = re.subn(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", NO_HOST, text)
            self.n_places += n
        return self.without_keys(text)

    def is_told_in(self, text: str) -> bool:
        """Whether a text has what :meth:`words` would replace; nothing is counted."""
        counts = self.n_places, self.n_secrets
        tells = self.words(text, all_paths=False) != text
        self.n_places, self.n_secrets = counts
        return tells

    def without_keys(self, text: str) -> str:
        """A text without what has the form of a key, a user in a URL, or a parameter that names a secret."""
        clean = without_parameters(_USER_IN_URL.sub(rf"\1{HIDDEN}@", text))
        if looks_secret(clean):
            clean = without_forms(clean)
        self.n_secrets += clean != text
        return clean


def _unmarked(text: str) -> str:
    """A place without Markdown's escapes; one of Windows has none."""
    return text if re.match(r"[A-Za-z]:", text) else re.sub(rf"{_MARK}", lambda found: found[0][1], text)


def job_as_published(content: bytes, machine: Machine) -> bytes:
    """``job.json`` without places of a machine; the very bytes where there are none. Raises ValueError: it is none."""
    data = json.loads(content)
    before = json.dumps(data)
    for _, holder, name in (*named_places(data), *_more_places(data)):
        if holder[name]:
            holder[name] = _place(holder[name], machine)
    for judge in data.get("judges", ()):
        if judge.get("base_url"):
            judge["base_url"] = _address(judge["base_url"], machine)
    data = _deep(data, machine, all_paths=False)
    return content if json.dumps(data) == before else (json.dumps(data, indent=2) + "\n").encode()


def record_as_published(content: bytes, machine: Machine) -> bytes:
    """The same of ``run.json``, whose words are written by machines, but for a card's template. Raises ValueError."""
    data = json.loads(content)
    own = {name: data[name] for name in _OF_PEOPLE_S if name in data}
    clean = _deep(data, machine, all_paths=True) | _deep(own, machine, all_paths=False)
    return content if clean == data else (json.dumps(clean, indent=2) + "\n").encode()


def card_as_published(content: bytes, machine: Machine) -> bytes:
    """The same of a text for people."""
    return machine.words(content.decode("utf-8", "surrogateescape"), all_paths=False).encode("utf-8", "surrogateescape")


def _more_places(data: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    files = data["prompts"].get("data_files") or []
    yield from (("prompts.data_files", files, i) for i in range(len(files)))


def _place(place: str, machine: Machine) -> str:
    if is_url(place) and not place.startswith("file:"):
        return machine.without_keys(place)
    parts = PurePosixPath(place).parts
    outside = place.startswith(("/", "~", "file:")) or ".." in parts or PureWindowsPath(place).is_absolute()
    if not outside:
        return place
    return machine.place_of_the_job(place)


def _address(url: str, machine: Machine) -> str:
    """Of a judge's service, without a host that is nobody's business; texts lose its name from here on, too."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if host in _PUBLIC_HOSTS:
        return machine.without_keys(url)
    machine.n_places += 1
    if host and _is_telling(host):
        machine.hosts.append(host)
    return f"{url.partition('://')[0]}://{NO_HOST}{urlsplit(url).path if host else ''}"


def _is_telling(host: str) -> bool:
    """Whether a host's name is one in any text: not a word (`server`), nor everybody's."""
    return host not in _PUBLIC_HOSTS and len(host) > 4 and re.search(r"[\d.-]", host) is not None


def _deep(value: Any, machine: Machine, *, all_paths: bool) -> Any:
    """JSON with each text in it, names included, without what is the machine's."""
    clean = partial(_deep, machine=machine, all_paths=all_paths)
    if isinstance(value, str):
        return machine.words(value, all_paths=all_paths)
    if isinstance(value, dict):
        return {clean(name): clean(each) for name, each in value.items()}
    return [clean(each) for each in value] if isinstance(value, list) else value
