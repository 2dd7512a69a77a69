"""The numbers of docs/method.md: ``python -m benchmarks.method``.

What it prints without options is enumerated on toys of three tokens, in seconds, and needs no model; ``--measured``
prints what the embedded model and two shipped adapters do, in under ten CPU minutes of one thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.method_measured import measure
from benchmarks.method_toys import report


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", action="store_true", help="the embedded model instead of the toys")
    parser.add_argument("--texts", type=int, default=40, help="prompts that every arm answers")
    parser.add_argument("--tokens", type=int, default=48, help="longest answer")
    options = parser.parse_args(arguments)
    if options.measured:
        measure(options.texts, options.tokens)
    else:
        print(report())


if __name__ == "__main__":
    main()
