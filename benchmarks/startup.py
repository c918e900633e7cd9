"""Time from the command line to the first step, compared with ``import torch``.

    python benchmarks/startup.py --json startup.json

The commands run alternately, each in processes of its own, with files in the page cache:

- ``import torch``: the least that a training process needs;
- ``help``, ``mistake``: ``--help``, and an unknown key;
- ``first step``: ``python -m colordist.train`` until the first line of the log, that of step 1, is written;
- ``first step, accelerate``: the same with ``accelerate launch``, which is a process of its own;
- ``first step, two``: the same with two processes;
- ``resume``, ``resume, two``: a run whose processes were killed (SIGKILL) after its first checkpoint, begun again by
  the same command, until it has logged its next step. The killed run may have logged that step, too: how many steps are
  repeated depends on ``checkpoint.every``;
- ``resume, orphans``: the same where only the launcher of two processes was killed, and these have yet to notice.

The images are synthetic: 64 for training and 8 for evaluation. The evaluation at step 0 is included.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from harness import Results, alternate, arguments, as_text, finish, ratio, summary

from colordist.run.folder import RunFolder

TRAIN = ["-m", "colordist.train"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
ACCELERATE += ["--dynamo_backend", "no", "--main_process_port", "0"]
SETTINGS = ["--data.train_images=64", "--data.test_images=8", "--task.warmup_steps=0", "--log.every=1"]


def seconds(*arguments: str) -> float:
    """Seconds that a command takes."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    took = time.perf_counter() - begin
    if done.returncode not in (0, 2):  # 2: a mistake of the user's
        raise SystemExit(f"{' '.join(arguments)} failed: {done.stderr.decode()}")
    return took


class Attempt:
    """A launch of a training."""

    def __init__(self, run: Path, *options: str) -> None:
        """options: of Python, to launch one or several processes of the trainer, and of the trainer."""
        self.folder = RunFolder(run)
        self.begin = time.perf_counter()
        line = [sys.executable, *options, f"--run.dir={run}"]
        self.process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def seconds_until(self, event: Callable[[], bool]) -> float:
        """Wait for an event. Returns the seconds from the launch to it."""
        while not event():
            if self.process.poll() is not None:
                raise SystemExit(f"a training failed: {self.process.communicate()[1]}")
            time.sleep(0.005)
        return time.perf_counter() - self.begin

    def records(self) -> str:
        """What it has logged."""
        return self.folder.metrics_file.read_text() if self.folder.metrics_file.exists() else ""

    def kill(self, *, orphans: bool) -> None:
        """Kill it, or only its launcher."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        for each in [self.process] if orphans else [self.process, *children]:
            each.kill()
        self.process.communicate() if not orphans else self.process.wait()


def until_first_step(*launch: str) -> float:
    """Seconds until a training has logged its first step."""
    with tempfile.TemporaryDirectory(prefix="startup-") as name:
        attempt = Attempt(Path(name) / "run", *launch, *TRAIN, *SETTINGS, "--train.steps=2")
        took = attempt.seconds_until(lambda: '"step": 1,' in attempt.records())
        attempt.process.communicate()
    return took


def until_next_step(*launch: str, orphans: bool = False) -> float:
    """Seconds until a training that was killed, or only its launcher, has logged its next step."""
    with tempfile.TemporaryDirectory(prefix="startup-") as name:
        options = [Path(name) / "run", *launch, *TRAIN, *SETTINGS, "--train.steps=1000000", "--checkpoint.every=10"]
        killed = Attempt(*options)
        killed.seconds_until((killed.folder.checkpoints / "step-000010").exists)
        killed.kill(orphans=orphans)
        attempt = Attempt(*options)
        attempt.seconds_until((attempt.folder.path / "lock/000002.json").exists)  # from here on it alone writes
        before = attempt.records()  # it removes steps after the checkpoint, then logs them anew, with other times
        took = attempt.seconds_until(lambda: not before.startswith(attempt.records()))
        attempt.kill(orphans=False)
    return took


ONE, TWO = [*ACCELERATE, "--num_processes", "1"], [*ACCELERATE, "--num_processes", "2", "--multi_gpu"]
COMMANDS: dict[str, Callable[[], float]] = {
    "import torch": lambda: seconds("-c", "import torch"),
    "help": lambda: seconds(*TRAIN, "--help"),
    "mistake": lambda: seconds(*TRAIN, "--train.stepz", "5"),
    "first step": until_first_step,
    "first step, accelerate": lambda: until_first_step(*ONE),
    "first step, two": lambda: until_first_step(*TWO),
    "resume": until_next_step,
    "resume, two": lambda: until_next_step(*TWO),
    "resume, orphans": lambda: until_next_step(*TWO, orphans=True),
}
FRESH = {"resume": "first step", "resume, two": "first step, two", "resume, orphans": "first step, two"}
"""What a resumed run is compared with."""


def main() -> None:
    options = arguments(__doc__, 5).parse_args()
    taken = alternate(COMMANDS, options.rounds)  # the first round, not counted, fills the page cache
    found: Results = {"commands": {}}
    for name, each in taken.items():
        ratios = {"times_import_torch": ratio(taken, name, "import torch")}
        if name in FRESH:
            ratios["times_first_step"] = ratio(taken, name, FRESH[name])
        found["commands"][name] = {"seconds": summary(each)} | ratios
        times = ", ".join(f"{key.replace('_', ' ')}: {as_text(value, 2)}" for key, value in ratios.items())
        print(f"{name:24} {as_text(summary(each), 2)} s; {times}")
    finish(options, found)


if __name__ == "__main__":
    main()
