# shellcheck shell=bash
# What differs from site to site. Every job reads this, and so do compare.sh and sweep.sh before they submit; for the
# #SBATCH side to reach your own sbatch, read it once a session: . slurm/site.sh
# All of it may be set in the environment instead.

# --- Where jobs may run. sbatch takes these by itself, over any #SBATCH line.
# export SBATCH_PARTITION=gpu
# export SBATCH_ACCOUNT=my_project
# export SBATCH_QOS=normal
# export SBATCH_TIMELIMIT=24:00:00

# --- How python is found there.
# module load cuda
if [ -z "${VIRTUAL_ENV:-}" ] && [ -f .venv/bin/activate ]; then # what `make install` made
    . .venv/bin/activate
fi

# --- What processes run in: words that go before each command.
# CONTAINER='apptainer exec --nv colordist.sif'

# --- The network between nodes, if the fast one isn't found.
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0

# --- How often a job may begin again: after a checkpoint (time limit, preemption), and after a failure (a lost node).
: "${MAX_RESTARTS:=100}" "${MAX_FAILURES:=3}"
