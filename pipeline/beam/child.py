"""The process that a graph with worker processes runs in, see :mod:`pipeline.beam.supervise`; work comes by stdin."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time


def end_with_parent(parent: int) -> None:
    """End this process and all of its session once the one that started it is gone: no worker outlives its run."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Read the work, run it."""
    end_with_parent(int(sys.argv[1]))
    from pipeline.quiet import quiet_libraries

    quiet_libraries()
    from pipeline.beam.execute import execute
    from pipeline.beam.options import beam_options
    from pipeline.beam.worker_logs import log_as_graph_process

    log_as_graph_process()

    graph, arguments = pickle.load(sys.stdin.buffer)
    execute(graph, beam_options(arguments))


if __name__ == "__main__":
    main()
