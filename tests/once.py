"""What a run in this process waits for or works out again and again, though no test is about it: once a process here.

Tests start hundreds of small runs in one process. Of each, about a third was the disk's flushes, Beam's look at the
same classes, its parsers of the same options, and the same pictures for the card. All are left as they are in the
processes that tests start.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import os
import types
from collections.abc import Callable
from typing import Any


def unflushed() -> None:
    """``os.fsync`` waits for no disk: tests may kill a process, but none cuts the power. It checks its descriptor."""

    def fsync(descriptor: Any) -> None:
        os.fstat(descriptor if isinstance(descriptor, int) else descriptor.fileno())

    os.fsync = fsync


def signatures_of_methods() -> None:
    """Beam reads the signatures of all methods of a DoFn some two hundred times a run: a method's is its function's."""
    from apache_beam.transforms import core

    look, found = core.get_signature, {}

    def get_signature(func: Any) -> inspect.Signature:
        if not isinstance(func, types.MethodType):
            return look(func)
        if func.__func__ not in found:
            found[func.__func__] = look(func)
        return found[func.__func__]

    core.get_signature = get_signature


def options_of_classes() -> None:
    """Beam makes an argparse parser at each look at an option: each asked what its headings are in the user's language,
    and for each argument how wide the terminal is."""
    from apache_beam.options import pipeline_options

    argparse._ = functools.cache(argparse._)
    pipeline_options._BeamArgumentParser._get_formatter = lambda self: self.formatter_class(prog=self.prog, width=100)


def pictures_of_specifications() -> None:
    """A picture depends on its specification alone, which ``report/test_figures.py`` holds of the function itself."""
    import vl_convert

    draw: Callable[..., bytes] = vl_convert.vegalite_to_png
    kept: dict[str, bytes] = {}

    @functools.wraps(draw)
    def vegalite_to_png(specification: Any, **more: Any) -> bytes:
        key = json.dumps([specification, more], sort_keys=True)
        if key not in kept:
            kept[key] = draw(specification, **more)
        return kept[key]

    vl_convert.vegalite_to_png = vegalite_to_png
