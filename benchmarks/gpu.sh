#!/usr/bin/env bash
# The benchmarks and the tests on one GPU, in less than 10 minutes.
#   benchmarks/gpu.sh [FOLDER]      writes gpu.md, *.json and tests.log there; default: runs/gpu
#   REHEARSE=1 benchmarks/gpu.sh    the same without a GPU, tiny
# PYTHON names another interpreter. Exit code 0: all went well; 1: something failed, see gpu.md; 2: there is no GPU.
set -uo pipefail # not -e: after a failure the rest is run
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${1:-runs/gpu}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
cd "$root" || exit 1
python=${PYTHON:-$(command -v python3 || command -v python)}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

rehearse=()
if [ -n "${REHEARSE:-}" ]; then
    rehearse=(--rehearse)
elif ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu.sh: torch sees no GPU here; REHEARSE=1 shows what would be run" >&2
    exit 2
fi

compiled=$(mktemp -d) # of the tests: without leftovers of earlier calls
trap 'rm -rf "$compiled"' EXIT
export TORCHINDUCTOR_CACHE_DIR=$compiled

rm -f "$out"/gpu.md "$out"/tests.log
failed=0
# Both have a time limit, so that the whole stays below 10 minutes.
timeout --kill-after=10 365 "$python" benchmarks/gpu.py "$out" --minutes 5.9 ${rehearse[@]+"${rehearse[@]}"} ||
    { echo "gpu.sh: benchmarks/gpu.py ended with $?" && failed=1; }
timeout --signal=INT --kill-after=10 205 "$python" -m pytest tests/gpu -m gpu -v >"$out/tests.log" 2>&1 ||
    { echo "gpu.sh: the tests ended with $?, see $out/tests.log" && failed=1; }
printf '\n## Tests\n\n```\n%s\n```\n' "$(tail -n 15 "$out/tests.log")" | tee -a "$out/gpu.md"
echo "gpu.sh: $out/gpu.md"
exit $failed
