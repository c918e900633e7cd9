"""From the command line to a Config, and from an error to one line and an exit code."""

import difflib
import io
import logging
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from colordist.config import Config, RunError, UserError
from colordist.engine import launch, monitor

VERBS = ("train", "evaluate", "colorize", "export", "report", "doctor", "classifier")
QUICKSTART = "quickstart_cgan"
_GRACE = 15.0  # seconds


@dataclass(frozen=True)
class Command:
    """What the user asked the trainer for."""

    config: Config
    file: Path | None
    """The config file; None for the quickstart's defaults."""
    dry_run: bool
    """Only tell what would be done."""
    print_run_dir: bool = False
    """Only tell where: for scripts."""

    @property
    def name(self) -> str:
        """The config file's stem."""
        return self.file.stem if self.file else QUICKSTART


def parse(arguments: list[str] | None = None) -> Command:
    """Read ``--config FILE``, then ``--section.key value``. Exits after ``--help`` and ``--print_config``.

    Raises UserError for an unknown key, a wrong type, a value out of range or an impossible combination.
    """
    parser = new_parser("train", "Train a network that colours grey images. Settings: YAML, then --section.key value.")
    parser.add_argument("--config", action="config", help=f"YAML file of settings. Default: {QUICKSTART}.")
    parser.add_argument("--dry_run", action="store_true", help="Print settings, batches, parameters, memory; stop.")
    parser.add_argument("--print_run_dir", action="store_true", help="Print the run folder; stop.")
    parser.add_class_arguments(Config, as_group=False)
    config = read(parser, arguments)
    dry_run, print_run_dir, files = config.pop("dry_run"), config.pop("print_run_dir"), config.pop("config")
    return Command(Config(**vars(config)), Path(str(files[-1])) if files else None, dry_run, print_run_dir)


def new_parser(verb: str, description: str) -> Any:  # noqa: ANN401  jsonargparse is imported only here
    """A parser of one verb's options."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    usage = "%(prog)s [--config FILE] [--section.key VALUE ...] [--dry_run] [--print_config] [--help]"
    return ArgumentParser(
        prog=f"colordist {verb}",
        description=description,
        usage=usage,
        exit_on_error=False,
        allow_abbrev=False,
    )


def read(parser: Any, arguments: list[str] | None = None) -> Any:  # noqa: ANN401
    """What a parser makes of the arguments, dataclasses built. Raises UserError for a mistake in them."""
    try:
        chosen = parser.parse_args(arguments)
        keys = _keys()
        for key, value in chosen.items():
            if value is None and key in keys and type(None) not in get_args(keys[key]):
                raise UserError(f"{key} is null, but must be {_wanted(keys[key], 'null')}")
        return parser.instantiate(chosen)
    except UserError:
        raise
    except Exception as error:
        raise UserError(_one_line(str(error))) from None


def _keys(section: type = Config, prefix: str = "") -> dict[str, Any]:
    """Every key with its type: ``{"train.steps": int, ...}``."""
    keys: dict[str, Any] = {}
    for name, hint in get_type_hints(section).items():
        keys |= _keys(hint, f"{prefix}{name}.") if hasattr(hint, "__dataclass_fields__") else {prefix + name: hint}
    return keys


def _one_line(message: str) -> str:
    """Say what the parser's message says in one line that names the key, the value and the nearest valid one."""
    keys = _keys()
    if unknown := re.search(r"unrecognized arguments: (.*)", message):
        argument = unknown[1].split()[0]
        if not argument.startswith("--"):
            return f"unexpected argument {argument!r}: settings are given as --section.key value"
        return _unknown_key(argument.removeprefix("--").split("=")[0], [*keys, "config", "dry_run", "print_config"])
    if unknown := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return _unknown_key(f"{unknown[1]}.{unknown[2]}", list(keys))
    if unknown := re.search(r"Option '([\w.]+)' is not accepted", message):
        return _unknown_key(unknown[1], list(keys))
    if missing := re.search(r"File does not exist: (.*)", message):
        return f"--config: there is no file {missing[1]}"
    if "parsing config" in message or "Unexpected config" in message or "codec can't decode" in message:
        return "--config: the file is no YAML of `section: {key: value}`: " + " ".join(message.split())
    if "must be a mapping" in message:
        return "--config: each section of the file must hold keys, as in `train: {steps: 100}`"
    if wrong := re.search(r'key "([\w.]+)":.*(?:Got value|Given value): (.*)', message, re.DOTALL):
        key, value = wrong[1], wrong[2].splitlines()[0]
        if key in keys:
            return f"{key} is {value!r}, but must be {_wanted(keys[key], value)}"
    if section := re.search(r'Parser key "(\w+)":\s+Unable to load config', message):
        first = next(key for key in keys if key.startswith(f"{section[1]}."))
        return f"{section[1]} is a section, not a key: give its keys one by one, as --{first}"
    return " ".join(message.split())


def _unknown_key(key: str, keys: list[str]) -> str:
    nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0)
    # A right name in the wrong section is nearer than any other name in the right one.
    namesakes = [known for known in keys if known.split(".")[-1] == key.split(".")[-1]]
    return f"unknown key {key}: did you mean {(namesakes or nearest)[0]}? --help lists them all"


def _wanted(hint: Any, value: str) -> str:  # noqa: ANN401  any type that a field may have
    if get_origin(hint) is Literal:
        choices = [str(choice) for choice in get_args(hint)]
        nearest = difflib.get_close_matches(value, choices, n=1, cutoff=0)[0]
        return f"one of {', '.join(choices)}: did you mean {nearest}?"
    if get_origin(hint) in (list, dict):
        form = "[A, B]" if get_origin(hint) is list else "{KEY: number}"
        return f"a {get_origin(hint).__name__}, as in {form}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return " or ".join(words.get(part, str(part)) for part in get_args(hint) or (hint,))


def run(verb: Callable[[], None]) -> None:
    """Run a verb and exit: 0 when it returns, 2 for a mistake of the user's, 1 for anything else.

    With several processes a mistake is found by all of them, and told once, by the first. The others give it the time
    to: a launcher ends all processes as soon as one has failed. One that is still there after that speaks for itself.
    """
    warnings.filterwarnings("ignore", module="jsonargparse")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost connection would be told by a page of C++ frames
    launch.let_threads_sleep()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # arrows, where the terminal has none
    is_main = launch.is_first()
    log = logging.getLogger("colordist")
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO if is_main else logging.ERROR)  # all would say the same
    try:
        verb()
    except (UserError, RunError) as error:
        if is_main:
            print(f"colordist: {error}", file=sys.stderr, flush=True)
        monitor.fail(str(error))
        if not is_main:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a launcher's, when the first process has told it
            time.sleep(_GRACE)
            print(f"colordist: {error}", file=sys.stderr, flush=True)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except KeyboardInterrupt:
        if is_main:
            print("colordist: interrupted; the same command continues", file=sys.stderr)
        monitor.fail("interrupted")
        sys.exit(1)
    except Exception as error:
        monitor.fail(repr(error))
        raise


def main() -> None:
    """``colordist VERB ...``: the same as ``python -m colordist.VERB ...``."""
    import importlib

    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        print(f"usage: colordist {{{','.join(VERBS)}}} ...\n\ncolordist VERB --help tells more.")
        return
    if verb not in VERBS:
        nearest = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0)[0]
        print(f"colordist: unknown verb {verb!r}: did you mean {nearest}?", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"colordist {verb}", *sys.argv[2:]]
    importlib.import_module(f"colordist.{verb}").main()
