"""Time from the command line to the first step, compared with ``import torch``.

    python benchmarks/startup.py --json startup.json

The commands run alternately, each in processes of its own, with files in the page cache:

- ``import torch``: the least that a training process needs;
- ``help``, ``mistake``: ``--help``, and an unknown key;
- ``first step``: ``python -m colordist.train`` until the first line of the log, that of step 1, is written;
- ``first step, accelerate``: the same with ``accelerate launch``, which is a process of its own;
- ``first step, two``: the same with two processes.

The images are synthetic: 64 for training and 8 for evaluation. The evaluation at step 0 is included.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness import Results, alternate, arguments, as_text, finish, ratio, summary

from colordist.run.folder import RunFolder

TRAIN = ["-m", "colordist.train"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
ACCELERATE += ["--dynamo_backend", "no", "--main_process_port", "0"]
SETTINGS = ["--data.train_images=64", "--data.test_images=8", "--task.warmup_steps=0", "--log.every=1"]
SETTINGS += ["--train.steps=2", "--run.dir"]


def seconds(*arguments: str) -> float:
    """Seconds that a command takes."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    took = time.perf_counter() - begin
    if done.returncode not in (0, 2):  # 2: a mistake of the user's
        raise SystemExit(f"{' '.join(arguments)} failed: {done.stderr.decode()}")
    return took


def until_first_step(*launch: str) -> float:
    """Seconds until a training has logged its first step."""
    with tempfile.TemporaryDirectory(prefix="startup-") as name:
        folder = RunFolder(Path(name) / "run")
        begin = time.perf_counter()
        line = [sys.executable, *launch, *TRAIN, *SETTINGS, str(folder.path)]
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while not (folder.metrics_file.exists() and '"step": 1,' in folder.metrics_file.read_text()):
                if process.poll() is not None:
                    raise SystemExit(f"a training failed: {process.communicate()[1]}")
                time.sleep(0.005)
            took = time.perf_counter() - begin
            process.communicate()
    return took


COMMANDS: dict[str, Callable[[], float]] = {
    "import torch": lambda: seconds("-c", "import torch"),
    "help": lambda: seconds(*TRAIN, "--help"),
    "mistake": lambda: seconds(*TRAIN, "--train.stepz", "5"),
    "first step": until_first_step,
    "first step, accelerate": lambda: until_first_step(*ACCELERATE, "--num_processes", "1"),
    "first step, two": lambda: until_first_step(*ACCELERATE, "--num_processes", "2", "--multi_gpu"),
}


def main() -> None:
    options = arguments(__doc__, 5).parse_args()
    taken = alternate(COMMANDS, options.rounds)  # the first round, not counted, fills the page cache
    found: Results = {"commands": {}}
    for name, each in taken.items():
        ratios = ratio(taken, name, "import torch")
        found["commands"][name] = {"seconds": summary(each), "times_import_torch": ratios}
        print(f"{name:24} {as_text(summary(each), 2)} s, {as_text(ratios, 2)} times as long as import torch")
    finish(options, found)


if __name__ == "__main__":
    main()
