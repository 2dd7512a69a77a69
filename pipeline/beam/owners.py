"""Which of Beam's options have an effect on which runner, and those with which no job of this kind can be run."""

from __future__ import annotations

from pipeline.beam.runners import DIRECT

_PORTABLE = ("PortableRunner", "FlinkRunner", "SparkRunner")
_DATAFLOW = ("DataflowRunner",)
# A job service is told of its runner's options by a PortableRunner too.
_OF_CLASS: dict[str, tuple[str, ...]] = {
    "DirectOptions": (DIRECT,),
    "PortableOptions": _PORTABLE,
    "JobServerOptions": ("FlinkRunner", "SparkRunner"),
    "FlinkRunnerOptions": ("FlinkRunner", "PortableRunner"),
    "SparkRunnerOptions": ("SparkRunner", "PortableRunner"),
    "PrismRunnerOptions": (),
    "KafkaStreamsRunnerOptions": (),
    "TestOptions": (),
    "TestDataflowOptions": (),
    "WorkerOptions": _DATAFLOW,
    "GoogleCloudOptions": _DATAFLOW,
}
# Of those classes: what Beam's workers and its storage read whatever the runner.
_OF_ALL = {
    "default_sdk_harness_log_level",
    "element_processing_timeout_minutes",
    "enable_bucket_read_metric_counter",
    "enable_bucket_write_metric_counter",
    "gcp_oauth_scopes",
    "gcs_custom_audit_entries",
    "impersonate_service_account",
    "job_name",
    "max_cache_memory_usage_mb",
    "no_auth",
    "project",
    "sdk_harness_log_level_overrides",
    "temp_location",
}
# Of workers that are started elsewhere: their packages and machines.
_ELSEWHERE = {
    "extra_packages",
    "files_to_stage",
    "requirements_cache",
    "requirements_file",
    "resource_hints",
    "sdk_location",
    "setup_file",
}
# With these, nothing is run, or not what was asked for.
UNFIT = {
    "--direct_runner_bundle_repeat": "makes everything more than once",
    "--direct_test_splits": "for tests of Beam",
    "--dry_run": "runs nothing",
    "--no_wait_until_finish": "a run waits for its data set, with --detach it does not",
    "--output_executable_path": "makes an executable and runs nothing",
    "--streaming": "this job is a batch, which ends",
    "--template_location": "makes a template and runs nothing",
    "--update": "a batch job can't be replaced while it runs",
}


def owners(of_class: str, dest: str) -> tuple[str, ...] | None:
    """Names of the runners that an option has an effect on; ``None``: on every one.

    Args:
        of_class: name of its class of options. dest: its name there.
    """
    if dest in _OF_ALL:
        return None
    if dest in _ELSEWHERE:
        return (*_PORTABLE, *_DATAFLOW)
    return _OF_CLASS.get(of_class)
