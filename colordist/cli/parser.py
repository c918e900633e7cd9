"""From the command line to settings: the names of components first, then the settings that these have.

Plain ``--help`` and an unknown common key answer without importing a component, and so without torch.
"""

import dataclasses
import difflib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from colordist import registry
from colordist.cli import IMPORT_HELP, legacy
from colordist.config import (
    COMMON,
    Config,
    DataConfig,
    DiscriminatorSettings,
    GeneratorOptimizerConfig,
    GeneratorSettings,
    OptimizerConfig,
    TaskSettings,
    UserError,
)
from colordist.registry import NAME_KEYS, Names

QUICKSTART = "quickstart_cgan"
_BASES: dict[str, type] = {
    "task": TaskSettings,
    "model": GeneratorSettings,
    "discriminator": DiscriminatorSettings,
    "data": DataConfig,
}
_KINDS: dict[str, registry.Kind] = {
    "task": "task",
    "model": "model",
    "discriminator": "discriminator",
    "data": "source",
}
_USAGE = "%(prog)s [--config FILE] [--section.key VALUE ...] [--import MODULE] [--help]"


@dataclass(frozen=True)
class Command:
    """What the user asked the trainer for."""

    config: Config
    file: Path | None
    """The config file; None for the quickstart's defaults."""
    dry_run: bool
    """Only print what would be done."""
    print_run_dir: bool = False
    """Only print the run folder: for scripts."""

    @property
    def name(self) -> str:
        """The config file's stem."""
        return self.file.stem if self.file else QUICKSTART


def parse(arguments: list[str] | None = None) -> Command:
    """Read the command line of ``train``. Exits after ``--help`` and ``--print_config``.

    Raises UserError for an unknown key, a wrong type, a value out of range or an impossible combination.
    """

    def add_options(parser: Any) -> None:  # noqa: ANN401  a jsonargparse parser
        parser.add_argument("--dry_run", action="store_true", help="Print settings, batches, parameters, memory; stop.")
        parser.add_argument("--print_run_dir", action="store_true", help="Print the run folder; stop.")

    description = "Train a network that colourises grey images. Settings: YAML, then --section.key value."
    config, file, options = read_config("train", description, arguments, add_options)
    return Command(config, file, options["dry_run"], options["print_run_dir"])


def read_config(
    verb: str, description: str, arguments: list[str] | None, add_options: Callable[[Any], None]
) -> tuple[Config, Path | None, dict[str, Any]]:
    """The config, its file if one was given, and the verb's own options."""
    given = Given.read(sys.argv[1:] if arguments is None else arguments)
    if given.help and not given.names:
        _print_help(verb, description, add_options)
    _check_common(given)
    registry.load_modules(given.modules)
    chosen = Names.of(given.names)
    kinds = registry.sections(chosen)
    optimizers = registry.optimizers(chosen)
    parser = new_parser(verb, description)
    add_options(parser)
    own = {action.dest for action in parser._actions} - {"help", "config", "import"}
    _add_sections(parser, kinds, optimizers)
    parser.set_defaults({key: value for key, value in zip(NAME_KEYS, dataclasses.astuple(chosen), strict=True)
                         if key.partition(".")[0] in kinds})  # fmt: skip
    found = vars(read(parser, given.fitting_arguments(chosen), _keys(kinds | COMMON, optimizers), chosen))
    options = {name: found.pop(name) for name in own if name in found}
    found.pop("config"), found.pop("import", None)
    optimizer = dict(vars(found.pop("optimizer")))
    config = Config(**{"discriminator": None, **found, "optimizer": optimizer})
    return config, Path([*given.files][-1]) if given.files else None, options


@dataclass(frozen=True)
class Given:
    """What can be seen on the command line before it is known which keys there are."""

    arguments: list[str]
    help: bool
    modules: list[str]
    """Of ``--import``."""
    names: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The names of components that were given, by section."""
    keys: list[str] = field(default_factory=list)
    """All keys with a section, from files and arguments."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of each ``--config``, by its path."""

    @classmethod
    def read(cls, arguments: Sequence[str]) -> "Given":
        """Look through arguments and config files. Raises UserError for a file that can't be read, or a key of 0.1."""
        values = _options(arguments)
        modules = [value for key, value in values if key == "import"]
        names: dict[str, dict[str, Any]] = {}
        keys: list[str] = []
        files = {value: _load(value) for key, value in values if key == "config"}
        for path, settings in files.items():
            if line := legacy.hint_for(settings):
                raise UserError(f"--config {path}: {line}")
            for name in NAME_KEYS:
                section, _, key = name.partition(".")
                if isinstance(settings.get(section), dict) and settings[section].get(key) is not None:
                    names.setdefault(section, {})[key] = settings[section][key]
            keys += [
                f"{section}.{key}" for section, inner in settings.items() if isinstance(inner, dict) for key in inner
            ]
        for key, value in values:
            if line := legacy.hint(key):
                raise UserError(line)
            section, _, rest = key.partition(".")
            if key in NAME_KEYS:
                names.setdefault(section, {})[rest] = value
            if rest:
                keys.append(key)
        wants_help = any(each in ("-h", "--help") for each in arguments)
        return cls(list(arguments), wants_help, modules, names, keys, files)

    def fitting_arguments(self, chosen: Names) -> list[str]:
        """The arguments, with the settings that fit in place of a file that names a component which isn't chosen."""
        texts: dict[str, str] = {}
        for path, settings in self.files.items():
            if (fitting := _fitting(settings, chosen)) != settings:
                text = yaml.safe_dump(fitting)
                texts |= {path: text, f"--config={path}": f"--config={text}"}
        return [texts.get(argument, argument) for argument in self.arguments]


