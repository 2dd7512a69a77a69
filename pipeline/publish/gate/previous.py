"""The last revision: a folder, or what a repository of the Hub has at a revision, or before an interval."""

from __future__ import annotations

from pathlib import Path

from pipeline.job.interval import before
from pipeline.publish.hub.checks import check_endpoint, check_repo_id
from pipeline.publish.hub.client import HubClient, token_here
from pipeline.publish.hub.errors import NotThere, PublishError, TokenRefused
from pipeline.publish.hub.patience import Patience
from pipeline.store.files import exists
from pipeline.store.places import expanded, is_url

NONE = "none"
LAST = "previous"  # as a revision: the newest interval's before this one's


def previous_of(text: str, interval: str | None) -> tuple[Path | None, str]:
    """Where the last revision is; ``None``: there is none; and that in words.

    Args:
        text: a folder or a URL; ``OWNER/NAME@REVISION``; ``OWNER/NAME@previous``; ``none``.
        interval: of the data set that is to follow it.

    Raises:
        PublishError: no such thing, or the Hub can't be asked.
    """
    if not text.strip():
        raise PublishError(f"--against: is empty; give a folder, OWNER/NAME@REVISION of the Hub, or {NONE}")
    if text == NONE:
        return None, "none is given"
    if is_url(text) or exists(expanded(text)):
        try:
            return expanded(text), text
        except ValueError as error:
            raise PublishError(f"--against {error}") from error
    repo_id, at, revision = text.partition("@")
    if not at or not revision or text.startswith((".", "/", "~")):
        raise PublishError(
            f"--against {text}: no such folder; give one, OWNER/NAME@REVISION of the Hub (@{LAST}: the interval before "
            f"this one), or {NONE}"
        )
    check_endpoint()
    check_repo_id(repo_id, "--against")
    client = HubClient(repo_id, token_here(), Patience(again="give the same command again"))
    if revision == LAST and not _is_seen(client, text):
        return None, f"{repo_id} is not on the Hub, or not for this token"
    refs = client.refs()
    if revision == LAST:
        newest = before(refs.tags, interval)
        if newest is None:
            return None, f"{repo_id} has no tag of an interval{'' if interval is None else f' before {interval}'}"
        revision = newest
    commit = refs.tags.get(revision) or refs.branches.get(revision) or client.head(revision)
    return expanded(f"hf://datasets/{repo_id}@{commit}"), f"{repo_id}@{revision}"


def _is_seen(client: HubClient, text: str) -> bool:
    """Whether the repository is there; it is not where its owner's own token sees none.

    Raises:
        PublishError: it may be there, and not for this token: that is no first publication.
    """
    owner = client.repo_id.partition("/")[0]
    try:
        client.look()
        return True
    except NotThere as error:
        if client.token is None:
            why = "the Hub shows none to one without a token"
        elif error.unknown_caller:
            why = "the Hub does not take the token"
        elif owner.lower() in client.owners():
            return False
        else:
            why = f"the Hub shows none to this token, which is not of {owner}"
    except TokenRefused:
        why = "the Hub does not take the token"
    raise PublishError(
        f"--against {text}: {why}; give --against {NONE} for the first publication, or in HF_TOKEN one that may read it"
    )
