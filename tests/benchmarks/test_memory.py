"""The measure of memory runs with the adapters that ship, whatever they wait for in a prompt."""

from __future__ import annotations

import pytest

from benchmarks.memory import Case, peak_mib


@pytest.mark.parametrize("one_each", [False, True])
def test_every_decoder_that_is_measured_decodes(one_each: bool) -> None:
    for name in ("scr-exact",) if one_each else ("scr-exact", "best-of-n"):
        peak, added = peak_mib(Case(name, 2, 2, 2, one_each=one_each))
        assert peak > 0 and added >= 0
