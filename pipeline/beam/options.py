"""Beam's own options, and how many worker processes they mean."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.transforms.resources import parse_resource_hints

from pipeline.beam.runners import DIRECT, IN_PROCESS, runner_path

# Beam ends what it reads of a job service after `--job_server_timeout`, 300 s, and with it the run: a year is no limit.
NO_TIMEOUT_S = 365 * 24 * 3600


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's own options, the runner by its class's path."""
    options = PipelineOptions(list(arguments))
    standard = options.view_as(StandardOptions)
    standard.runner = runner_path(standard.runner or DIRECT)
    return options


def in_processes(options: PipelineOptions) -> bool:
    """Whether worker processes are to be started on this machine."""
    direct = options.view_as(StandardOptions).runner == IN_PROCESS
    return direct and options.view_as(DirectOptions).direct_running_mode == "multi_processing"


def n_workers(options: PipelineOptions) -> int:
    """Worker processes that share this machine (1 unless several are asked for)."""
    if not in_processes(options):
        return 1
    asked = options.view_as(DirectOptions).direct_num_workers  # 0: as many as there are cores
    return int(asked or os.cpu_count() or 1)


def are_elsewhere(options: PipelineOptions) -> bool:
    """Whether workers are not of this machine, or need not be."""
    return options.view_as(StandardOptions).runner != IN_PROCESS


def n_devices(options: PipelineOptions) -> int:
    """Devices that are paid for, as far as options say how many; else 1."""
    return devices_named(options) or 1


def devices_named(options: PipelineOptions) -> int | None:
    """Devices of a run: of workers on this machine one each; ``None``: of workers elsewhere options do not say.

    Elsewhere they are Dataflow's workers (the most that it may start), or Flink's parallelism, each with as many
    devices as a hint asks for (``accelerator=type:T;count:N``).
    """
    if options.view_as(StandardOptions).runner == IN_PROCESS:
        return n_workers(options)
    google, flink = options.view_as(WorkerOptions), options.view_as(FlinkRunnerOptions)
    n = max(google.max_num_workers or google.num_workers or 0, flink.parallelism or 0)
    each = re.search(r"(?:^|;)count:(\d+)", hints_of(options).get("accelerator", ""))
    return n * max(1, int(each[1]) if each else 1) if n > 0 else None


def cost_note(arguments: Sequence[str]) -> str | None:
    """A line where nobody can say how many devices a run with these options pays for, in which nothing is wrong."""
    if devices_named(beam_options(arguments)) is not None:
        return None
    name = "--parallelism (Flink's), --num_workers or --max_num_workers (Dataflow's)"
    return f"device_price: no option says how many workers there are: cost and budget count one device ({name} would)"


def hints_of(options: PipelineOptions) -> dict[str, str]:
    """Beam's ``--resource_hint``, by name.

    Raises:
        ValueError: a hint that Beam does not know, or a value of none's form.
    """
    given = options.view_as(StandardOptions).resource_hints
    hints = dict(given) if isinstance(given, Mapping) else dict(each.partition("=")[::2] for each in given)
    for name, value in hints.items():
        if not value:
            raise ValueError(f"Resource hint {name} has no value.")
    parse_resource_hints(hints)
    return hints


def take_hints(options: PipelineOptions) -> dict[str, str]:
    """The resource hints, taken out of the options, where Beam would put them on every step."""
    hints = hints_of(options)
    options.view_as(StandardOptions).resource_hints = []
    return hints


def without_timeout(options: PipelineOptions) -> None:
    """Let a job last as long as it does, whatever the job service's requests may take."""
    options.view_as(PortableOptions).job_server_timeout = NO_TIMEOUT_S
