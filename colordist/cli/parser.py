"""Command line parsing: first the names of components, then their settings.

Plain ``--help`` and an unknown common key don't import components, and so not torch.
"""

import dataclasses
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from colordist import registry
from colordist.cli import IMPORT_HELP, legacy
from colordist.cli.layout import new_parser
from colordist.cli.mistakes import BASES, one_line, unknown_key, wanted
from colordist.config import COMMON, Config
from colordist.errors import UserError
from colordist.files.atomic import reason
from colordist.files.documents import Malformed, as_yaml, parse_yaml
from colordist.files.opening import MOST_BYTES, NotRegular, TooLarge, read_regular
from colordist.optimizers import GeneratorOptimizerConfig, OptimizerConfig
from colordist.registry import NAME_KEYS, Names
from colordist.secrets import redacted

QUICKSTART = "quickstart_cgan"


@dataclass(frozen=True)
class Command:
    """A parsed command line of ``train``."""

    config: Config
    file: Path | None
    """The config file; None for the quickstart's defaults."""
    dry_run: bool
    """Print settings and memory estimate, and stop."""
    print_run_dir: bool = False
    """Print the run folder and stop."""

    @property
    def name(self) -> str:
        """The config file's stem."""
        return self.file.stem if self.file else QUICKSTART


def parse(arguments: list[str] | None = None) -> Command:
    """Parse the command line of ``train``. Exits after ``--help`` and ``--print_config``.

    Raises UserError for an unknown key, a wrong type, a value out of range or an impossible combination.
    """

    def add_options(parser: Any) -> None:  # noqa: ANN401  a jsonargparse parser
        parser.add_argument(
            "--dry_run", action="store_true", help="Print settings, batches, parameters and memory estimate; stop."
        )
        parser.add_argument("--print_run_dir", action="store_true", help="Print the run folder; stop.")

    description = "Train an image colourization network. Settings: YAML file, then --section.key value."
    config, file, options = read_config("train", description, arguments, add_options)
    return Command(config, file, options["dry_run"], options["print_run_dir"])


def read_config(
    verb: str, description: str, arguments: list[str] | None, add_options: Callable[[Any], None]
) -> tuple[Config, Path | None, dict[str, Any]]:
    """Read the config, its file if there is one, and the options of ``add_options``."""
    given = Given.read(sys.argv[1:] if arguments is None else arguments)
    if given.help and not given.names:
        _print_help(verb, description, add_options)
    _check_common(given)
    registry.load_modules(given.modules)
    selected = _selected(given.names)
    kinds = registry.sections(selected)
    optimizers = registry.optimizers(selected)
    parser = new_parser(verb, description, documented=given.shows_docstrings)
    add_options(parser)
    added = {action.dest for action in parser._actions} - {"help", "config", "import"}
    _add_sections(parser, kinds, optimizers)
    parser.set_defaults({key: value for key, value in zip(NAME_KEYS, dataclasses.astuple(selected), strict=True)
                         if key.partition(".")[0] in kinds})  # fmt: skip
    found = vars(read(parser, given.compatible_arguments(selected), _keys(kinds | COMMON, optimizers), selected))
    options = {name: found.pop(name) for name in added if name in found}
    found.pop("config"), found.pop("import", None)
    optimizer = dict(vars(found.pop("optimizer")))
    config = Config(**{"discriminator": None, **found, "optimizer": optimizer})
    return config, Path([*given.files][-1]) if given.files else None, options


def _selected(names: Mapping[str, Any]) -> Names:
    """Names of the components. Raises UserError for a source that has been removed."""
    selected = Names.of(names)
    if selected.source not in registry.names("source") and (line := legacy.removed_source(selected.source)):
        raise UserError(line)
    return selected


@dataclass(frozen=True)
class Given:
    """First pass over command line and config files, before the set of keys is known."""

    arguments: list[str]
    help: bool
    modules: list[str]
    """Modules of ``--import``."""
    names: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Names of components, by section."""
    keys: list[str] = field(default_factory=list)
    """All `section.key` in files and arguments."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Content of each ``--config`` file, by path."""

    @classmethod
    def read(cls, arguments: Sequence[str]) -> "Given":
        """Scan arguments and config files. Raises UserError for an unreadable file, or a key of version 0.1."""
        values = _options(arguments)
        modules = [value for key, value in values if key == "import"]
        names: dict[str, dict[str, Any]] = {}
        keys: list[str] = []
        files = {value: _load(value) for key, value in values if key == "config"}
        for settings in files.values():
            modules += _modules(settings)
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

    @property
    def shows_docstrings(self) -> bool:
        """Whether docstrings of settings are shown: to find them in the sources takes longer than all other parsing."""
        return self.help or any(each.startswith("--print_config") for each in self.arguments)

    def compatible_arguments(self, selected: Names) -> list[str]:
        """The arguments, with the content of files in place of their names: files are read once, and as UTF-8.

        Of files that name other components, the settings that still exist.
        """
        texts = {path: as_yaml(_compatible(settings, selected)) for path, settings in self.files.items()}
        found = []
        for before, argument in pairwise(["", *self.arguments]):
            key, _, path = argument.partition("=")
            if before == "--config":
                found.append(texts[argument])
            else:
                found.append(f"--config={texts[path]}" if key == "--config" and argument != key else argument)
        return found


