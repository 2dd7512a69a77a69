"""The picture of a report in docs/: `python -m tools.report_picture DIR [--output docs/report.png]`, by Chromium."""

from __future__ import annotations

import argparse
import base64
import tempfile
from pathlib import Path

from pipeline.cli import main as mpg
from tests.browser import chromium, missing

# The window, in pixels of the page: what stands above its lower edge is in the picture.
WIDTH, HEIGHT = 1200, 1690


def main() -> None:
    """Write a report into a temporary folder, open it, take its picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_set", metavar="DIR", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/report.png"))
    options = parser.parse_args()
    why = missing()
    if why is not None:
        parser.error(why)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        if mpg(["report", str(options.data_set), "--output", str(file)]):
            parser.error(f"no report could be made of {options.data_set}")
        with chromium(Path(folder) / "profile") as page:
            page.look(width=WIDTH, height=HEIGHT)
            page.open(file)
            shot = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    options.output.write_bytes(base64.b64decode(shot["data"]))
    print(f"{options.output}: {options.output.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
