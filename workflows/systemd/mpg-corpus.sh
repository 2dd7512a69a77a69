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
: "${MPG_JOB:=}" "${MPG_FOLDER:=$PWD}" "${MPG_COMMAND:=mpg}" "${MPG_REPO_ID:=}" "${MPG_LOCK:=}"
: "${MPG_PERIOD:=week}" "${MPG_TRIES:=5}" "${MPG_PAUSE_S:=600}" "${MPG_AGAINST:=}" "${MPG_ALERT:=}" "${MPG_PRIVATE:=yes}"
export MPG_LOG="${MPG_LOG:-text}"
BAD_INPUT=2 TRY_AGAIN=75 INTERRUPTED=130 # pipeline/exit_status.py

# A field of the last line of a stage, in one line; nothing where it has none.
of_line() {
  printf %s "$said" | python3 -c '
import json, sys
try:
    found = json.load(sys.stdin)[sys.argv[1]]
except (ValueError, KeyError, TypeError):
    found = None
print("; ".join(str(found or "").splitlines()))' "$1"
}

# Of anything that did not succeed: stage, exit status, reason, in one line, which is the last that is printed.
stage=start reason="" said="" last="$(mktemp)" # what a stage prints
ended() {
  local status=$?
  rm -f "$last"
  if [ "$status" -eq 0 ]; then return; fi
  reason="${reason:-$(of_line problem || true)}"
  local text="corpus of ${MPG_JOB:-no job}, interval ${interval:-not known}: $stage ended with exit status $status: "
  text+="${reason:-its log says why}"
  if [ -n "$MPG_ALERT" ]; then $MPG_ALERT "$text" 9>&- || echo "the alert was not sent" >&2; fi
  echo "$text" >&2
}
trap ended EXIT

refuse() { # STATUS REASON
  reason="$2"
  exit "$1"
}

start_of_interval() {
  case "$MPG_PERIOD" in
    day) date -u -d yesterday +%F ;;
    week) date -u -d "-$(($(date -u +%u) + 6)) days" +%F ;;
    month) date -u -d "$(date -u +%Y-%m-01) -1 month" +%F ;;
  esac
}

# The file that keeps a second run of a job away. It lies beside the job's file and is named after it, so that it is one
# however the job is written, whoever runs it, and whatever folder for temporary files the run has.
lock_of_job() {
  local job
  case "$MPG_JOB" in
    *://*) printf %s "$PWD/.mpg-corpus-$(printf %s "$MPG_JOB" | cksum | cut -d ' ' -f 1).lock" ;;
    *) job="$(realpath -- "$MPG_JOB")" && printf %s "${job%/*}/.${job##*/}.lock" ;;
  esac
}

# Waits for a command in the background. A signal to this script goes on to it, once, as one Ctrl-C: it finishes what it
# is at, and is waited for; nothing begins after it.
child="" told=""
trap 'told=yes; if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null || true; fi' TERM INT HUP
finished() {
  local status=0
  child="$1"
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do # it was a signal that ended the waiting
    status=0
    wait "$child" || status=$?
  done
  child=""
  return "$status"
}

# A stage; tried again while it says that this may help. What it says last, as JSON, is kept for the next.
mpg_stage() {
  stage="$1"
  if [ "$stage" = run ]; then stage="${*: -1}"; fi # of --only
  local status try
  for ((try = 1; ; try++)); do
    if [ -n "$told" ]; then refuse "$INTERRUPTED" "it was stopped"; fi
    status=0
    $MPG_COMMAND "$@" --interval "$interval" --json >"$last" &
    finished $! || status=$?
    said="$(tail -n 1 "$last")"
    echo "$said"
    if [ "$status" -ne "$TRY_AGAIN" ] || [ "$try" -ge "$MPG_TRIES" ]; then return "$status"; fi
    echo "$stage: exit status $TRY_AGAIN, try $try of $MPG_TRIES; again in $MPG_PAUSE_S s" >&2
    sleep "$MPG_PAUSE_S" &
    finished $! || true
  done
}

interval="${2:-$(start_of_interval)}"
if [ -z "$interval" ]; then refuse "$BAD_INPUT" "MPG_PERIOD=$MPG_PERIOD: choose from day, week, month"; fi
if [ -z "$MPG_JOB" ]; then refuse "$BAD_INPUT" "MPG_JOB: is missing; set it in $1"; fi
cd "$MPG_FOLDER" || refuse "$BAD_INPUT" "MPG_FOLDER=$MPG_FOLDER: is no folder that can be entered"
if [[ "$MPG_JOB" != *://* && ! -r "$MPG_JOB" ]]; then
  refuse "$BAD_INPUT" "MPG_JOB=$MPG_JOB: no file in $PWD that can be read; check MPG_JOB and MPG_FOLDER"
fi
stage=lock
lock="${MPG_LOCK:-$(lock_of_job)}"
if [ ! -e "$lock" ] && ! : >>"$lock"; then
  refuse "$BAD_INPUT" "$lock: can't be written; make it, or set MPG_LOCK to one file for all runs of this job"
elif [ -w "$lock" ]; then
  exec 9>>"$lock"
else
  exec 9<"$lock"
fi
if ! flock --nonblock 9; then refuse "$TRY_AGAIN" "a run of this job is at work"; fi

mpg_stage plan "$MPG_JOB" --no-pilot
output="$(of_line output)"
mpg_stage run "$MPG_JOB" --only decode
mpg_stage run "$MPG_JOB" --only judge
mpg_stage report "$output"
against=()
if [ -n "$MPG_AGAINST$MPG_REPO_ID" ]; then against=(--against "${MPG_AGAINST:-$MPG_REPO_ID@previous}"); fi
mpg_stage gate "$output" "${against[@]}"
if [ -n "$MPG_REPO_ID" ]; then
  private=()
  if [ "$MPG_PRIVATE" = yes ]; then private=(--private); fi
  mpg_stage publish "$output" --repo-id "$MPG_REPO_ID" "${private[@]}"
fi
