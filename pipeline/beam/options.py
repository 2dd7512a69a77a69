"""Beam's own options, and how many worker processes they mean."""

from __future__ import annotations

import os
from collections.abc import Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

DIRECT = "DirectRunner"


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's own options.

    ``--allow_unsafe_triggers`` keeps the DirectRunner from looking for the Prism binary, which it
    would download; nothing here uses a trigger.
    """
    flags = list(arguments)
    if not any(flag.startswith("--runner") for flag in flags):
        flags.append("--runner=DirectRunner")
    if not any(flag.startswith("--allow_unsafe_triggers") for flag in flags):
        flags.append("--allow_unsafe_triggers")
    return PipelineOptions(flags)


def runner_path(asked: str) -> str:
    """A runner's class by its dotted path, as Beam finds it: in any case, with ``Runner`` at its end or without.

    A name that Beam does not know is its own path.
    """
    paths = {path.rpartition(".")[2].lower(): path for path in StandardOptions.ALL_KNOWN_RUNNERS}
    word = asked.lower()
    return paths.get(word, paths.get(f"{word}runner", asked))


def in_processes(options: PipelineOptions) -> bool:
    """Whether the DirectRunner is to start worker processes."""
    direct = runner_path(options.view_as(StandardOptions).runner or DIRECT).rpartition(".")[2] == DIRECT
    return direct and options.view_as(DirectOptions).direct_running_mode == "multi_processing"


def n_workers(options: PipelineOptions) -> int:
    """Worker processes that share this machine (1 unless DirectRunner runs several)."""
    if not in_processes(options):
        return 1
    asked = options.view_as(DirectOptions).direct_num_workers  # 0: as many as there are cores
    return int(asked or os.cpu_count() or 1)
