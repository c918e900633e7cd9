# shellcheck shell=bash
# Site settings, read by every job, and by compare.sh and sweep.sh before they submit. For your own sbatch calls to get
# the SBATCH_ variables, source it once per session: . slurm/site.sh
# All of it may be set in the environment instead.

# --- Partition and limits. sbatch reads these variables; they override #SBATCH lines.
# export SBATCH_PARTITION=gpu
# export SBATCH_ACCOUNT=my_project
# export SBATCH_QOS=normal
# export SBATCH_TIMELIMIT=24:00:00

# --- Python environment.
# module load cuda
if [ -z "${VIRTUAL_ENV:-}" ] && [ -f .venv/bin/activate ]; then # from `make install`
    . .venv/bin/activate
fi

# --- Container: words before each command.
# CONTAINER='apptainer exec --nv colordist.sif'

# --- Network interface between nodes, if the fast one isn't detected.
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0

# --- Maximum number of requeues: in all (time limit, preemption), and after a failure (a lost node).
: "${MAX_RESTARTS:=100}" "${MAX_FAILURES:=3}"