def _compatible(settings: Mapping[str, Any], selected: Names) -> dict[str, Any]:
    """A file's settings without those of components that the command line replaces."""
    replaced, dropped = {}, set()
    for each, key in zip(dataclasses.fields(Names), NAME_KEYS, strict=True):
        section, _, name = key.partition(".")
        in_file = settings[section].get(name) if isinstance(settings.get(section), dict) else None
        if isinstance(in_file, str) and in_file != getattr(selected, each.name):
            replaced[each.name] = in_file
            dropped.add(key)
    if not replaced:
        return dict(settings)
    named = dataclasses.replace(selected, **replaced)
    before, after = (_keys(registry.sections(each), registry.optimizers(each)) for each in (named, selected))
    return _without(settings, dropped | (before.keys() - after.keys()))


def _without(settings: Mapping[str, Any], keys: set[str], prefix: str = "") -> dict[str, Any]:
    """Settings without some keys, and without sections that become empty."""
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
    """Load a config file. Raises UserError if it is unreadable, or not a mapping."""
    if not path:
        raise UserError("--config is empty: name a file, or leave it out")
    try:
        settings = parse_yaml(read_regular(path, MOST_BYTES))
    except FileNotFoundError:
        raise UserError(f"--config: there is no file {path}") from None
    except (NotRegular, TooLarge) as error:
        raise UserError(f"--config: {error}") from None
    except OSError as error:
        raise UserError(f"--config: {path} can't be read ({reason(error)})") from None
    except Malformed as error:
        raise UserError(f"--config: {path}: {error}") from None
    if not isinstance(settings, dict):
        raise UserError(f"--config: {path} is no YAML of `section: {{key: value}}`: it has {settings!r:.50}")
    if line := legacy.hint_for(settings) or _misplaced(settings):
        raise UserError(f"--config {path}: {line}")
    return settings


def _misplaced(settings: Mapping[Any, Any]) -> str | None:
    """One line for the first key of a file that must be a section and isn't, or the other way round."""
    sections, optimizer = {**settings}, settings.get("optimizer")
    if isinstance(optimizer, dict):
        known = {each.name for each in dataclasses.fields(OptimizerConfig)}  # a name left out: an unknown key
        sections |= {f"optimizer.{name}": value for name, value in optimizer.items() if name not in known}
    for key, value in sections.items():
        section, _, name = str(key).partition(".")
        if section == "config":
            return "a file can't name another one: give --config several times"
        if name and key in settings:
            return f"write {key} as `{section}: {{{name}: ...}}`"
        if not isinstance(value, dict) and (section in COMMON or section in BASES or section == "optimizer"):
            return f"{key} is {'empty' if value is None else repr(value)}, but must be a section: {key}: {{KEY: value}}"
    return None


def _modules(settings: Mapping[str, Any]) -> list[str]:
    """A file's `import`: a module or a list of modules."""
    found = settings.get("import") or []
    return [str(each) for each in (found if isinstance(found, list) else [found])]


def _check_common(given: Given) -> None:
    """Raise UserError for an unknown key in a common section."""
    for key in given.keys:
        section, _, name = key.partition(".")
        if section in COMMON:
            known = [each.name for each in dataclasses.fields(COMMON[section])]
            if name not in known:
                raise UserError(unknown_key(key, [*_keys(COMMON, {}), *_keys(BASES, {})]))


def _print_help(verb: str, description: str, add_options: Callable[[Any], None]) -> None:
    """Print common settings and the names of components; exit."""
    listed = [f"  --{registry.key_of(kind)}: {', '.join(registry.names(kind))}" for kind in registry.OURS]
    epilog = "Components (a name and --help list the settings of one):\n" + "\n".join(listed)
    parser = new_parser(verb, description, epilog=epilog)
    add_options(parser)
    _add_sections(parser, BASES, {"generator": GeneratorOptimizerConfig, "discriminator": OptimizerConfig})
    parser.set_defaults(dict(zip(NAME_KEYS, dataclasses.astuple(Names()), strict=True)))
    parser.print_help()
    sys.exit(0)


