"""Trainings by each rival: started by its documented command, watched through its records, killed."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness import free_port

HERE = Path(__file__).parent
PYTHON = sys.executable
LIMIT = 90.0
"""Seconds to wait for the end after a signal to one process."""
Command = tuple[list[str], dict[str, str]]
"""Arguments, and variables of the environment."""


@dataclass(frozen=True)
class Rival:
    """A way of training."""

    file: str
    """In this folder, with the lines that its user writes."""
    commands: Callable[[list[str], int], list[Command]]
    """The commands that start it, by its arguments and its number of processes; the last ones are its processes'."""
    checkpoints: str
    """Pattern of its checkpoints in its output folder."""
    package: str
    survives: bool = False
    """Whether it goes on when one process dies, and starts that one again itself."""


def accelerate(file: str) -> Callable[[list[str], int], list[Command]]:
    """By ``accelerate launch``; one process by Python alone."""

    def commands(arguments: list[str], processes: int) -> list[Command]:
        launch = ["-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
        launch += ["--dynamo_backend", "no", "--main_process_port", str(free_port())]
        launch += ["--num_processes", str(processes), "--multi_gpu"]
        script = [str(HERE / file), *arguments]
        return [([PYTHON, *(launch if processes > 1 else []), *script], {"ACCELERATE_USE_CPU": "true"})]

    return commands


def lightning(arguments: list[str], processes: int) -> list[Command]:
    """Lightning starts its processes itself."""
    return [([PYTHON, str(HERE / "lightning_manual.py"), *arguments, "--processes", str(processes)], {})]


def torchft(arguments: list[str], processes: int) -> list[Command]:
    """A lighthouse, and ``torchrun`` for each process, which starts it again when it dies."""
    port = free_port()
    lighthouse = [str(Path(PYTHON).with_name("torchft_lighthouse")), "--min_replicas", "1", "--quorum_tick_ms", "100"]
    commands: list[Command] = [([*lighthouse, "--join_timeout_ms", "10000", "--bind", f"[::]:{port}"], {})]
    for number in range(processes):
        run = [PYTHON, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc_per_node", "1"]
        run += ["--master_port", str(free_port()), "--max-restarts", "100", str(HERE / "torchft_ddp.py"), *arguments]
        group = {"REPLICA_GROUP_ID": str(number), "NUM_REPLICA_GROUPS": str(processes)}
        commands.append((run, group | {"TORCHFT_LIGHTHOUSE": f"http://localhost:{port}"}))
    return commands


RIVALS = {
    "colordist": Rival("colordist.yaml", accelerate("colordist_recorded.py"), "run/checkpoints/step-*", "colordist"),
    "Accelerate": Rival(
        "accelerate_plain.py", accelerate("accelerate_plain.py"), "checkpoints/checkpoint_*", "accelerate"
    ),
    "Accelerate, StatefulDataLoader": Rival(
        "accelerate_stateful.py", accelerate("accelerate_stateful.py"), "checkpoints/checkpoint_*", "torchdata"
    ),
    "Lightning": Rival("lightning_manual.py", lightning, "*.ckpt", "lightning"),
    "torchft": Rival("torchft_ddp.py", torchft, "checkpoint.pt", "torchft", survives=True),
}


@dataclass(frozen=True)
class Record:
    """A step as a process has done it: see ``work.Recorder``."""

    step: int
    time: float
    pid: int
    rank: int
    attempt: int
    images: tuple[int, ...]
    bytes: int


class Records:
    """The records of a training, read as they are written."""

    def __init__(self, out: Path) -> None:
        self._folder = out / "seen"
        self._offsets: dict[Path, int] = {}
        self._all: list[Record] = []

    def read(self) -> list[Record]:
        """All records so far, by time. Lines that aren't whole are left for later; a kill may have cut them."""
        new: list[Record] = []
        for file in self._folder.glob("*.jsonl"):
            attempt = int(file.name.partition("-")[0])
            with file.open("rb") as opened:
                opened.seek(self._offsets.get(file, 0))
                whole, newline, _ = opened.read().rpartition(b"\n")
            self._offsets[file] = self._offsets.get(file, 0) + len(whole + newline)
            for line in whole.splitlines():
                values = json.loads(line)
                new.append(Record(attempt=attempt, images=tuple(values.pop("images")), **values))
        if new:
            self._all = sorted([*self._all, *new], key=lambda record: record.time)
        return self._all


class TimedOut(Exception):
    """Something didn't happen in time."""


class Stuck(Exception):
    """A training can't be continued, not even with help."""


@dataclass
class Job:
    """A training, from its start to the end of its last process, and all its attempts."""

    rival: Rival
    out: Path
    images: Path
    steps: int
    save_every: int
    width: int = 16
    processes: int = 2
    namespace: str | None = None
    """Network namespace to run in."""
    attempt: int = -1
    by_hand: int = 0
    """Times that a person would have had to help: end a job that hangs, or remove a checkpoint that can't be read."""
    started: float = 0.0
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._records = Records(self.out)

    def start(self) -> None:
        """Start, or start again by the same command."""
        self.attempt += 1
        (self.out / "temporary").mkdir(parents=True, exist_ok=True)
        arguments = [f"--images={self.images}", f"--out={self.out}", f"--steps={self.steps}"]
        arguments += [f"--save-every={self.save_every}", f"--width={self.width}"]
        within = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        cores = len(os.sched_getaffinity(0))
        shared = {"OMP_NUM_THREADS": str(max(1, cores // self.processes)), "LEAGUE_ATTEMPT": str(self.attempt)}
        shared |= {"LEAGUE_JOB": str(self.out), "PYTHONPATH": str(HERE.parents[1])}
        shared |= {"TMPDIR": str(self.out / "temporary")}
        self.started = time.monotonic()
        for command, own in self.rival.commands(arguments, self.processes):
            with (self.out / f"log-{self.attempt}.txt").open("ab") as log:
                self._running.append(
                    subprocess.Popen([*within, *command], env=os.environ | shared | own, stdout=log, stderr=log)
                )

    def pids(self) -> list[int]:
        """Its processes, by a variable in their environment: launchers make process groups of their own."""
        for process in self._running:
            process.poll()  # else it stays a zombie
        found, mark = [], f"LEAGUE_JOB={self.out}\0".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def records(self) -> list[Record]:
        """What it has recorded so far, by time."""
        return self._records.read()

    def wait(self, done: Callable[[], bool], seconds: float, interval: float = 0.02) -> float:
        """Wait until something is the case, and return the time. Raises TimedOut."""
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise TimedOut
            time.sleep(interval)
        return time.monotonic()

    def wait_ended(self, seconds: float, interval: float = 0.1) -> float:
        """Wait until all its processes have ended, but for a lighthouse, which never does."""
        return self.wait(lambda: not self.training(), seconds, interval)

    def training(self) -> list[int]:
        """Its processes, without a lighthouse."""
        return [pid for pid in self.pids() if "lighthouse" not in _command_line(pid)]

    def wait_step(self, step: int, seconds: float = 120) -> Record:
        """Wait for the record of a step, or a later one, in this attempt. Raises TimedOut, also where it has ended."""
        deadline, looked = time.monotonic() + seconds, self.started
        while True:
            records = self.records()
            if records and records[-1].attempt == self.attempt and records[-1].step >= step:
                return records[-1]
            now = time.monotonic()
            if now > looked + 1:
                looked = now
                if now > deadline or not self.training():
                    raise TimedOut
            time.sleep(0.02)

    def send(self, signal_number: int, rank: int) -> int:
        """Send a signal to the process of a rank. Returns its process ID."""
        pid = next(record.pid for record in reversed(self.records()) if record.rank == rank)
        os.kill(pid, signal_number)
        return pid

    def kill(self) -> None:
        """Kill all its processes at once."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for process in self._running:
            process.wait()
        self._running.clear()

    def resume(self) -> float:
        """Start again until it trains, with as much help as that takes. Returns the time of its first step.

        Raises Stuck.
        """
        for _ in range(5):
            self.start()
            with contextlib.suppress(TimedOut):
                self.wait_step(0)
                return next(record.time for record in self.records() if record.attempt == self.attempt)
            self.kill()
            self.by_hand += 1
            newest = max(self.out.glob(self.rival.checkpoints), key=lambda path: path.stat().st_mtime, default=None)
            if newest is not None:
                shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
        raise Stuck(f"{self.out} can't be continued: see its log")

    def writes(self, within: float = 0.05) -> bool:
        """Whether a large file of it has changed within so many seconds: it may be a part of a checkpoint."""
        now = time.time()
        for folder, _, names in os.walk(self.out):
            for name in names:
                with contextlib.suppress(OSError):
                    status = os.stat(os.path.join(folder, name))
                    if status.st_size > 2**20 and now - status.st_mtime < within:
                        return True
        return False

    def log(self) -> str:
        """What the last attempt has printed."""
        return (self.out / f"log-{self.attempt}.txt").read_text(errors="replace")


def _command_line(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_text()
    except OSError:
        return ""


@contextmanager
def namespace() -> Iterator[str | None]:
    """A network namespace with a loopback interface alone; None where this user may not make one."""
    name = f"league-{os.getpid()}"
    made = shutil.which("ip") and not subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode
    if not made:
        yield None
        return
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


def schedule(kills: int, steps: int) -> list[tuple[int, float, bool]]:
    """Kills: the step after which, seconds after that, and whether all processes are killed or the last one alone."""
    draw, part = random.Random(0), steps // (kills + 1)
    return [
        (part * (number + 1) + draw.randrange(-part // 3, part // 3), draw.uniform(0, 0.2), number % 2 == 0)
        for number in range(kills)
    ]


def installed(names: Sequence[str]) -> dict[str, str]:
    """Versions of packages that are installed, by name."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
