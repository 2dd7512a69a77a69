"""A row's own random streams: nothing in them depends on batch, worker or order."""

from __future__ import annotations

import hashlib

import numpy as np


class RowStream:
    """Uniforms in [0, 1) from a counter-based generator (Philox) keyed by the row's seed.

    Args:
        seed: of the row.
        stream: independent streams of one seed; the upper word of the generator's counter.
    """

    def __init__(self, seed: int, *, stream: int = 0) -> None:
        self._generator = np.random.Generator(np.random.Philox(key=seed % 2**128, counter=[0, 0, 0, stream]))

    def take(self, count: int) -> np.ndarray:
        """The next ``count`` uniforms, float64 ``[count]``."""
        return self._generator.random(count)


def derived_seed(seed: int, *path: int) -> int:
    """A seed of its own for every place ``path`` below a seed, in [0, 2^63)."""
    digest = hashlib.sha256(repr((seed, *path)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
