"""What the Flex Template's launcher starts (``FLEX_TEMPLATE_PYTHON_PY_FILE``): its parameters as ``mpg run --detach``.

Nothing that a worker unpickles may be defined in this file, which is ``__main__``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipeline.cli import main
from pipeline.commands.flex_launch import command_line
from pipeline.commands.shared import InputError


def launch(arguments: Sequence[str]) -> int:
    """Write the job's specification; returns the exit status, of which any but 0 fails the launch."""
    try:
        words = command_line(arguments)
    except InputError as error:
        print("\n".join(f"launch: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return int(error.status)
    return main(words)


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
