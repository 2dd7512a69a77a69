"""``mpg publish``: a data set on the Hugging Face Hub, in one commit."""

from __future__ import annotations

import argparse

from evaluation.tables import aligned
from pipeline.commands.arguments import readable
from pipeline.commands.shared import Outcome, look_for_detached, place_errors
from pipeline.exit_status import ExitStatus
from pipeline.publish.hub.read_back import shown
from pipeline.publish.hub.wish import Published, Wish
from pipeline.store.interval import noted_interval


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("folder", metavar="DIR", type=readable,
                        help="folder of a data set that is complete, or its URL")  # fmt: skip
    parser.add_argument("--repo-id", metavar="OWNER/NAME", help="where to: made if it is not there")
    parser.add_argument("--dry-run", action="store_true",
                        help="list the files, and what would change; nothing is made or sent")  # fmt: skip
    parser.add_argument("--private", action="store_true", help="make it private, if it is made")
    parser.add_argument("--gated", action="store_true", help="have people ask for access")
    parser.add_argument("--revision", metavar="BRANCH", help="branch (main); made if it is not there")
    parser.add_argument("--create-pr", action="store_true", help="propose it, as a pull request")
    parser.add_argument(
        "--tag", metavar="NAME", help="tag of what is published then, e.g. v1; left out: the data set's interval"
    )
    parser.add_argument("--license", metavar="NAME", help="of the data set, as the Hub names it; left out: its parts'")
    parser.add_argument("--license-name", metavar="NAME", help="of --license other")
    parser.add_argument("--license-link", metavar="LINK", help="of --license other: LICENSE beside the card, or a URL")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    parser.add_argument("--overwrite", metavar="PATH", action="append", default=[],
                        help="take this path (or pattern) though somebody else wrote it (may be repeated)")  # fmt: skip
    parser.add_argument("--local-names", action="store_true",
                        help="publish tables though their messages name folders or hosts of this machine")  # fmt: skip


def publish(options: argparse.Namespace) -> Outcome:
    """Publish a data set, or list what that would do. Raises RunError: it is not published; one line."""
    from pipeline.publish.hub.publish import publish_data_set

    with place_errors(options.folder):
        interval = noted_interval(options.folder)
    # Each interval is a revision of its own.
    tag = interval if options.tag is None and not options.create_pr else options.tag
    wish = Wish(
        options.repo_id,
        revision=options.revision,
        private=options.private,
        gated=options.gated,
        create_pr=options.create_pr,
        tag=tag,
        interval=interval,
        licence=options.license,
        licence_name=options.license_name,
        licence_link=options.license_link,
        message=options.message,
        overwrite=tuple(options.overwrite),
        local_names=options.local_names,
        dry_run=options.dry_run,
    )
    look_for_detached(options.folder, writes=False)  # where the card is written anew, it is refused there
    done = publish_data_set(options.folder, wish)
    report, facts = "\n".join(_listed(done) if options.dry_run else _said(done)), _facts(done)
    problem = None
    if done.refused is not None:
        return Outcome(report, str(done.refused), done.refused.status, facts)
    if done.problems:
        problem = f"{done.url}: published, and not what is here: {shown(list(done.problems))}; look at it there"
    return Outcome(report, problem, ExitStatus.FAILED, facts)


def _said(done: Published) -> list[str]:
    n_files = len(done.files.files)
    changes = done.changes
    assert changes is not None
    lines = [f"{done.url}"]
    if done.made:
        counts = f"{len(changes.new)} new, {len(changes.changed)} changed, {len(changes.removed)} removed"
        lines.append(f"commit {done.commit}: {counts}, {len(changes.same)} as they were")
    else:
        lines.append(f"commit {done.commit}: nothing to do, all is there as it is here")
    lines.append(f"{n_files} files: {done.sent_bytes:,} bytes sent, {done.there_bytes:,} bytes were there")
    lines += [f"tag {done.tag}"] if done.tag is not None else []
    if not done.problems:
        lines.append("read back: every file's hash and the first rows of each configuration are those of the folder")
    return [*lines, *(f"note: {note}" for note in done.notes)]


def _listed(done: Published) -> list[str]:
    rows = [[path, f"{each.contents.size:,}", *_state(done, path)] for path, each in done.files.files.items()]
    if done.changes is not None:
        rows += [[path, "", "removed"] for path in done.changes.removed]
    state = [] if done.changes is None else ["there"]
    table = aligned(["file", "bytes", *state], rows)
    where = "" if done.url is None else f" for {done.url}"
    in_all = f"{len(done.files.files)} files, {done.files.n_bytes:,} bytes{where}; a dry run: nothing is made or sent"
    tag = [] if done.tag is None or done.refused is not None else [f"its tag would be {done.tag}"]
    return [table, in_all, *tag, *(f"note: {note}" for note in done.notes)]


def _state(done: Published, path: str) -> list[str]:
    if done.changes is None:
        return []
    if path in done.changes.others:
        return ["not ours"]
    return [next(name for name in ("new", "changed", "same") if path in getattr(done.changes, name))]


def _facts(done: Published) -> dict[str, object]:
    changes = done.changes
    return {
        "url": done.url,
        "commit": done.commit,
        "made": done.made,
        "tag": done.tag,
        "files": {path: each.contents.size for path, each in done.files.files.items()},
        "changes": None
        if changes is None
        else {name: list(getattr(changes, name)) for name in ("new", "changed", "same", "removed")},
        "bytes_sent": done.sent_bytes,
        "bytes_there": done.there_bytes,
        "left_out": list(done.files.left_out),
        "notes": list(done.notes),
        "problems": list(done.problems),
        "refused": None if done.refused is None else str(done.refused),
    }
