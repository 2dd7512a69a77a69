"""A data set's card, written again while nobody else works there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.beam.at_work import refuse
from pipeline.publish.card import CARD_FILE
from pipeline.publish.data_set import refresh_card
from pipeline.store.dataset import WORK_FOLDER
from pipeline.store.exchange import GATHERING, finish_exchange
from pipeline.store.files import make_folder
from pipeline.store.lock import FolderLock


def rewrite_card(folder: Path, changes: Mapping[str, Any] = MappingProxyType({})) -> Path:
    """Write a data set's card again; nothing else of it changes but what is said here.

    Args:
        folder: of the data set. changes: to its record, ``run.json``.

    Returns:
        the card; where job or record can't be read, as it was, after a warning.

    Raises:
        RunError: a detached job is at work there.
        FolderInUse: a run or a judge works there. OSError: a folder that can't be written; what is there stays.
    """
    work = folder / WORK_FOLDER
    make_folder(work)
    with FolderLock(work), FolderLock(work, wait=True, name=GATHERING):
        refuse(folder)
        finish_exchange(folder)
        refresh_card(folder, changes)
    return folder / CARD_FILE
