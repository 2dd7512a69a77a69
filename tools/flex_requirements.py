"""The Flex Template's requirements, installed in an environment of their own as its Dockerfile installs them.

``python -m tools.flex_requirements --python python3.12`` makes ``workflows/dataflow/requirements.txt`` anew, under the
project's constraints; ``--check`` installs the file as it is. Either asks pip whether all fits together. It takes
minutes and 7 GB: torch is the build with CUDA.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "workflows" / "dataflow" / "requirements.txt"
_OWN = ("mpg-scr", "mpg_scr", "pip", "setuptools")


def install(pip: list[str], *, check: bool) -> str:
    """Install and look; returns what is there then, a requirement a line. Raises CalledProcessError: what pip says."""
    if check:
        subprocess.run([*pip, "install", "--quiet", "--requirement", str(FILE)], check=True)
        subprocess.run([*pip, "install", "--quiet", "--no-deps", str(ROOT)], check=True)
    else:
        constraints = str(ROOT / "constraints.txt")
        subprocess.run([*pip, "install", "--quiet", "--constraint", constraints, f"{ROOT}[gcp]"], check=True)
    subprocess.run([*pip, "check"], check=True)
    frozen = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout
    return "".join(f"{line}\n" for line in frozen.splitlines() if not line.lower().startswith(_OWN))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default="python3.12", help="the interpreter, of the image's version")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where the file lacks some")
    options = parser.parse_args()
    lines = FILE.read_text("utf-8").splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([options.python, "-m", "venv", folder], check=True)
        found = install([str(Path(folder) / "bin" / "python"), "-m", "pip"], check=options.check)
    if options.check:
        other = set(found.splitlines()) ^ {line.strip() for line in lines if not line.startswith("#")}
        print("\n".join(sorted(other)) or "all that is installed is in the file, and nothing else")
        return int(bool(other))
    FILE.write_text("".join(line for line in lines if line.startswith("#")) + found, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
