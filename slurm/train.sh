#!/bin/bash
# Train in a job of any size, and requeue it if necessary: train.sh --config FILE [--section.key VALUE ...]
# Shared by cgan.sh, ae.sh and sweep.sh, which have the #SBATCH lines and are what to submit.
#
# Environment variables, all optional (see README.md):
#   LAUNCH        a file in launch/, without .yaml: DDP or DeepSpeed. Default: multi_node
#   PROCESSES     processes per node. Default: the job's GPUs per node, else 1
#   MASTER_ADDR, MASTER_PORT   rendezvous. Default: the first node; a port derived from the job's id
set -u

# --- Stop signals: handlers come first, since a signal may come before the run folder is known.
run='' warned='' ended=''
pass_on() { [ -z "$run" ] || { mkdir -p "$run" && : >"$run/stop"; }; }
trap 'warned=yes; pass_on' USR1
trap 'ended=yes' TERM

say() { echo "[$(date '+%F %T')] job $SLURM_JOB_ID: $*"; }

# --- Number of processes, rendezvous.
cd "${COLORDIST_HOME:-$SLURM_SUBMIT_DIR}" || exit 2
. slurm/site.sh
read -ra inside <<<"${CONTAINER:-}"
PER_NODE=${PROCESSES:-${SLURM_GPUS_ON_NODE:-0}}
[ "$PER_NODE" -gt 0 ] || PER_NODE=1
WORLD=$((SLURM_JOB_NUM_NODES * PER_NODE))
MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
export -n MASTER_ADDR MASTER_PORT # a single process would take them for an incomplete launch
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun doesn't inherit it

# --- Arguments. In a job array the index is the seed, and replaces %a.
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    set -- "${@:1:2}" --seed "$SLURM_ARRAY_TASK_ID" "${@:3}"
    set -- "${@//%a/$SLURM_ARRAY_TASK_ID}"
fi

# --- Run folder. This also reports most mistakes in the arguments, once.
run=$(env RANK=0 WORLD_SIZE="$WORLD" MASTER_ADDR="$MASTER_ADDR" "${inside[@]}" python -m colordist.train "$@" --print_run_dir) || exit
rm -f "$run/stop" # from an earlier job
[ -z "$warned" ] || pass_on
before=$(cat "$run/finished" "$run/stopped" 2>/dev/null)

say "start ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST: $WORLD processes, rendezvous at $MASTER_ADDR:$MASTER_PORT, run folder $run"

# --- One task per node, in the background, as bash handles signals only between commands.
# When one task ends, srun gives the others a minute instead of killing them: if this node was cut off and comes back, it
# would kill the tasks of the same, requeued job on other nodes.
on_each_node() {
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
        --kill-on-bad-exit=0 --wait=60 "$@" &
    while :; do
        wait $!
        status=$?
        kill -0 $! 2>/dev/null || return "$status"
    done
}

# --- Requeue, a bounded number of times.
again() { # WHY
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$MAX_RESTARTS" ]; then
        say "$1: not again after $MAX_RESTARTS restarts"
        exit 1
    fi
    say "$1: to be requeued"
    if scontrol requeue "$SLURM_JOB_ID"; then
        sleep 300 & # SLURM ends this script in the meantime
        wait $!
    else
        say "that failed: submit the same command again"
    fi
    exit 1
}

failed() { # WHY
    mkdir -p "$run"
    date "+%F %T start ${SLURM_RESTART_COUNT:-0} of job $SLURM_JOB_ID failed" >>"$run/failures"
    local failures
    failures=$(grep -c " of job $SLURM_JOB_ID failed" "$run/failures")
    [ "$failures" -gt "$MAX_FAILURES" ] || again "$1"
    say "$1, for the $failures. time: not again"
    exit 1
}

# --- Preflight check of all nodes.
if ! MASTER_ADDR=$MASTER_ADDR MASTER_PORT=$MASTER_PORT \
    on_each_node --kill-on-bad-exit=1 "${inside[@]}" python -m colordist.doctor --quick "$@"; then
    [ -n "$ended" ] || [ "${SLURM_RESTART_COUNT:-0}" = 0 ] || failed "something is missing that was there before"
    say "something is missing, so training didn't begin"
    exit 1
fi

# --- Train. A launcher on each node starts its processes; a single process needs none, and gets signals directly.
command=("${inside[@]}" python)
if [ "$WORLD" -gt 1 ] || [ -n "${LAUNCH:-}" ]; then
    command=("${inside[@]}" accelerate launch --config_file "launch/${LAUNCH:-multi_node}.yaml"
        --num_machines "$SLURM_JOB_NUM_NODES" --num_processes "$WORLD" --machine_rank %n
        --main_process_ip "$MASTER_ADDR" --main_process_port "$MASTER_PORT")
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300} # for a checkpoint after a signal
fi
# shellcheck disable=SC2016 # %n: expanded to the node's index by the task
on_each_node bash -c 'exec "${@/#%n/$SLURM_NODEID}"' task "${command[@]}" -m colordist.train "$@"
status=$?

# --- Outcome.
# If this node was cut off and came back, the job has been requeued elsewhere, and this script must leave it alone.
facts=$(scontrol show job --oneliner "$SLURM_JOB_ID")
case "$facts " in
" " | *" Restarts=${SLURM_RESTART_COUNT:-0} "*) ;;
*)
    say "start ${SLURM_RESTART_COUNT:-0} is over: the job began again without it"
    exit 1
    ;;
esac

# The marker file in the run folder is decisive; a launcher's exit status isn't reliable.
after=$(cat "$run/finished" "$run/stopped" 2>/dev/null)
if [ -e "$run/finished" ] && { [ "$status" = 0 ] || [ "$after" != "$before" ]; }; then
    say "finished"
    exit 0
elif [ -n "$ended" ]; then
    say "ended by SLURM (scancel, or the time limit): the same command continues"
    exit 1
elif [ -e "$run/stopped" ] && [ "$after" != "$before" ]; then
    case $warned$after in
    yes* | *'"train.max_minutes'* | *'"SIG'*) again "stopped, $after" ;;
    esac
    say "stopped by the file $run/stop: the same command continues"
    exit 1
elif [ "$status" = 0 ]; then # no training, e.g. --dry_run
    exit 0
fi
failed "failed"
