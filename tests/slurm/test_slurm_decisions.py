"""What a job's script does when the training has ended, for every kind of end: with stand-ins for all that it calls."""

import subprocess
from pathlib import Path

import pytest
from jobs import ROOT

pytestmark = pytest.mark.slurm

FINISHED, BY_SIGNAL = '{"step": 9}', '{"step": 5, "reason": "SIGTERM"}'
BY_FILE, BY_CLOCK = '{"step": 5, "reason": "the file run/stop"}', '{"step": 5, "reason": "train.max_minutes 1"}'
STAND_INS = {
    "python": 'echo "$RUN"',
    # The first call is the doctor's, the second one the training.
    "srun": """
        if [ ! -e "$FOLDER/looked" ]; then touch "$FOLDER/looked"; exit "$DOCTOR"; fi
        mkdir -p "$RUN"
        [ -z "$SIGNAL" ] || kill -s "$SIGNAL" $PPID
        sleep 0.2
        [ -z "$MARKER" ] || { rm -f "$RUN/finished" "$RUN/stopped"; echo "$TEXT" > "$RUN/$MARKER"; }
        exit "$STATUS" """,
    "scontrol": """
        case $* in
        requeue*) touch "$FOLDER/requeued"; exit 1 ;;  # or the script would wait to be ended
        *job*) echo "JobId=7 Restarts=$RESTARTS BatchFlag=1" ;;
        esac""",
}


def end(folder: Path, marker: str = "", text: str = "", **environment: str) -> tuple[int, bool, str]:
    """A job's exit status, whether it was requeued, and what it said."""
    programs = folder / "programs"
    programs.mkdir()
    for name, body in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    known = {
        **{
            "PATH": f"{programs}:/usr/bin:/bin",
            "FOLDER": str(folder),
            "RUN": str(folder / "run"),
            "COLORDIST_HOME": str(ROOT),
        },
        **{"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "a,b", "VIRTUAL_ENV": "none"},
        **{"MARKER": marker, "TEXT": text, "STATUS": "0", "DOCTOR": "0", "SIGNAL": "", "RESTARTS": "0"},
    }
    known["SLURM_RESTART_COUNT"] = environment.get("RESTARTS", "0")
    done = subprocess.run(
        ["bash", ROOT / "slurm" / "train.sh", "--config", "a.yaml"],
        env=known | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, (folder / "requeued").exists(), done.stdout + done.stderr


def test_a_finished_run_ends_whatever_the_launcher_says(tmp_path: Path) -> None:
    assert end(tmp_path, "finished", FINISHED, STATUS="143")[:2] == (0, False)


def test_a_finished_run_ends_even_if_its_time_is_up(tmp_path: Path) -> None:
    assert end(tmp_path, "finished", FINISHED, SIGNAL="USR1")[:2] == (0, False)


def test_a_run_that_was_finished_and_is_to_go_on_may_fail(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "finished").write_text(FINISHED)
    assert end(tmp_path, STATUS="1")[:2] == (1, True)


@pytest.mark.parametrize(
    ("text", "signal", "requeued"),
    [(BY_FILE, "USR1", True), (BY_FILE, "", False), (BY_SIGNAL, "", True), (BY_CLOCK, "", True)],
)
def test_a_stopped_run_goes_on_unless_a_person_stopped_it(
    text: str, signal: str, requeued: bool, tmp_path: Path
) -> None:
    status, again, said = end(tmp_path, "stopped", text, SIGNAL=signal, STATUS="1")
    assert (status, again) == (1, requeued), said
    assert (tmp_path / "run" / "stop").exists() == (signal == "USR1")


def test_a_marker_from_before_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stopped").write_text(BY_SIGNAL)
    _, again, said = end(tmp_path, STATUS="1")
    assert again
    assert "failed: to be requeued" in said


def test_scancel_is_obeyed(tmp_path: Path) -> None:
    assert end(tmp_path, "stopped", BY_SIGNAL, SIGNAL="TERM")[:2] == (1, False)


def test_restarts_are_bounded(tmp_path: Path) -> None:
    status, again, said = end(tmp_path, "stopped", BY_SIGNAL, RESTARTS="2", MAX_RESTARTS="2")
    assert (status, again) == (1, False)
    assert "not again after 2 restarts" in said


def test_failures_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    line = "2026-01-01 00:00:00 start 0 of job {} failed\n"
    (tmp_path / "run" / "failures").write_text(line.format(7) + line.format(6) * 5)
    assert end(tmp_path, STATUS="1", MAX_FAILURES="1")[:2] == (1, False)


def test_another_jobs_failures_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "failures").write_text("2026-01-01 00:00:00 start 0 of job 6 failed\n" * 5)
    assert end(tmp_path, STATUS="1", MAX_FAILURES="1")[:2] == (1, True)


@pytest.mark.parametrize("marker", ["", "finished", "stopped"])
def test_a_script_whose_job_began_again_elsewhere_leaves_it_alone(marker: str, tmp_path: Path) -> None:
    status, again, said = end(tmp_path, marker, BY_SIGNAL, STATUS="1", RESTARTS="1", SLURM_RESTART_COUNT="0")
    assert (status, again) == (1, False)
    assert "began again without it" in said


@pytest.mark.parametrize(("restarts", "requeued"), [("0", False), ("1", True)])
def test_what_is_missing_may_come_back_if_it_was_there_before(restarts: str, requeued: bool, tmp_path: Path) -> None:
    """A lost node that SLURM doesn't know of yet is missing, too."""
    assert end(tmp_path, DOCTOR="1", RESTARTS=restarts)[:2] == (1, requeued)


def test_where_nothing_was_to_be_trained_nothing_is_requeued(tmp_path: Path) -> None:
    assert end(tmp_path)[:2] == (0, False)
