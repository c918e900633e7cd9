"""Entry point of verbs: errors as one line and an exit code. Settings: parser.py."""

import argparse
import difflib
import io
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import NoReturn

from colordist.cli import legacy
from colordist.config import RunError, UserError, one_line, printable
from colordist.console import log_handler, say
from colordist.engine import launch, monitor
from colordist.files.atomic import out_of_memory

VERBS = ("train", "evaluate", "colorize", "export", "push", "report", "doctor")
MODEL_HELP = "Run folder, snapshot folder, name of a bundled model (photos-small), or the Hub's user/name[@revision]."
STEPS_HELP = "Steps of a flow's solver. Default: as trained."
IMPORT_HELP = "Module that registers components. May be repeated."
_GRACE = 15.0  # seconds


class ArgumentParser(argparse.ArgumentParser):
    """Parser of a verb's own options. Raises UserError for a mistake, so parse inside of ``run``."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError, in place of argparse's usage and exit."""
        raise UserError(f"{' '.join(message.split())}: try --help")


def run(verb: Callable[[], None]) -> None:
    """Run a verb and exit: 0 when it returns, 2 for a user's mistake, 1 for anything else.

    With several processes rank 0 prints a mistake that all of them find. The others wait, since a launcher stops all
    processes when one has failed; after _GRACE they print it themselves.
    """
    warnings.filterwarnings("ignore", module="jsonargparse")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # no page of C++ frames after a lost connection
    launch.let_threads_sleep()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # e.g. arrows on an ASCII terminal
    is_main = launch.is_first()
    if not is_main:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # rank 0 shows them
    log = logging.getLogger("colordist")
    log.addHandler(log_handler())
    log.setLevel(logging.INFO if is_main else logging.ERROR)  # all ranks log the same
    try:
        verb()
    except (UserError, RunError) as error:
        if is_main:
            say(printable(f"colordist: {error}"), error=True)
        monitor.fail(str(error))
        if not is_main:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # from the launcher, after rank 0 has printed
            time.sleep(_GRACE)
            say(printable(f"colordist: {error}"), error=True)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except KeyboardInterrupt:
        if is_main:
            say("colordist: interrupted; run the same command again", error=True)
        monitor.fail("interrupted")
        sys.exit(1)
    except Exception as error:
        monitor.fail(repr(error))
        if not out_of_memory(error):
            raise
        reason = one_line(error, 200)
        say(f"colordist: out of memory ({reason}): try a smaller train.micro_batch_size or model", error=True)
        sys.exit(1)


def main() -> None:
    """``colordist VERB ...``: the same as ``python -m colordist.VERB ...``."""
    import importlib

    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        say(f"usage: colordist {{{','.join(VERBS)}}} ...\n\ncolordist VERB --help: options of a verb.")
        return
    if verb not in VERBS:
        nearest = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0)[0]
        line = legacy.removed_verb(verb) or f"unknown verb {verb!r}: did you mean {nearest}?"
        say(f"colordist: {line}", error=True)
        sys.exit(2)
    sys.argv = [f"colordist {verb}", *sys.argv[2:]]
    importlib.import_module(f"colordist.{verb}").main()
