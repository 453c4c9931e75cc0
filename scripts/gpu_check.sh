#!/usr/bin/env bash
# What the benchmark does on a GPU, in parts of at most 180 seconds: see docs/gpu.md, or `scripts/gpu_check.sh --help`.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
export PYTHONPATH=$here PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

case ${1:-} in
agreement | speed | records) ;;
*) exec "$python" -m scripts.gpu_check "$@" ;; # what is prepared beforehand takes its time
esac

if compgen -G "$here/wheels/*.whl" >/dev/null; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
    --target "$site" "$here"/wheels/*.whl
  export PYTHONPATH=$here:$site
fi
export GPU_CHECK_SECONDS=${GPU_CHECK_SECONDS:-$((172 - SECONDS))} # left to the part, which ends by itself
timeout --kill-after=4 $((GPU_CHECK_SECONDS + 4)) "$python" -m scripts.gpu_check "$@"
