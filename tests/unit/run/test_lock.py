"""One writer at a time: the dead are recognised, the living refused, and whoever is taken for dead writes no more."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from colordist.errors import RunError, UserError
from colordist.processes import Process
from colordist.run import lock as module
from colordist.run.lock import Lock

HOLDER = """
import sys, threading
from pathlib import Path
from colordist.run import lock
lock.HEARTBEAT = 0.1
held = lock.Lock.acquire(Path(sys.argv[1]), 30)
print("holds", flush=True)
threading.Event().wait()
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.02)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Ended and forgotten when the test is over."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def hold(run: Path, processes: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Another process that holds the run folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], stdout=subprocess.PIPE, text=True)
    processes.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return process


def files(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "lock").iterdir())


def write(run: Path, fence: int, **about: object) -> None:
    """What a process on another machine would write; or what ``about`` says of it."""
    holder = {"host": "elsewhere", "machine": "another", "pid": 7, "started": 1.5, "heartbeat": 1, "released": False}
    (run / "lock").mkdir(parents=True, exist_ok=True)
    (run / "lock" / f"{fence:06d}.json").write_text(json.dumps(holder | about))


def beating(run: Path, fence: int, over: threading.Event) -> threading.Thread:
    """A process on another machine that is alive."""

    def live() -> None:
        heartbeat = 1
        while not over.wait(0.03):
            heartbeat += 1
            write(run, fence, heartbeat=heartbeat)

    thread = threading.Thread(target=live)
    thread.start()
    return thread


# --- who may have it


def test_a_new_folder_is_free(tmp_path: Path) -> None:
    lock = Lock.acquire(tmp_path / "runs" / "new", 30)
    assert lock.fence == 1
    lock.check_fence()
    lock.release()


def test_a_released_one_is_free_at_once_and_numbers_rise(tmp_path: Path) -> None:
    for number in range(1, 4):
        begin = time.monotonic()
        lock = Lock.acquire(tmp_path, 30)
        assert time.monotonic() - begin < 1
        assert lock.fence == number
        assert files(tmp_path) == [f"{number:06d}.json"]
        lock.release()


def test_a_dead_holder_on_this_machine_gives_way_at_once(
    tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    holder = hold(tmp_path, processes)
    holder.kill()
    holder.wait()
    told: list[str] = []
    assert Lock.acquire(tmp_path, 30, told.append).fence == 2
    assert told == []


def test_a_zombie_is_dead(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    """A launcher that doesn't look after its children."""
    holder = hold(tmp_path, processes)
    holder.kill()
    while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.001)
    told: list[str] = []
    assert Lock.acquire(tmp_path, 30, told.append).fence == 2
    assert told == []


def test_another_process_by_the_same_number_is_not_the_holder(tmp_path: Path) -> None:
    me = Process.current()
    write(tmp_path, 4, machine=me.machine, pid=me.pid, started=me.started - 60)
    told: list[str] = []
    assert Lock.acquire(tmp_path, 30, told.append).fence == 5
    assert told == []


def test_a_live_holder_is_refused_with_its_number(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    holder = hold(tmp_path, processes)
    told: list[str] = []
    with pytest.raises(UserError) as refused:
        Lock.acquire(tmp_path, 30, told.append)
    assert f"process {holder.pid} on " in str(refused.value)
    assert f"is writing into {tmp_path}: end it first" in str(refused.value)
    assert len(told) == 1
    assert f"process {holder.pid}" in told[0]
    assert files(tmp_path) == ["000001.json"]


def test_a_holder_that_ends_meanwhile_gives_way_at_once(tmp_path: Path) -> None:
    """The job before is just writing its last checkpoint."""
    write(tmp_path, 1)
    threading.Timer(0.2, lambda: write(tmp_path, 1, heartbeat=2, released=True)).start()
    begin = time.monotonic()
    assert Lock.acquire(tmp_path, heartbeat_timeout=60).fence == 2
    assert time.monotonic() - begin < 10


def test_a_silent_holder_elsewhere_is_taken_for_dead(tmp_path: Path) -> None:
    write(tmp_path, 8)
    begin = time.monotonic()
    told: list[str] = []
    assert Lock.acquire(tmp_path, heartbeat_timeout=0.5, log=told.append).fence == 9
    assert time.monotonic() - begin >= 0.5
    assert told == [f"process 7 on elsewhere held the lock of {tmp_path} and may be alive: waiting 0 s for a heartbeat"]


def test_a_live_holder_elsewhere_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 8)
    over = threading.Event()
    thread = beating(tmp_path, 8, over)
    try:
        with pytest.raises(UserError, match=f"process 7 on elsewhere is writing into {tmp_path}"):
            Lock.acquire(tmp_path, heartbeat_timeout=5)
    finally:
        over.set()
        thread.join()


def test_it_is_silence_that_counts_and_not_how_long_one_has_listened(tmp_path: Path) -> None:
    write(tmp_path, 8)
    threading.Timer(0.6, lambda: write(tmp_path, 8, heartbeat=2)).start()
    begin = time.monotonic()
    assert Lock.acquire(tmp_path, heartbeat_timeout=1).fence == 9
    assert time.monotonic() - begin >= 1.5


FULL = b'{"host": "a", "machine": "b", "pid": %b, "started": 1.5, "heartbeat": %b, "released": true}'


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b"\xff\x00",
        b"[" * 100_000,
        b'{"pid": "x", "heartbeat": {}}',
        b'{"host": "a"}',
        FULL % (b"5", b"Infinity"),
        FULL % (b"5", b"-1"),
        FULL % (b"1e400", b"1"),
        FULL % (b"9" * 30, b"1"),
    ],
)
def test_a_damaged_file_is_that_of_a_silent_holder(text: bytes, tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / "lock" / "000003.json").write_bytes(text)
    assert Lock.acquire(tmp_path, heartbeat_timeout=0.1).fence == 4


