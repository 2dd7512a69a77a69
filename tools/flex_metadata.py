"""Write ``workflows/dataflow/metadata.json``, the Flex Template's parameters, from the job's schema and Beam's options.

``python -m tools.flex_metadata`` writes it, ``--check`` says whether it is as it would be written (exit status 1).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pipeline.commands.flex_template import metadata

FILE = Path(__file__).resolve().parents[1] / "workflows" / "dataflow" / "metadata.json"


def text() -> str:
    """What the file has to be."""
    return json.dumps(metadata(), indent=2) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where the file is another")
    if not parser.parse_args().check:
        FILE.write_text(text(), "utf-8")
    elif FILE.read_text("utf-8") != text():
        print(f"{FILE} is not what the schema gives; python -m tools.flex_metadata writes it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
