"""Waiting for a graph whose service is gone: one error, and nothing from the thread that listened to it."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import pytest

from pipeline.beam.wait import ServiceGone, run_to_end


class Gone(grpc.RpcError):
    """What a channel to a service that is gone raises."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "connection refused"


class Service:
    """A pipeline and its result: who listens to it ends a moment later than who waits for it."""

    def run(self) -> Service:
        return self

    def wait_until_finish(self) -> Any:
        def listen() -> None:
            time.sleep(0.2)
            raise Gone

        threading.Thread(target=listen, name="wait_until_finish_read", daemon=True).start()
        raise Gone


def test_a_listener_that_ends_late_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    service: Any = Service()
    with pytest.raises(ServiceGone, match=r"the job service is gone \(unavailable: connection refused\)"):
        run_to_end(service)
    time.sleep(0.4)
    assert said == []
