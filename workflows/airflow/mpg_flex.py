"""Decoding on Dataflow, by the Flex Template of workflows/dataflow; needs `apache-airflow-providers-google`.

What a deployment settles is one JSON object, ``MPG_DATAFLOW``:

    {"template": "gs://BUCKET/templates/mpg.json", "project": "PROJECT", "location": "europe-west4",
     "parameters": {"accelerator": "type:nvidia-l4;count:1;install-nvidia-driver:5xx"},
     "environment": {"machineType": "g2-standard-4", "maxWorkers": 4, "diskSizeGb": 100}}

``parameters`` are the template's own, ``environment`` is Dataflow's RuntimeEnvironment; both are sent as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from airflow.providers.google.cloud.hooks.dataflow import DataflowHook
from airflow.providers.google.cloud.links.dataflow import DataflowJobLink
from airflow.providers.google.cloud.operators.dataflow import DataflowStartFlexTemplateOperator
from airflow.providers.google.cloud.triggers.dataflow import TemplateJobStartTrigger
from airflow.sdk.exceptions import AirflowFailException
from mpg_commands import job_name, launch_body

_REQUIRED = ("template", "project", "location")


def settings() -> dict[str, Any]:
    """What ``MPG_DATAFLOW`` says. Raises ValueError: what is wrong with it."""
    text = os.environ.get("MPG_DATAFLOW", "")
    try:
        found = json.loads(text)
    except ValueError:
        raise ValueError(f"MPG_DATAFLOW={text!r}: no JSON object; see workflows/airflow/mpg_flex.py") from None
    missing = [name for name in _REQUIRED if not isinstance(found, dict) or not found.get(name)]
    if missing:
        raise ValueError(f"MPG_DATAFLOW: {', '.join(missing)} missing; see workflows/airflow/mpg_flex.py")
    return found


def running_job(hook: DataflowHook, name: str, project: str, location: str) -> dict[str, Any] | None:
    """The job of that name that has not ended; ``None``: there is none."""
    jobs = hook.get_conn().projects().locations().jobs()
    request = jobs.list(projectId=project, location=location, filter="ACTIVE")
    while request is not None:
        page = request.execute(num_retries=hook.num_retries)
        found = next((job for job in page.get("jobs", []) if job["name"] == name), None)
        if found is not None:
            return found
        request = jobs.list_next(request, page)
    return None


class FlexStage(DataflowStartFlexTemplateOperator):
    """The template as a deferred task, under a name that is the same for every try.

    A try whose process was lost leaves its job running: the next one waits for that job, and starts none beside it.
    """

    def execute(self, context: Mapping[str, Any]) -> Any:
        """Launch it, or find it, and wait.

        Raises:
            AirflowFailException: what the template can't be asked for.
            AirflowException: the job failed; the same rows are kept, and the next try goes on.
        """
        line = context["ti"].xcom_pull(task_ids="plan")
        try:
            self.body = launch_body(line, context["params"], settings())
        except ValueError as error:
            raise AirflowFailException(str(error)) from None
        self.job = running_job(self.hook, job_name(line), self.project_id, self.location)
        if self.job is None:
            return super().execute(context)
        job_id = self.job["id"]
        self.log.info("%s runs already as %s: waiting for it", job_name(line), job_id)
        DataflowJobLink.persist(context=context, project_id=self.project_id, region=self.location, job_id=job_id)
        self.defer(
            trigger=TemplateJobStartTrigger(
                job_id=job_id,
                project_id=self.project_id,
                location=self.location,
                gcp_conn_id=self.gcp_conn_id,
                poll_sleep=self.poll_sleep,
                impersonation_chain=self.impersonation_chain,
                cancel_timeout=self.cancel_timeout,
                drain_pipeline=self.drain_pipeline,
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="execute_complete",
        )


def flex_stage() -> FlexStage:
    """The task ``decode``. Raises ValueError: see :func:`settings`."""
    found = settings()
    return FlexStage(
        task_id="decode",
        body={},  # of the run's own plan, which is known when it begins
        project_id=found["project"],
        location=found["location"],
        deferrable=True,
        append_job_name=False,
        poll_sleep=60,
    )