def _fitting(settings: Mapping[str, Any], chosen: Names) -> dict[str, Any]:
    """A file's settings without those that only a component has which the command line replaces by another one."""
    replaced, gone = {}, set()
    for each, key in zip(dataclasses.fields(Names), NAME_KEYS, strict=True):
        section, _, name = key.partition(".")
        own = settings[section].get(name) if isinstance(settings.get(section), dict) else None
        if isinstance(own, str) and own != getattr(chosen, each.name):
            replaced[each.name] = own
            gone.add(key)
    if not replaced:
        return dict(settings)
    named = dataclasses.replace(chosen, **replaced)
    before, after = (_keys(registry.sections(each), registry.optimizers(each)) for each in (named, chosen))
    return _without(settings, gone | (before.keys() - after.keys()))


def _without(settings: Mapping[str, Any], keys: set[str], prefix: str = "") -> dict[str, Any]:
    """Settings without some keys, nor sections in which nothing is left."""
    found = {}
    for name, value in settings.items():
        rest = _without(value, keys, f"{prefix}{name}.") if isinstance(value, dict) else value
        if f"{prefix}{name}" not in keys and (rest or not isinstance(value, dict)):
            found[name] = rest
    return found


def _options(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """``--key value`` and ``--key=value`` as pairs."""
    found = []
    for index, argument in enumerate(arguments):
        if argument.startswith("--"):
            key, equals, value = argument[2:].partition("=")
            following = arguments[index + 1] if index + 1 < len(arguments) else ""
            found.append((key, value if equals else following))
    return found


def _load(path: str) -> dict[str, Any]:
    """The sections of a config file. Raises UserError for one that holds none."""
    try:
        settings = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"--config: there is no file {path}") from None
    except OSError as error:
        raise UserError(f"--config: {path} can't be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--config: the file is no YAML of `section: {{key: value}}`: {reason}") from None
    if not isinstance(settings, dict):
        raise UserError(f"--config: the file is no YAML of `section: {{key: value}}`: {path} holds {settings!r:.50}")
    return settings


def _check_common(given: Given) -> None:
    """Raise UserError for an unknown key in a section that every run has."""
    for key in given.keys:
        section, _, name = key.partition(".")
        if section in COMMON:
            known = [each.name for each in dataclasses.fields(COMMON[section])]
            if name not in known:
                raise UserError(_unknown_key(key, [*_keys(COMMON, {}), *_keys(_BASES, {})]))


def _print_help(verb: str, description: str, add_options: Callable[[Any], None]) -> None:
    """Print the settings that every run has and the names of components; exit."""
    listed = [f"  --{registry.key_of(kind)}: {', '.join(registry.names(kind))}" for kind in registry.OURS]
    epilog = "Components, each with settings of its own (give a name and --help to list them):\n" + "\n".join(listed)
    parser = new_parser(verb, description, epilog=epilog)
    add_options(parser)
    _add_sections(parser, _BASES, {"generator": GeneratorOptimizerConfig, "discriminator": OptimizerConfig})
    parser.print_help()
    sys.exit(0)


def new_parser(verb: str, description: str, usage: str = _USAGE, epilog: str | None = None) -> Any:  # noqa: ANN401
    """A parser of one verb's options."""
    from argparse import RawDescriptionHelpFormatter

    from jsonargparse import ArgumentParser, set_parsing_settings
    from jsonargparse._formatters import DefaultHelpFormatter

    class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
        """Keeps the lines of the epilog."""

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=f"colordist {verb}",
        description=description,
        usage=usage,
        epilog=epilog,
        formatter_class=Formatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    return parser


def _add_sections(parser: Any, kinds: Mapping[str, type], optimizers: Mapping[str, type]) -> None:  # noqa: ANN401
    parser.add_argument("--config", action="config", help=f"YAML file of settings. Default: {QUICKSTART}.")
    parser.add_argument("--import", action="append", metavar="MODULE", help=IMPORT_HELP)
    parser.add_argument("--seed", type=int, default=Config.seed, help="Seed of weights, order of images, augmentation.")
    parser.add_argument(
        "--resume",
        type=Literal["auto", "never"],
        default=Config.resume,
        help="`auto`: continue the run in the run folder, if there is one. `never`: refuse to.",
    )
    for section, kind in (dict(kinds) | COMMON).items():
        parser.add_class_arguments(kind, section)
    for name, kind in optimizers.items():
        parser.add_class_arguments(kind, f"optimizer.{name}")


