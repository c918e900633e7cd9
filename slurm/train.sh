#!/bin/bash
# Trains, in a job of any size, and sees to what comes after: train.sh --config FILE [--section.key VALUE ...]
# The part that cgan.sh, ae.sh and sweep.sh share; sbatch is given those, for the #SBATCH lines in them.
#
# Read from the environment, all optional (README.md tells more):
#   LAUNCH        a file in launch/, without .yaml: how processes work together. Default: multi_node
#   PROCESSES     processes a node. Default: as many as it has GPUs for the job, else 1
#   MASTER_ADDR, MASTER_PORT   where processes meet. Default: the first node; a port made from the job's id
set -u

# --- Being asked to stop. First of all, for a signal may come at any time; the run's folder isn't known yet.
run='' warned='' ended=''
pass_on() { [ -z "$run" ] || { mkdir -p "$run" && : >"$run/stop"; }; }
trap 'warned=yes; pass_on' USR1
trap 'ended=yes' TERM

say() { echo "[$(date '+%F %T')] job $SLURM_JOB_ID: $*"; }

# --- Where, and how many.
cd "${COLORDIST_HOME:-$SLURM_SUBMIT_DIR}" || exit 2
. slurm/site.sh
read -ra inside <<<"${CONTAINER:-}"
PER_NODE=${PROCESSES:-${SLURM_GPUS_ON_NODE:-0}}
[ "$PER_NODE" -gt 0 ] || PER_NODE=1
WORLD=$((SLURM_JOB_NUM_NODES * PER_NODE))
MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
export -n MASTER_ADDR MASTER_PORT # a single process would take them for a launch that went wrong
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun doesn't take it over by itself

# --- Arguments. In an array the element's number is the seed, and %a stands for it.
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    set -- "${@:1:2}" --seed "$SLURM_ARRAY_TASK_ID" "${@:3}"
    set -- "${@//%a/$SLURM_ARRAY_TASK_ID}"
fi

# --- The run's folder. This also finds most mistakes in the arguments, here, where they are told once.
run=$(env RANK=0 WORLD_SIZE="$WORLD" MASTER_ADDR="$MASTER_ADDR" "${inside[@]}" python -m colordist.train "$@" --print_run_dir) || exit
rm -f "$run/stop" # asked of an earlier job
[ -z "$warned" ] || pass_on
before=$(cat "$run/finished" "$run/stopped" 2>/dev/null)

say "start ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST: $WORLD processes, meeting at $MASTER_ADDR:$MASTER_PORT, run folder $run"

# --- One task a node. A command is run in the background, for bash handles signals only between commands.
# When one has ended, the others get a minute, rather than be killed at once: should this node be cut off and come back,
# srun would kill what runs elsewhere by then as the same job.
on_each_node() {
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
        --kill-on-bad-exit=0 --wait=60 "$@" &
    while :; do
        wait $!
        status=$?
        kill -0 $! 2>/dev/null || return "$status"
    done
}

# --- Beginning again, a bounded number of times.
again() { # WHY
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$MAX_RESTARTS" ]; then
        say "$1: not again after $MAX_RESTARTS restarts"
        exit 1
    fi
    say "$1: to be requeued"
    if scontrol requeue "$SLURM_JOB_ID"; then
        sleep 300 & # SLURM ends this script meanwhile
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

# --- Is everything there?
if ! MASTER_ADDR=$MASTER_ADDR MASTER_PORT=$MASTER_PORT \
    on_each_node --kill-on-bad-exit=1 "${inside[@]}" python -m colordist.doctor --quick "$@"; then
    [ -n "$ended" ] || [ "${SLURM_RESTART_COUNT:-0}" = 0 ] || failed "something is missing that was there before"
    say "something is missing, so training didn't begin"
    exit 1
fi

# --- Train. A launcher on each node starts its processes; a single process needs none, and hears signals itself.
command=("${inside[@]}" python)
if [ "$WORLD" -gt 1 ] || [ -n "${LAUNCH:-}" ]; then
    command=("${inside[@]}" accelerate launch --config_file "launch/${LAUNCH:-multi_node}.yaml"
        --num_machines "$SLURM_JOB_NUM_NODES" --num_processes "$WORLD" --machine_rank %n
        --main_process_ip "$MASTER_ADDR" --main_process_port "$MASTER_PORT")
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300} # for a checkpoint after a signal
fi
# shellcheck disable=SC2016 # %n: which node it is, the task knows
on_each_node bash -c 'exec "${@/#%n/$SLURM_NODEID}"' task "${command[@]}" -m colordist.train "$@"
status=$?

# --- What now?
# This may be a node that was cut off and came back: then its job runs again elsewhere, and is no business of this script any more.
facts=$(scontrol show job --oneliner "$SLURM_JOB_ID")
case "$facts " in
" " | *" Restarts=${SLURM_RESTART_COUNT:-0} "*) ;;
*)
    say "start ${SLURM_RESTART_COUNT:-0} is over: the job began again without it"
    exit 1
    ;;
esac

# The marker in the run's folder says how the training ended; a launcher's exit status may say anything.
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
elif [ "$status" = 0 ]; then # nothing was to be trained: --dry_run, say
    exit 0
fi
failed "failed"
