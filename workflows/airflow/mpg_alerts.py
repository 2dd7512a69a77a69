"""Who is told when a run fails, is late, or accepts less than the last one did.

An alert is a line in the log, at level ERROR, and where Airflow has a connection ``mpg_alerts``, a POST of
``{"text": ..., ...}`` to its password, which is the whole address of a webhook (as Slack's and Mattermost's, that
are secrets). An alert that can't be sent is said in the log and fails nothing.
"""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Mapping
from typing import Any

CONNECTION = "mpg_alerts"
_LONGEST_S = 10.0

logger = logging.getLogger(__name__)


def send(text: str, **facts: Any) -> None:
    """Say it to whoever is to know; ``facts`` go beside it, for programs."""
    logger.error("ALERT: %s", text)
    address = _address()
    if address is None:
        return
    body = json.dumps({"text": text, **facts}, default=str).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")
    try:
        urllib.request.urlopen(request, timeout=_LONGEST_S).close()
    except (OSError, ValueError) as error:  # without the address, which is a secret
        logger.error("the alert was not sent: %s", type(error).__name__)


def _address() -> str | None:
    from airflow.sdk import BaseHook

    try:
        return BaseHook.get_connection(CONNECTION).password
    except Exception:  # whatever a secrets backend says of a connection that is not there
        logger.info("no connection %s: alerts are in this log alone", CONNECTION)
        return None


def failed(context: Mapping[str, Any]) -> None:
    """Of a task that will not be tried again (``on_failure_callback``)."""
    ti, error = context["ti"], context.get("exception")
    text = f"{ti.dag_id} {ti.run_id}: {ti.task_id} failed: {error}"
    send(text, kind="failed", dag=ti.dag_id, run=ti.run_id, task=ti.task_id, tries=ti.try_number)


def late(context: Mapping[str, Any], *, within: str) -> None:
    """Of a run that is not done in time (the callback of a deadline)."""
    run = context.get("dag_run") or {}
    name, run_id = (run.get("dag_id"), run.get("dag_run_id")) if isinstance(run, Mapping) else (None, str(run))
    send(f"{name} {run_id}: not done within {within}; it goes on", kind="late", dag=name, run=run_id)
