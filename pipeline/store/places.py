"""Places as people write them."""

from __future__ import annotations

import os
import re
from pathlib import Path


def expanded(place: str | Path) -> Path:
    """The place with a leading ``~`` or ``~name`` as that home folder; one of nobody known stays as it is."""
    return Path(os.path.expanduser(place))


def is_url(place: str) -> bool:
    """Whether it is written as a URL is (``s3://bucket/x``): as a path it would be a folder named ``s3:`` here."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", place) is not None