def _add_sections(parser: Any, kinds: Mapping[str, type], optimizers: Mapping[str, type]) -> None:  # noqa: ANN401
    parser.add_argument("--config", action="config", help=f"YAML file of settings. Default: {QUICKSTART}.")
    parser.add_argument("--import", action="append", metavar="MODULE", help=IMPORT_HELP)
    parser.add_argument(
        "--seed", type=int, default=Config.seed, help="Seed of initial weights, data order, augmentation and noise."
    )
    parser.add_argument(
        "--resume",
        type=Literal["auto", "never"],
        default=Config.resume,
        help="`auto`: resume the run in the run folder, if there is one. `never`: refuse to.",
    )
    for section, kind in (dict(kinds) | COMMON).items():
        parser.add_class_arguments(kind, section)
    for name, kind in optimizers.items():
        parser.add_class_arguments(kind, f"optimizer.{name}")
    _hide_sections(parser)


def _hide_sections(parser: Any) -> None:  # noqa: ANN401  a jsonargparse parser
    """Leave jsonargparse's own ``--SECTION FILE`` out of the help: a section is no option here."""
    known = {action.dest for action in parser._actions}
    for action in parser._actions:
        if any(key.startswith(f"{action.dest}.") for key in known):
            action.help = SUPPRESS


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
    """Read some sections, as dataclasses, and the options of ``add_options``: for verbs without a full config.

    usual: default settings by section; those that the source doesn't have are ignored.
    """
    given, usual = Given.read(sys.argv[1:] if arguments is None else arguments), usual or {}
    registry.load_modules([*modules, *given.modules])
    selected = _selected({"data": {**usual.get("data", {}), **given.names.get("data", {})}})
    kinds = {**COMMON, "data": registry.component("source", selected.source).Settings}
    kinds = {section: kinds[section] for section in wanted}
    parser = new_parser(verb, description, documented=given.shows_docstrings)
    parser.add_argument("--import", action="append", metavar="MODULE", help=IMPORT_HELP)
    add_options(parser)
    for section, kind in kinds.items():
        parser.add_class_arguments(kind, section)
        known = {each.name for each in dataclasses.fields(kind)}
        settings = {key: value for key, value in usual.get(section, {}).items() if key in known}
        parser.set_defaults({f"{section}.{key}": value for key, value in settings.items()})
    _hide_sections(parser)
    if "data" in kinds:
        parser.set_defaults({"data.source": selected.source})
    return dict(vars(read(parser, given.arguments, _keys(kinds, {}), selected)))


def read(parser: Any, arguments: Sequence[str], keys: Mapping[str, Any], selected: Names) -> Any:  # noqa: ANN401
    """Parse into dataclasses. Raises UserError for a mistake in the arguments.

    keys: known keys with their types.
    """
    try:
        found = parser.parse_args(list(arguments))
        for key, value in found.items():
            _check_text(key, value)
            if value is None and key in keys and type(None) not in get_args(keys[key]):
                raise UserError(f"{key} is null, but must be {wanted(keys[key], 'null')}")
        settings = parser.instantiate(found)
        for metric in settings.evaluate.metrics if "evaluate" in settings else ():  # before anything is read
            name = metric["name"] if isinstance(metric, dict) else metric
            if line := legacy.removed_metric(name):
                raise UserError(line)
            registry.check_name("metric", name)
        return settings
    except UserError:
        raise
    except Exception as error:
        sections = {key.partition(".")[0] for key in keys if "." in key}
        options = {
            action.dest: getattr(action, "_typehint", None) or action.type
            for action in parser._actions
            if action.dest.partition(".")[0] not in sections and not action.dest.endswith("_shtab")
        }
        raise UserError(one_line(str(error), {**options, **keys}, selected)) from None


def _check_text(key: str, value: Any) -> None:  # noqa: ANN401  any value
    """Raise UserError for a text that names nothing, empty or with a NUL character, or one with a secret."""
    if isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_text(key, inner)
    elif value == "":
        raise UserError(f"{key} is empty: give a value, or leave it out")
    elif isinstance(value, str) and "\0" in value:
        raise UserError(f"{key} has a NUL character: leave it out")
    elif isinstance(value, str) and redacted(value) != value:
        raise UserError(f"{key} holds a password or a token, and settings are written into files: leave it out")


def _keys(kinds: Mapping[str, type], optimizers: Mapping[str, type]) -> dict[str, Any]:
    """All keys with their types: ``{"train.steps": int, ...}``."""
    found: dict[str, Any] = {"seed": int, "resume": Literal["auto", "never"]}
    for section, kind in {**kinds, **{f"optimizer.{name}": kind for name, kind in optimizers.items()}}.items():
        hints = get_type_hints(kind)
        found |= {f"{section}.{each.name}": hints[each.name] for each in dataclasses.fields(kind)}
    return found
