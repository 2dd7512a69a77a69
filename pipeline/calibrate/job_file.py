"""The job file that strengths are put into: it is known to be one before a text is written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from personas.yaml_files import load_yaml
from pipeline.calibrate.stages import LEAST_PROMPTS, problems_in
from pipeline.job.errors import JobError
from pipeline.job.load import load_job
from pipeline.job.model import Job
from pipeline.job.write_back import NotWritable, with_strengths
from pipeline.plan.sources import decoder_settings
from pipeline.store.files import write_bytes
from pipeline.store.places import expanded, is_local

_BOM = "\N{BOM}".encode()


@dataclass(frozen=True)
class JobFile:
    """A job file that strengths can be put into.

    Attributes:
        path: of what a link points at. named: as it was given, and where a link leads.
        raw: what it held when the job was read.
        now: attribute of the file's own job, as it is without ``--set`` -> its strength there.
    """

    path: Path
    named: str
    raw: bytes
    now: Mapping[str, float]

    @classmethod
    def of(cls, given: str | Path, job: Job, comment: Sequence[str]) -> JobFile:
        """A file that would load with strengths in it, and mean them.

        Args:
            job: read from it, with what ``--set`` gives. comment: such as it will get.

        Raises:
            NotWritable: it is none, or may not be written.
        """
        place = expanded(given)
        if not is_local(place) or place.suffix == ".json":
            what = "is in a store" if not is_local(place) else "is no job file of yours"
            raise NotWritable(f"{what}, and --write puts strengths into one; give one")
        path = place.resolve()
        _check_rights(path)
        named = str(given) if os.path.normpath(place.absolute()) == str(path) else f"{given}, which is {path}"
        file = cls(path, named, path.read_bytes(), _own_strengths(given, job))
        decoder = load_yaml(file.text(dict.fromkeys(job.attribute_names, 1.0), comment))["decoder"]
        try:
            load_job(given, [f"decoder.strength={json.dumps(decoder['strength'])}"])
        except JobError as error:
            raise NotWritable(f"would not load with strengths in it ({_first(error)}); mend that") from error
        return file

    def text(self, strengths: Mapping[str, float], comment: Sequence[str]) -> str:
        """Its text with strengths of those of its own attributes that have one. Raises NotWritable."""
        own = {name: strengths.get(name, strength) for name, strength in self.now.items()}
        return with_strengths(self.raw.decode("utf-8-sig"), own, comment)

    def write(self, strengths: Mapping[str, float], comment: Sequence[str]) -> None:
        """Put them into it, in one step: killed at any moment, it holds all of the old or all of the new.

        Raises:
            NotWritable: somebody has changed it since. OSError: it can't be written, and is as it was.
        """
        new = (_BOM if self.raw.startswith(_BOM) else b"") + self.text(strengths, comment).encode()
        if self.path.read_bytes() != self.raw:
            raise NotWritable("was changed meanwhile; give the command again: texts that fit are kept")
        before = self.path.stat()
        write_bytes(new, self.path)
        self.path.chmod(before.st_mode & 0o7777)
        with suppress(PermissionError):  # another's file in a folder of ours
            os.chown(self.path, before.st_uid, before.st_gid)


def _check_rights(path: Path) -> None:
    if not path.is_file():
        raise NotWritable("is no file on a disk, and --write puts strengths into one; give one")
    mode = path.stat().st_mode & 0o777
    if not mode & 0o222:  # which the superuser could write nevertheless
        raise NotWritable(f"is read-only (mode {mode:04o}), and --write puts strengths into it; chmod u+w it")
    try:
        path.open("r+b").close()
    except OSError as error:
        why = error.strerror or error
        raise NotWritable(f"can't be written ({why}), and --write puts strengths into it; see to its rights") from error


def _own_strengths(given: str | Path, job: Job) -> dict[str, float]:
    """Of the file's own attributes. Raises NotWritable: strengths of the job are not for them."""
    try:
        own = load_job(given, ["decoder.strength=1"])  # whatever stands there is replaced
    except JobError as error:
        raise NotWritable(f"does not load without --set ({_first(error)}); put into it what --set gives") from error
    strangers = [name for name in job.attribute_names if name not in own.attribute_names]
    if strangers:
        text = f"{', '.join(strangers)}: by --set alone, and the file would not load with a strength of what it lacks"
        raise NotWritable(f"attributes: {text}; add it there")
    for problem in problems_in(own, LEAST_PROMPTS):
        if problem.field.startswith(("decoder", "personas")):
            raise NotWritable(f"without --set: {problem.field}: {problem.text}")
    with suppress(JobError):  # what stands there is no strength
        own = load_job(given)
    settings = decoder_settings(own)
    return {name: settings.strength_of(name) for name in own.attribute_names}


def _first(error: JobError) -> str:
    return f"{error.problems[0].field}: {error.problems[0].text}"
