"""A tag that is on a data set already: what is there is not published once more."""

from __future__ import annotations

from pipeline.job.interval import is_interval
from pipeline.publish.hub.client import HubClient, Refs
from pipeline.publish.hub.compare import RECORD_FILE, Changes, Contents, compare, read_record
from pipeline.publish.hub.files import DataSetFiles
from pipeline.publish.hub.wish import Wish
from pipeline.store.dataset import CARD_FILE, FIGURES, RUN_FILE

_OF_THE_RUN = {CARD_FILE, RUN_FILE, RECORD_FILE}  # that differ where a run was given again
SAME_TABLES = (
    "tag {tag} is on these very tables: nothing to do; card and record there stay (another --tag brings these)"
)


def compared(client: HubClient, commit: str, files: DataSetFiles, wish: Wish) -> Changes:
    """What a commit on top of this one would do. Raises PublishError."""
    there = client.files(commit)
    record: dict[str, Contents] | None = None
    if RECORD_FILE in there:
        record = read_record(client.read(RECORD_FILE, commit))
    return compare(files.contents, there, record, wish.overwrite)


def tagged(client: HubClient, refs: Refs, files: DataSetFiles, wish: Wish) -> tuple[str, Changes] | None:
    """The commit that the wished tag is on, and what differs there, if it has these very tables; else ``None``.

    Under an interval's tag, what a run that was given again writes of itself (how long it took, what it found there)
    is no other data set.
    """
    commit = None if wish.tag is None or wish.create_pr else refs.tags.get(wish.tag)
    if commit is None:
        return None
    changes = compared(client, commit, files, wish)
    others = {*changes.new, *changes.changed, *changes.removed}
    if is_interval(str(wish.tag)):
        others = {path for path in others - _OF_THE_RUN if not path.startswith(f"{FIGURES}/")}
    return None if others else (commit, changes)
