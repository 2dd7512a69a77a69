#!/usr/bin/env bash
# The Flex Template, built and run; docs/dataflow.md says what each variable is for.
#   flex.sh build                                        the image, and gs://BUCKET/templates/mpg-scr-TAG.json
#   flex.sh run NAME JOB OUTPUT [PARAMETER=VALUE ...]    a job of that name; JOB and OUTPUT are gs:// places
set -euo pipefail

die() {
  printf 'flex.sh: %s\n' "$1" >&2
  exit 2
}

for name in PROJECT REGION BUCKET; do
  [[ -n ${!name:-} ]] || die "$name: is not set; export it (BUCKET without gs://)"
done
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TAG=${TAG:-$(git -C "$root" rev-parse --short HEAD)}
image=$REGION-docker.pkg.dev/$PROJECT/${REPOSITORY:-mpg}/mpg-scr:$TAG
template=gs://$BUCKET/templates/mpg-scr-$TAG.json
gcloud=${GCLOUD:-gcloud}

build() {
  cd "$root"
  "$gcloud" builds submit . --project "$PROJECT" --region "$REGION" --config workflows/dataflow/cloudbuild.yaml \
    --substitutions "_IMAGE=$image" --ignore-file workflows/dataflow/gcloudignore
  "$gcloud" dataflow flex-template build "$template" --project "$PROJECT" --image "$image" --sdk-language PYTHON \
    --metadata-file workflows/dataflow/metadata.json
}

run() {
  [[ $# -ge 3 ]] || die "run: write flex.sh run NAME JOB OUTPUT [PARAMETER=VALUE ...]"
  local name=$1 parameters=("job=$2" "output=$3") flags=() each
  # One process a worker, which leases its GPUs; launch.py gives it a thread more than there are.
  [[ -z ${ACCELERATOR=type:nvidia-l4;count:1;install-nvidia-driver:5xx} ]] || parameters+=("accelerator=$ACCELERATOR")
  parameters+=("disk_size_gb=${DISK_GB:-100}" "autoscaling_algorithm=${AUTOSCALING:-THROUGHPUT_BASED}" "${@:4}")
  # One flag for each, so that commas in a value stay in it.
  for each in "${parameters[@]}"; do flags+=(--parameters "^~^$each"); done
  [[ -z ${SERVICE_ACCOUNT:-} ]] || flags+=(--service-account-email "$SERVICE_ACCOUNT")
  [[ -z ${SUBNETWORK:-} ]] || flags+=(--subnetwork "$SUBNETWORK" --disable-public-ips)
  "$gcloud" dataflow flex-template run "$name" --project "$PROJECT" --region "$REGION" \
    --template-file-gcs-location "$template" --staging-location "gs://$BUCKET/staging" \
    --temp-location "gs://$BUCKET/tmp" --launcher-machine-type "${LAUNCHER_MACHINE:-e2-standard-4}" \
    --worker-machine-type "${MACHINE:-g2-standard-8}" --num-workers "${NUM_WORKERS:-1}" \
    --max-workers "${MAX_WORKERS:-4}" "${flags[@]}"
}

case ${1:-} in
  build) build ;;
  run) run "${@:2}" ;;
  *) die "${1:-nothing}: choose from build, run" ;;
esac
