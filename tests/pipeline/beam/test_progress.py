"""One line a stage, with rows, speed and time left, from ticks that other threads and processes leave."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pipeline.beam.progress import ProgressBar, Ticker, ticks


def test_each_stage_has_its_line_with_the_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(tmp_path, [("decode", "decoding", 4), ("nothing", "idle", 0), ("judge", "judging", 2)]):
        tickers = [Ticker(tmp_path / "decode")]
        other = threading.Thread(target=lambda: tickers.append(Ticker(tmp_path / "decode")))
        other.start()
        other.join()
        for ticker in tickers * 2:
            ticker.tick()
        assert ticks(tmp_path / "decode") == 4
        time.sleep(1.2)  # the driver looks twice a second
        judge = Ticker(tmp_path / "judge")
        judge.tick()
        judge.tick()
        time.sleep(1.2)
    said = capsys.readouterr().err
    assert "decoding: 100%" in said and "4/4 rows" in said and "judging: 100%" in said and "2/2 rows" in said
    assert "row/s" in said and "gone" in said and "left" in said and "idle" not in said
    assert said.index("decoding: 100%") < said.index("judging: 100%")


def test_ticks_are_counted_while_their_files_vanish(tmp_path: Path) -> None:
    assert ticks(tmp_path / "none") == 0
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    (tmp_path / "one").write_bytes(b"..")
    assert ticks(tmp_path) == 2
