"""A row's own random stream: nothing in it depends on batch, worker or order."""

from __future__ import annotations

import numpy as np


class RowStream:
    """Uniforms in [0, 1) from a counter-based generator (Philox) keyed by the row's seed."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.Philox(key=seed % 2**128))

    def take(self, count: int) -> np.ndarray:
        """The next ``count`` uniforms, float64 ``[count]``."""
        return self._generator.random(count)
