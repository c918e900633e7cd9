#!/bin/bash
# Train each config with each seed, as one job array with limited concurrency. Submits itself, and returns at once:
#   [SEEDS='0 1 2'] [PARALLEL=4] slurm/sweep.sh configs/a.yaml configs/b.yaml [SBATCH OPTION ...] [-- TRAINER ARGUMENT ...]
#SBATCH --job-name=sweep
#SBATCH --nodes=1
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%A-%a.out

if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then # called by hand: submit
    set -euo pipefail
    cd "$(dirname "$0")/.."
    . slurm/site.sh
    configs=() options=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        case $1 in
        -*) options+=("$1") ;;
        *) configs+=("$1") ;;
        esac
        shift
    done
    read -ra seeds <<<"${SEEDS:-0 1 2}"
    last=$((${#configs[@]} * ${#seeds[@]} - 1))
    [ $# -gt 0 ] || set -- --
    exec sbatch --array="0-$last%${PARALLEL:-4}" "${options[@]}" slurm/sweep.sh "${seeds[*]}" "${configs[@]}" "$@"
fi

# Array index: all seeds of the first config, then all seeds of the second, ...
read -ra seeds <<<"$1"
shift
configs=()
while [ "$1" != -- ]; do
    configs+=("$1")
    shift
done
shift
config=${configs[SLURM_ARRAY_TASK_ID / ${#seeds[@]}]}
seed=${seeds[SLURM_ARRAY_TASK_ID % ${#seeds[@]}]}
exec "${COLORDIST_HOME:-$SLURM_SUBMIT_DIR}/slurm/train.sh" --config "$config" --seed "$seed" "$@"
