"""Runners by name: which class of Beam's a word means, where its workers are, and which are refused and why.

Which runner runs is never left to Beam: its ``DirectRunner`` is a switch that may choose Prism, a program that it
fetches from the network, so the word means ``FnApiRunner`` here, the one that the switch takes for batch jobs else.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from enum import Enum
from typing import Any

from apache_beam.options.pipeline_options import StandardOptions
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.runner import PipelineRunner

from pipeline.job.errors import did_you_mean

DIRECT = "DirectRunner"
IN_PROCESS = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
# Runners that are known to keep every row of this graph.
KNOWN = (DIRECT, "FlinkRunner", "SparkRunner", "PortableRunner", "DataflowRunner")
# Why some others are not among them.
_REFUSED = {
    "PrismRunner": "fetches a program from the network and runs it",
    "DaskRunner": "loses rows without a word",
    "SwitchingDirectRunner": "may choose Prism, which fetches a program from the network and runs it",
}


class Workers(Enum):
    """Where a runner's workers are."""

    HERE = "in this process, or in others on this machine"
    PORTABLE = "wherever a job service of Beam's has them: Flink's, Spark's, the local one"
    DATAFLOW = "on Google's machines"
    UNKNOWN = "known to a runner of somebody else's"


@dataclass(frozen=True)
class Runner:
    """A runner as it was asked for.

    Attributes:
        name: of its class. path: of its class, as Beam is told.
    """

    asked: str
    name: str
    path: str
    workers: Workers


def runner_path(asked: str) -> str:
    """A runner's class by its dotted path, as Beam finds it: in any case, with ``Runner`` at its end or without.

    The :data:`DIRECT` one, by whichever of Beam's modules, is :data:`IN_PROCESS`. A name that Beam does not know is its
    own path.
    """
    paths = {path.rpartition(".")[2].lower(): path for path in StandardOptions.ALL_KNOWN_RUNNERS}
    word = asked.lower()
    path = paths.get(word, paths.get(f"{word}runner", asked))
    module, _, name = path.rpartition(".")
    return IN_PROCESS if name in (DIRECT, "FnApiRunner") and module.split(".")[0] == "apache_beam" else path


def workers_of(path: str) -> Workers:
    """Where the workers of a runner by its class's path are; its module is imported."""
    if path == IN_PROCESS:
        return Workers.HERE
    if path.rpartition(".")[2] == "DataflowRunner":
        return Workers.DATAFLOW
    found = getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2])
    return Workers.PORTABLE if issubclass(found, PortableRunner) else Workers.UNKNOWN


def runner_of(asked: str) -> Runner:
    """The runner that a word means; its module is imported, so that its options are known.

    Raises:
        ValueError: one line: it can't be used, and why.
    """
    path = runner_path(asked)
    module, _, name = path.rpartition(".")
    known = {each.rpartition(".")[2] for each in StandardOptions.ALL_KNOWN_RUNNERS}
    choose, option = f"choose from {', '.join(KNOWN)}", f"--runner={asked}"
    for each, why in _REFUSED.items():
        if name.lower() in (each.lower(), each.lower().removesuffix("runner")):
            raise ValueError(f"{option}: {each} {why}; {choose}")
    if path == IN_PROCESS:
        return Runner(asked, DIRECT, path, Workers.HERE)
    if name in known and name not in KNOWN:
        raise ValueError(f"{option}: {name} is not known to work here; {choose}")
    if not module:
        raise ValueError(f"{option}: no such runner; {did_you_mean(asked, KNOWN)}")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module of somebody else's, at its import
        what = f"can't be imported ({type(error).__name__}: {' '.join(str(error).split())})"
        raise ValueError(f"{option}: {what}; {choose}, or install what it needs") from error
    is_runner = isinstance(found, type) and issubclass(found, PipelineRunner) and found is not PipelineRunner
    if not is_runner or inspect.isabstract(found):
        raise ValueError(f"{option}: is no runner of Beam's; {choose}")
    for base in inspect.getmro(found):  # another name of one that is refused, or a class made of it
        if base.__name__ in _REFUSED:
            raise ValueError(f"{option}: {base.__name__} {_REFUSED[base.__name__]}; {choose}")
    return Runner(asked, name, path, workers_of(path))


def in_process_runner(options: Any) -> PipelineRunner:
    """The runner of :data:`IN_PROCESS`, its worker processes told of Beam's options as the switch tells them."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner import fn_runner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(provision))