def read_sections(
    verb: str,
    description: str,
    arguments: Sequence[str] | None,
    *,
    wanted: Sequence[str] = ("data", "evaluate"),
    usual: Mapping[str, Any] | None = None,
    modules: Sequence[str] = (),
    add_options: Callable[[Any], None] = lambda parser: None,
) -> dict[str, Any]:
    """Some sections, as dataclasses, and the verb's own options: for verbs that take no whole config.

    usual: settings by section that stand where none are given, as far as the source has them.
    """
    given, usual = Given.read(sys.argv[1:] if arguments is None else arguments), usual or {}
    registry.load_modules([*modules, *given.modules])
    chosen = Names.of({"data": {**usual.get("data", {}), **given.names.get("data", {})}})
    kinds = {**COMMON, "data": registry.component("source", chosen.source).Settings}
    kinds = {section: kinds[section] for section in wanted}
    parser = new_parser(verb, description)
    parser.add_argument("--import", action="append", metavar="MODULE", help=IMPORT_HELP)
    add_options(parser)
    for section, kind in kinds.items():
        parser.add_class_arguments(kind, section)
        known = {each.name for each in dataclasses.fields(kind)}
        settings = {key: value for key, value in usual.get(section, {}).items() if key in known}
        parser.set_defaults({f"{section}.{key}": value for key, value in settings.items()})
    parser.set_defaults({"data.source": chosen.source})
    return dict(vars(read(parser, given.arguments, _keys(kinds, {}), chosen)))


def read(parser: Any, arguments: Sequence[str], keys: Mapping[str, Any], chosen: Names) -> Any:  # noqa: ANN401
    """The result of a parser, with dataclasses. Raises UserError for a mistake in the arguments.

    keys: each known key with its type.
    """
    try:
        found = parser.parse_args(list(arguments))
        for key, value in found.items():
            if value is None and key in keys and type(None) not in get_args(keys[key]):
                raise UserError(f"{key} is null, but must be {_wanted(keys[key], 'null')}")
        return parser.instantiate(found)
    except UserError:
        raise
    except Exception as error:
        raise UserError(_one_line(str(error), keys, chosen)) from None


def _keys(kinds: Mapping[str, type], optimizers: Mapping[str, type]) -> dict[str, Any]:
    """Every key with its type: ``{"train.steps": int, ...}``."""
    found: dict[str, Any] = {"seed": int, "resume": Literal["auto", "never"]}
    for section, kind in {**kinds, **{f"optimizer.{name}": kind for name, kind in optimizers.items()}}.items():
        hints = get_type_hints(kind)
        found |= {f"{section}.{each.name}": hints[each.name] for each in dataclasses.fields(kind)}
    return found


def _one_line(message: str, keys: Mapping[str, Any], chosen: Names) -> str:
    """The parser's message as one line that names the key, the value and the nearest valid one."""
    if unknown := re.search(r"unrecognized arguments: (.*)", message):
        argument = unknown[1].split()[0]
        if not argument.startswith("--"):
            return f"unexpected argument {argument!r}: settings are given as --section.key value"
        key = argument.removeprefix("--").split("=")[0]
        return _of_another(key, chosen) or _unknown_key(key, [*keys, "config", "dry_run", "print_config", "import"])
    if unknown := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        key = f"{unknown[1]}.{unknown[2]}"
        return _of_another(key, chosen) or _unknown_key(key, list(keys))
    if unknown := re.search(r"Option '([\w.]+)' is not accepted", message):
        return _of_another(unknown[1], chosen) or _unknown_key(unknown[1], list(keys))
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


def _of_another(key: str, chosen: Names) -> str | None:
    """One line for a key that only a component has that was not chosen; None for any other."""
    section, _, name = key.partition(".")
    if section in ("discriminator", "optimizer"):
        task = registry.component("task", chosen.task).Settings
        network = section if section == "discriminator" else name.partition(".")[0]
        if network == "discriminator" and not task.has_discriminator:
            return f"{key}: task {chosen.task} has no discriminator: remove it, or choose --task.name cgan"
    kind = _KINDS.get(section)
    own = getattr(chosen, kind, None) if kind else None
    for other in registry.OURS[kind] if kind else ():
        settings = registry.component(kind, other).Settings  # type: ignore[arg-type]
        if other != own and name in {each.name for each in dataclasses.fields(settings)}:
            setting = registry.key_of(kind)  # type: ignore[arg-type]
            return f"{key} is a setting of {setting} {other}, not of {own}: remove it, or choose --{setting} {other}"
    return None


def _unknown_key(key: str, keys: Sequence[str]) -> str:
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
