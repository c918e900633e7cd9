#!/bin/bash
# Write a report of the finished runs; list the others, and fail if there are any: sbatch slurm/report.sh FILE RUN...
#SBATCH --job-name=report
#SBATCH --nodes=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
cd "${COLORDIST_HOME:-$SLURM_SUBMIT_DIR}" || exit 2
. slurm/site.sh
file=$1 finished=() others=()
for run in "${@:2}"; do
    if [ -e "$run/finished" ]; then finished+=("$run"); else others+=("$run"); fi
done
status=0
if [ ${#others[@]} -gt 0 ]; then
    echo "not finished, so not in the report: ${others[*]}"
    status=1
fi
if [ ${#finished[@]} -gt 0 ]; then
    # shellcheck disable=SC2086 # CONTAINER is split into words
    ${CONTAINER:-} python -m colordist.report "${finished[@]}" -o "$file" || status=$?
fi
exit "$status"
