#!/usr/bin/env bash
# One interval of a corpus, for a timer, cron or a person: plan, decode, judge, report, gate, publish.
#
#   mpg-corpus.sh SETTINGS [INTERVAL]
#
# SETTINGS is a file of shell assignments, as corpus.env beside this one. INTERVAL is a date; left out, it is the start
# of the last whole day, week or month (MPG_PERIOD), in UTC, as a scheduler's data interval is. Ends with the exit status
# of the stage that did not succeed (docs/operations.md); called again, it goes on, and does nothing twice.
set -euo pipefail

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: mpg-corpus.sh SETTINGS [INTERVAL]" >&2
  exit 2
fi
set -a # what is set there is mpg's environment, too: HF_TOKEN, MPG_LOG, ...
# shellcheck source=/dev/null
. "$1"
set +a
: "${MPG_JOB:?the job file; set it in $1}" "${MPG_FOLDER:=$PWD}" "${MPG_COMMAND:=mpg}" "${MPG_REPO_ID:=}"
: "${MPG_PERIOD:=week}" "${MPG_TRIES:=5}" "${MPG_PAUSE_S:=600}" "${MPG_AGAINST:=}" "${MPG_ALERT:=}" "${MPG_PRIVATE:=yes}"
export MPG_LOG="${MPG_LOG:-text}"
TRY_AGAIN=75 # pipeline/exit_status.py

start_of_interval() {
  case "$MPG_PERIOD" in
    day) date -u -d yesterday +%F ;;
    week) date -u -d "-$(($(date -u +%u) + 6)) days" +%F ;;
    month) date -u -d "$(date -u +%Y-%m-01) -1 month" +%F ;;
    *) echo "MPG_PERIOD=$MPG_PERIOD: choose from day, week, month" >&2 && return 2 ;;
  esac
}

stage=start
ended() {
  local status=$?
  if [ "$status" -ne 0 ]; then
    local text="corpus of $MPG_JOB, interval ${interval:-not known}: $stage ended with exit status $status"
    echo "$text" >&2
    if [ -n "$MPG_ALERT" ]; then $MPG_ALERT "$text" || echo "the alert was not sent" >&2; fi
  fi
}
trap ended EXIT

# A stage; tried again while it says that this may help. What it says last, as JSON, is kept for the next.
said=""
mpg_stage() {
  stage="$1 ${*: -1}" && stage="${stage% --json}"
  local status try
  for ((try = 1; ; try++)); do
    status=0
    said="$($MPG_COMMAND "$@" --interval "$interval" --json)" || status=$?
    said="${said##*$'\n'}"
    echo "$said"
    if [ "$status" -ne "$TRY_AGAIN" ] || [ "$try" -ge "$MPG_TRIES" ]; then return "$status"; fi
    echo "$1: exit status $TRY_AGAIN, try $try of $MPG_TRIES; again in $MPG_PAUSE_S s" >&2
    sleep "$MPG_PAUSE_S"
  done
}

interval="${2:-$(start_of_interval)}"
cd "$MPG_FOLDER"
exec 9>"${MPG_LOCK:-${TMPDIR:-/tmp}/mpg-corpus-$(id -u)-$(printf %s "$MPG_JOB" | cksum | cut -d ' ' -f 1).lock}"
if ! flock --nonblock 9; then
  stage="lock (a run of this job is at work)"
  exit "$TRY_AGAIN"
fi

mpg_stage plan "$MPG_JOB" --no-pilot
output="$(printf %s "$said" | python3 -c 'import json, sys; print(json.load(sys.stdin)["output"])')"
mpg_stage run "$MPG_JOB" --only decode
mpg_stage run "$MPG_JOB" --only judge
mpg_stage report "$output"
if [ -n "$MPG_REPO_ID" ]; then
  mpg_stage gate "$output" --against "${MPG_AGAINST:-$MPG_REPO_ID@previous}"
  private=()
  if [ "$MPG_PRIVATE" = yes ]; then private=(--private); fi
  mpg_stage publish "$output" --repo-id "$MPG_REPO_ID" "${private[@]}"
fi
