"""Entry point of verbs: errors as one line and an exit code. Settings: parser.py."""

import argparse
import difflib
import logging
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from colordist.cli import legacy, streams
from colordist.console import log_handler, say, show_traceback
from colordist.engine import launch, monitor, variables
from colordist.errors import RunError, UserError, one_line, shortened
from colordist.files.atomic import out_of_memory
from colordist.files.paths import impossible, model_path

VERBS = ("train", "evaluate", "colorize", "export", "push", "report", "doctor", "demo")
MODEL_HELP = (
    "Run folder, snapshot folder, bundled model (photos-small or photos-hints), or the Hub's user/name[@revision]."
)
STEPS_HELP = "Steps of a flow's solver. Default: as trained."
IMPORT_HELP = "Module that registers components. May be repeated."
_GRACE = 15.0  # seconds


class ArgumentParser(argparse.ArgumentParser):
    """Parser of a verb's own options. Raises UserError for a mistake, so parse inside of ``run``."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError, in place of argparse's usage and exit."""
        raise UserError(f"{' '.join(message.split())}: try --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401  as argparse's own
        """Parse as argparse does, but for a second `--`, which Python before 3.13 takes for an empty positional."""
        found, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            if not action.option_strings and action.nargs is None and getattr(found, action.dest, None) == []:
                self.error(f"the following arguments are required: {action.metavar}")
        return found, rest


def path(text: str) -> Path:
    """Type of an option that names a path."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: name a path")
    return Path(text)


def model(text: str) -> Path:
    """Type of an option MODEL."""
    return path(text) and model_path(text)


def run(verb: Callable[[], None]) -> None:
    """Run a verb and exit: 0 when it returns, 2 for a user's mistake, 1 for anything else.

    With several processes rank 0 prints a mistake that all of them find. The others wait, since a launcher stops all
    processes when one has failed; after _GRACE they print it themselves.
    """
    streams.protect()
    sys.excepthook = show_traceback
    warnings.filterwarnings("ignore", module="jsonargparse")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # no page of C++ frames after a lost connection
    launch.let_threads_sleep()
    is_main = launch.is_first()
    if not is_main:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # rank 0 shows them
    log = logging.getLogger("colordist")
    log.addHandler(log_handler())
    log.setLevel(logging.INFO if is_main else logging.ERROR)  # all ranks log the same
    try:
        _answer(verb)
    except (UserError, RunError) as error:
        if is_main:
            _print_mistake(error)
        monitor.fail(str(error))
        if not is_main:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # from the launcher, after rank 0 has printed
            time.sleep(_GRACE)
            _print_mistake(error)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except KeyboardInterrupt:
        if is_main:
            _print_mistake("interrupted; run the same command again")
        monitor.fail("interrupted")
        sys.exit(1)
    except Exception as error:
        monitor.fail(repr(error))
        if line := impossible(error):
            _print_mistake(line)
            sys.exit(2)
        if not out_of_memory(error):
            raise
        _print_mistake(f"out of memory ({one_line(error, 200)}): try a smaller train.micro_batch_size or model")
        sys.exit(1)


def _answer(verb: Callable[[], None]) -> None:
    """Run a verb to its end, also by ``--help``. Raises RunError where its output was lost."""
    try:
        _check_surroundings()
        verb()
    except SystemExit as end:
        if not end.code:
            streams.require_output()
        raise
    streams.require_output()


def _check_surroundings() -> None:
    """Raise UserError for environment variables and folders that libraries would fail at."""
    variables.check()
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(f"the current folder can't be read ({error.strerror}): change into another one") from None
    try:
        tempfile.gettempdir()
    except OSError:
        raise UserError("there is no folder for temporary files that can be written: set TMPDIR to one") from None


def _print_mistake(what: Exception | str) -> None:
    """Print one line of limited length, whatever the user gave and the message repeats."""
    say(f"colordist: {shortened(str(what))}", error=True)


def main() -> None:
    """``colordist VERB ...``: the same as ``python -m colordist.VERB ...``."""
    import importlib

    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb not in VERBS:
        run(lambda: _print_usage(verb))
        return
    sys.argv = [f"colordist {verb}", *sys.argv[2:]]
    importlib.import_module(f"colordist.{verb}").main()


def _print_usage(verb: str) -> None:
    """Answer ``colordist --help``. Raises UserError for anything that is no verb."""
    if verb not in ("-h", "--help"):
        nearest = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0)[0]
        raise UserError(legacy.removed_verb(verb) or f"unknown verb {verb!r}: did you mean {nearest}?")
    say(f"usage: colordist {{{','.join(VERBS)}}} ...\n\ncolordist VERB --help: options of a verb.")
