#!/bin/bash
# Autoencoder against conditional GAN: train both with several seeds, evaluate, report. Submits the jobs with their
# dependencies, and returns at once:
#   [SEEDS='0 1 2'] [OUT=runs/compare] slurm/compare.sh [SBATCH OPTION ...] [-- TRAINER ARGUMENT ...]
#   slurm/compare.sh --nodes=2 --gpus-per-node=4 -- --train.steps 20000
# Settings that only one of the two has: AE='...', CGAN='--task.warmup_steps 100 --discriminator.width 16'.
set -euo pipefail
cd "$(dirname "$0")/.."
. slurm/site.sh
SEEDS=${SEEDS:-0 1 2} OUT=${OUT:-runs/compare}
report=$OUT/report.html

options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    options+=("$1")
    shift
done
[ $# = 0 ] || shift

submit() { sbatch --parsable "$@"; }
array=${SEEDS// /,} scored=afterany runs=()
for task in ae cgan; do
    own=${task^^}
    read -ra own <<<"${!own:-}"
    trained=$(submit --array="$array" "${options[@]}" "slurm/$task.sh" "$@" "${own[@]}" --run.dir "$OUT/$task-%a")
    # Each run is scored as soon as it is finished; if it fails, the rest goes on without it.
    evaluated=$(submit --array="$array" --dependency="aftercorr:$trained" --kill-on-invalid-dep=yes \
        slurm/evaluate.sh "$OUT/$task-%a")
    echo "$task: training $trained, evaluation $evaluated"
    scored+=":$evaluated"
    for seed in $SEEDS; do runs+=("$OUT/$task-$seed"); done
done
echo "report: $(submit --dependency="$scored" slurm/report.sh "$report" "${runs[@]}"), will be at $report"
