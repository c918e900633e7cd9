"""Runs a verb in a fork of this process: with its own streams, environment, limits and exit code, in milliseconds."""

import importlib
import io
import os
import re
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from colordist.cli import VERBS

HEAVY = ("torch", "jsonargparse", "bokeh.embed", "jinja2", "accelerate", "timm", "huggingface_hub", "PIL.Image")
"""Imported once, here: not by every case."""
_CPU_TIME = 180  # seconds that a case may take, however busy the machine is
_MEMORY = 3 * 2**30  # bytes that a case may take: none needs a tenth of it


@dataclass(frozen=True)
class Result:
    """What a user sees of a command."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    def __str__(self) -> str:
        shown = " ".join(map(repr, self.arguments))[:500]
        return f"colordist {shown}\nexit code {self.code}, {self.seconds:.1f} s\n{self.out[-500:]}\n{self.err[-3000:]}"


def preload() -> None:
    """Import what the verbs need, so that the forks have it."""
    for name in (*HEAVY, *(f"colordist.{verb}" for verb in VERBS)):
        importlib.import_module(name)
    import colordist.evaluation.build_evaluator
    import colordist.reporting.html
    import colordist.training.build  # noqa: F401


def call(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None, seconds: float = 300
) -> Result:
    """Run ``colordist ARGUMENTS`` in a folder. It is killed after some seconds, exit code -9, or after
    three minutes of CPU time, -9.
    """
    return run(lambda: _verb(arguments), arguments, folder, environment, seconds)


def _verb(arguments: Sequence[str]) -> None:
    from colordist import cli

    sys.argv = ["colordist", *arguments]
    cli.main()


def run(
    work: Callable[[], None],
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    seconds: float = 300,
) -> Result:
    """Run a function in a fork, as ``call`` does. arguments: what to call it in a failure."""
    started = time.monotonic()
    files = [os.memfd_create(name) for name in ("out", "err")]
    process = os.fork()
    if process == 0:
        os._exit(_child(work, files, folder, environment or {}))
    waiting = os.pidfd_open(process)
    poll = select.poll()
    poll.register(waiting, select.POLLIN)
    if not poll.poll(seconds * 1000):
        os.kill(process, signal.SIGKILL)
    os.close(waiting)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    out, err = (_content(file) for file in files)
    return Result(tuple(arguments), code, out, err, time.monotonic() - started)


def _content(descriptor: int) -> str:
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read(2**20).decode("utf-8", "backslashreplace")


def _child(work: Callable[[], None], files: Sequence[int], folder: Path, environment: Mapping[str, str]) -> int:
    """Run the function as the interpreter would. Returns the exit code."""
    try:
        for descriptor, file in zip((1, 2), files, strict=True):
            os.dup2(file, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "rw"[n > 0], closefd=False), "utf-8",
                                                              write_through=n == 2) for n in range(3))  # fmt: skip
        os.chdir(folder)
        os.environ.update(environment)
        if hasattr(os, "sched_setaffinity"):  # one thread: several cases run at a time
            os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[os.getpid() % len(os.sched_getaffinity(0))]})
        limit = _data_size() + _MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_TIME, _CPU_TIME))
        code = _interpreted(work)
        try:
            sys.stdout.flush()
        except OSError:
            return 120
        return code
    except BaseException:
        traceback.print_exc()
        return 121


def _interpreted(work: Callable[[], None]) -> int:
    try:
        work()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _data_size() -> int:
    """Bytes of this process that RLIMIT_DATA counts."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmData:")[2].split()[0]) * 1024


LOG = os.environ.get("COLORDIST_FUZZ_LOG", "")
"""A file for all failures, where a test mustn't stop at the first one."""
COUNTS: dict[str, list[int]] = {}
"""Cases, successes and failures so far, by verb."""


def require_civil(result: Result) -> None:
    """Fail unless a command succeeded, or said what is wrong in one line, in time."""
    wrong = _wrong(result)
    for index, each in enumerate((1, result.code == 0, wrong is not None)):
        COUNTS.setdefault(result.arguments[0], [0, 0, 0])[index] += each
    if wrong is not None and LOG:
        with open(LOG, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"=== {wrong}\n{result}\n")
        return
    assert wrong is None, f"{wrong}: {result}"


def _wrong(result: Result) -> str | None:
    """What is wrong with a result, None for nothing."""
    said = [line for line in result.err.splitlines() if re.match("colordist: (?!skipped)", line)]
    if result.code not in (0, 1, 2):
        return f"exit code {result.code}"
    if "Traceback" in result.err:
        return "traceback"
    if "out of memory" in result.err:
        return "out of memory"
    if len(said) != (result.code != 0):
        return f"{len(said)} lines"
    if any(len(line) > 1000 for line in said):
        return "a long line"
    if any(not each.isprintable() and each not in "\n\r\t" for each in result.out + result.err):
        return "not printable"
    return None
