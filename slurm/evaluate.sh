#!/bin/bash
# Evaluate a run's latest snapshot, in one process: sbatch slurm/evaluate.sh RUN [--data.source ...]
#SBATCH --job-name=evaluate
#SBATCH --nodes=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
cd "${COLORDIST_HOME:-$SLURM_SUBMIT_DIR}" || exit 2
. slurm/site.sh
# shellcheck disable=SC2086 # CONTAINER is split into words
exec ${CONTAINER:-} python -m colordist.evaluate "${@//%a/${SLURM_ARRAY_TASK_ID:-}}"
