"""A corpus every week: plan, decode, judge, report, gate, publish, each a task that can be tried again by itself.

Put this folder's files into Airflow's folder of DAGs; docs/deploy.md has the way from nothing to a run. What a
deployment settles comes from the environment of Airflow's processes, and what a person may want otherwise of a single
run is a parameter of the DAG:

    MPG_JOB         job file, as `mpg run` takes it (workflows/weekly.yaml); relative to MPG_FOLDER
    MPG_FOLDER      folder of relative places, on every worker
    MPG_COMMAND     how `mpg` is started there (mpg)
    MPG_REPO_ID     OWNER/NAME on the Hub; none: nothing is published, and the gate has absolute thresholds alone
    MPG_SCHEDULE    cron expression, UTC (0 0 * * 1: Mondays). At midnight, intervals and tags are dates
    MPG_RUNNER      where texts are decoded: local, on a worker; or dataflow, by the Flex Template (mpg_flex.py)
    MPG_GPUS        slots of the pool mpg_gpu that decoding takes (1)
    MPG_HOURS       after so many hours from its beginning a run is late (24); 0: never
    MPG_RETRIES, MPG_RETRY_DELAY_S          tries after the first (5), and seconds before the first of them (300)

A run is of a data interval, whose start goes into seed, names and tag: backfilled, or tried again, it writes the same
rows, and publishes nothing twice.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import (
    DAG,
    Asset,
    CronDataIntervalTimetable,
    DeadlineAlert,
    DeadlineReference,
    Param,
    SyncCallback,
    task,
)
from mpg_alerts import failed, late, send
from mpg_commands import INTERVAL
from mpg_stage import Stage

DATA_SET = Asset("mpg_corpus_data_set")  # judged, and through the gate
REVISION = Asset("mpg_corpus_revision")  # on the Hub
GPU_POOL = "mpg_gpu"

_NAME = ["null", "string"]
PARAMS = {
    "job": Param(os.environ.get("MPG_JOB", "workflows/weekly.yaml"), "job file: a path, or gs://, s3://", type="string",
                 minLength=1),
    "set": Param([], "fields changed for this run, FIELD=VALUE each", type="array",
                 items={"type": "string", "pattern": "^[a-z][^=]*=.*$"}),
    "interval": Param(None, "start of the interval, in place of the run's own: 2026-11-23, or 2026-11-23T06:00+01:00",
                      type=_NAME, pattern=INTERVAL),
    "repo_id": Param(os.environ.get("MPG_REPO_ID"), "where on the Hub; empty: judged, and not published", type=_NAME,
                     pattern="^[\\w.-]+/[\\w.-]+$"),
    "private": Param(True, "make the repository private, if it is made", type="boolean"),
    "branch": Param(None, "of the repository; empty: main", type=_NAME, minLength=1),
    "against": Param(None, "what the gate compares with: a folder, or OWNER/NAME@REVISION; empty: the interval before "
                     "in repo_id, and without that absolute thresholds alone", type=_NAME, minLength=1),
    "budget": Param(None, "most that devices and judges may cost, in the job's currency", type=["null", "number"],
                    exclusiveMinimum=0),
    "max_acceptance_drop": Param(0.1, "by how much drafts may be accepted less than in the run before, until somebody "
                                 "is told", type="number", minimum=0, maximum=1),
}  # fmt: skip


def _deadline() -> DeadlineAlert | None:
    """Somebody is told of a run that is late, which goes on."""
    within = timedelta(hours=float(os.environ.get("MPG_HOURS", "24")))
    if not within:
        return None
    told = SyncCallback(late, kwargs={"within": str(within)})
    return DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, within, told, name="late")


@task
def watch(judged: dict[str, Any], **context: Any) -> float | None:
    """Tell somebody if drafts are accepted less than in the run before. Stops nothing: the texts' law is the same."""
    now = judged.get("acceptance")
    before = context["ti"].xcom_pull(task_ids="watch", include_prior_dates=True)
    if now is not None and before is not None and before - now > context["params"]["max_acceptance_drop"]:
        text = f"{judged['output']}: {now:.2f} of the drafts were accepted, and {before:.2f} in the run before"
        send(text, kind="acceptance", now=now, before=before, interval=judged["interval"])
    return now


def decode_and_judge() -> list[Any]:
    """Two tasks, `decode` and `judge`, and where their work is done."""
    runner = os.environ.get("MPG_RUNNER", "local")
    if runner == "dataflow":
        from mpg_flex import flex_stage

        return [flex_stage(), Stage(stage="finish")]
    if runner != "local":
        raise ValueError(f"MPG_RUNNER={runner}: choose from local, dataflow")
    gpus = int(os.environ.get("MPG_GPUS", "1"))
    return [Stage(stage="decode", pool=GPU_POOL, pool_slots=gpus), Stage(stage="judge")]


with DAG(
    "mpg_corpus",
    description="A judged corpus of each data interval, on the Hub",
    schedule=CronDataIntervalTimetable(os.environ.get("MPG_SCHEDULE", "0 0 * * 1"), timezone="UTC"),
    start_date=datetime(2026, 1, 5, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # each is compared with the one before it
    params=PARAMS,
    deadline=_deadline(),
    default_args={
        "retries": int(os.environ.get("MPG_RETRIES", "5")),
        "retry_delay": timedelta(seconds=float(os.environ.get("MPG_RETRY_DELAY_S", "300"))),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(hours=1),
        "on_failure_callback": failed,
    },
    tags=["mpg"],
):
    plan, report = Stage(stage="plan"), Stage(stage="report")
    decode, judge = decode_and_judge()
    gate = Stage(stage="gate", outlets=[DATA_SET])
    publish = Stage(stage="publish", needs="repo_id", outlets=[REVISION])
    plan >> decode >> judge >> [report, gate] >> publish
    watch(judge.output)