@pytest.mark.parametrize("pid", [-5, 0, 2**40])
def test_a_number_that_no_process_has(pid: int, tmp_path: Path) -> None:
    write(tmp_path, 3, machine=Process.current().machine, pid=pid)
    assert Lock.acquire(tmp_path, heartbeat_timeout=0.1).fence == 4


def test_other_files_in_the_folder_are_no_locks(tmp_path: Path) -> None:
    write(tmp_path, 3, released=True)
    for name in ("notes.json", "000009.tmp", "000010.json.bak"):
        (tmp_path / "lock" / name).write_text("{}")
    assert Lock.acquire(tmp_path, 30).fence == 4


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(UserError, match=r"run can't be written \(.*\): name another --run\.dir"):
        Lock.acquire(tmp_path / "run", 30)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(RunError, match=r"can't be written \(No space left on device\)"):
            Lock.acquire(tmp_path, 30)
    assert files(tmp_path) == []


# --- several at once


def test_of_many_that_race_exactly_one_wins(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    """Real processes, after a holder that died; the others say who won."""
    script = """
import sys
from pathlib import Path
from colordist.run import lock
from colordist.errors import UserError
lock.HEARTBEAT = 0.05
print("ready", flush=True)
sys.stdin.readline()
try:
    lock.Lock.acquire(Path(sys.argv[1]), 30)
    print("won", flush=True)
except UserError as error:
    print(error, flush=True)
sys.stdin.readline()
"""
    dead = hold(tmp_path, processes)
    dead.kill()
    dead.wait()
    command, pipe = [sys.executable, "-c", script, str(tmp_path)], subprocess.PIPE
    racers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(5)]
    processes += racers
    ends = [(racer.pid, racer.stdin, racer.stdout) for racer in racers if racer.stdin and racer.stdout]
    for _, _, output in ends:
        assert output.readline() == "ready\n"
    for _, starting_gun, _ in ends:
        starting_gun.write("go\n")
        starting_gun.flush()
    said = {pid: output.readline() for pid, _, output in ends}
    (winner,) = [pid for pid, line in said.items() if line == "won\n"]
    for pid, line in said.items():
        assert pid == winner or line.startswith(f"process {winner} on ")
    assert files(tmp_path) == ["000002.json"]


def test_a_number_that_was_given_and_taken_back_is_not_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This one looks, and then others come and go before it goes on."""
    Lock.acquire(tmp_path, 30).release()
    real, slept = module._holder, False

    def slow(folder: Path) -> module.Holder | None:
        nonlocal slept
        found = real(folder)
        if not slept:
            slept = True
            for _ in range(2):
                Lock.acquire(tmp_path, 30).release()
        return found

    monkeypatch.setattr(module, "_holder", slow)
    assert Lock.acquire(tmp_path, 30).fence == 4
    assert files(tmp_path) == ["000004.json"]


# --- fenced off


def test_whoever_is_fenced_off_refuses_and_keeps_silent(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    """Paused, taken for dead, and awake again: its signs of life don't take the run back."""
    old = Lock.acquire(tmp_path, 30)
    write(tmp_path, 2)  # another process
    with pytest.raises(RunError, match=r"process 7 on elsewhere has taken over the run in .*: this one ends here"):
        old.check_fence()
    old._thread.join(20)
    assert not old._thread.is_alive()
    (tmp_path / "lock" / "000001.json").unlink()
    old.release()
    assert files(tmp_path) == ["000002.json"]


def test_a_paused_holder_is_taken_over_and_finds_out(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    script = """
import sys, threading
from pathlib import Path
from colordist.run import lock
from colordist.errors import RunError
lock.HEARTBEAT = 0.02
held = lock.Lock.acquire(Path(sys.argv[1]), 30)
print("holds", flush=True)
while True:
    try:
        held.check_fence()
    except RunError as error:
        print(error, flush=True)
        held.release()
        sys.exit(1)
"""
    pipe = subprocess.PIPE
    old = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=pipe, text=True)
    processes.append(old)
    assert old.stdout is not None
    assert old.stdout.readline() == "holds\n"
    os.kill(old.pid, signal.SIGSTOP)
    new = Lock.acquire(tmp_path, heartbeat_timeout=0.5)
    os.kill(old.pid, signal.SIGCONT)
    assert old.stdout.readline().startswith(f"process {os.getpid()} on ")
    assert old.wait(20) == 1
    new.check_fence()
    assert files(tmp_path) == ["000002.json"]
    new.release()


def test_signs_of_life_go_on_after_a_moment_of_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Lock.acquire(tmp_path, 30)
    tried = threading.Event()

    def full(*_: object) -> None:
        tried.set()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        assert tried.wait(20)
    heartbeats = lock._heartbeats
    while lock._heartbeats < heartbeats + 2:
        time.sleep(0.001)
    lock.release()
    assert json.loads((tmp_path / "lock" / "000001.json").read_text())["released"]
