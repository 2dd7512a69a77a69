"""Places as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(place: str | Path) -> Path:
    """The place with a leading ``~`` or ``~name`` as that home folder; one of nobody known stays as it is."""
    return Path(os.path.expanduser(place))
