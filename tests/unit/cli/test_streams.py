"""Standard streams that are closed, full or broken: exit codes, and what is said where it still can be."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, clean_environment

PRELUDE = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
VERB = PRELUDE + "from colordist.cli import main; main()"
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


def call(redirection: str, *arguments: str, program: str = VERB) -> subprocess.CompletedProcess[str]:
    """Run a verb in a shell, with a redirection of its streams."""
    command = ["sh", "-c", f'"$@" {redirection}', "sh", sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("redirection", "arguments", "code"),
    [
        (">&-", ["--help"], 0),
        ("2>&-", ["--help"], 0),
        ("<&- >&- 2>&-", ["train", "--print_config"], 0),
        ("<&- >&- 2>&-", ["nonsense"], 2),
        ("2>/dev/full", ["nonsense"], 2),
        pytest.param(">/dev/full", ["--help"], 1, marks=FULL),
        pytest.param(">/dev/full", ["train", "--help"], 1, marks=FULL),
        pytest.param(">/dev/full 2>&1", ["train", "--print_config"], 1, marks=FULL),
    ],
)
def test_a_stream_that_is_closed_or_full(redirection: str, arguments: list[str], code: int) -> None:
    done = call(redirection, *arguments)
    assert done.returncode == code
    lost = code == 1 and "2>" not in redirection
    assert done.stderr == (
        "colordist: the output can't be written (No space left on device): send it elsewhere\n" if lost else ""
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_had_enough_is_no_failure(unbuffered: str) -> None:
    """Far more is printed than a pipe holds."""
    program = PRELUDE + "from colordist.cli import run; run(lambda: [print('x' * 99) for _ in range(5000)])"
    script = f'{{ PYTHONUNBUFFERED={unbuffered} "$@"; echo "code $?" >&2; }} | head -n 1'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-c", program],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("x" * 99 + "\n", "code 0\n")


def test_closed_streams_are_not_taken_for_files(tmp_path: Path) -> None:
    """A file that is opened while stdout is closed would get its number, and what is printed."""
    program = PRELUDE + (
        "import os; from colordist.cli import run\n"
        f"run(lambda: (open({str(tmp_path / 'file')!r}, 'w'), os.write(1, b'from C'), print('and from Python')))"
    )
    assert call("<&- >&- 2>&-", program=program).returncode == 0
    assert (tmp_path / "file").read_bytes() == b""


@FULL
def test_a_run_goes_on_without_a_terminal(tmp_path: Path) -> None:
    program = PRELUDE + (
        "import sys; from pathlib import Path; from helpers import tiny; from colordist.cli import run\n"
        "from colordist.cli.parser import Command; from colordist.train import train\n"
        "config = tiny(run__dir=sys.argv[1], train__steps=2, log__every=1)\n"
        "run(lambda: train(Command(config, Path('tiny.yaml'), False)))"
    )
    assert call(">/dev/full 2>&1", str(tmp_path / "run"), program=program).returncode == 0
    assert (tmp_path / "run/finished").exists()
