"""One line for a mistake on the command line or in a config file: the key, the value and the nearest valid one."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from colordist import registry
from colordist.registry import Names
from colordist.secrets import redacted

KINDS: dict[str, registry.Kind] = {
    "task": "task",
    "model": "model",
    "discriminator": "discriminator",
    "data": "source",
}
"""Kind of component, by settings section."""
_MOST = 60  # characters of a wrong value that are shown
BASES = {section: registry.BASES[kind] for section, kind in KINDS.items()}
"""Base class of a component's settings, by section."""


def one_line(message: str, keys: Mapping[str, Any], selected: Names) -> str:
    """Rewrite jsonargparse's message as one line: the key, the value and the nearest valid one."""
    if unknown := re.search(r"unrecognized arguments: (.*)", message):
        argument = next(iter(unknown[1].split()), "")
        if not argument.startswith("--"):
            return f"unexpected argument {argument!r}: settings are given as --section.key value"
        key = argument.removeprefix("--").split("=")[0]
        return _of_another(key, selected) or unknown_key(key, [*keys])
    if unknown := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        key = f"{unknown[1]}.{unknown[2]}"
        return _of_another(key, selected) or unknown_key(key, list(keys))
    if unknown := re.search(r"Option '([\w.]+)' is not accepted", message):
        return _of_another(unknown[1], selected) or unknown_key(unknown[1], list(keys))
    if nested := re.search(r'key "([\w.]+)":.*Got value: NestedArg\(key=\'([\w.]+)\'', message, re.DOTALL):
        return unknown_key(f"{nested[1]}.{nested[2]}", list(keys))
    if wrong := re.search(r'key "([\w.]+)":.*(?:Got value|Given value): (.*)', message, re.DOTALL):
        key, value = wrong[1], redacted(wrong[2].partition("\n")[0])[:_MOST]
        if key in keys:
            return f"{key} is {value!r}, but must be {wanted(keys[key], value)}"
    if section := re.search(r'Parser key "([\w.]+)":\s+Unable to load config', message):
        first = next(key for key in keys if key.startswith(f"{section[1]}."))
        return f"{section[1]} is a section, not a key: set its keys, as in --{first}"
    return " ".join(message.split())


def _of_another(key: str, selected: Names) -> str | None:
    """One line for a key of a component that isn't selected; None for any other."""
    section, _, name = key.partition(".")
    if section in ("discriminator", "optimizer"):
        task = registry.component("task", selected.task).Settings
        network = section if section == "discriminator" else name.partition(".")[0]
        if network == "discriminator" and not task.has_discriminator:
            return f"{key}: task {selected.task} has no discriminator: remove it, or choose --task.name cgan"
    kind = KINDS.get(section)
    current = getattr(selected, kind, None) if kind else None
    common = {each.name for each in dataclasses.fields(BASES[section])} if kind else set()
    for other in registry.OURS[kind] if kind else ():
        settings = registry.component(kind, other).Settings  # type: ignore[arg-type]
        if other != current and name in {each.name for each in dataclasses.fields(settings)} - common:
            setting = registry.key_of(kind)  # type: ignore[arg-type]
            return (
                f"{key} is a setting of {setting} {other}, not of {current}: remove it, or choose --{setting} {other}"
            )
    return None


def unknown_key(key: str, keys: Sequence[str]) -> str:
    """One line for an unknown key, with the nearest known one."""
    nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0)
    # The right name in a wrong section is preferred to another name in the right one.
    namesakes = [known for known in keys if known.split(".")[-1] == key.split(".")[-1]]
    return f"unknown key {key}: did you mean {(namesakes or nearest)[0]}? --help lists them all"


def wanted(hint: Any, value: str) -> str:  # noqa: ANN401  any type that a field may have
    """Describe the valid values of a type. value: the invalid one."""
    if get_origin(hint) is Literal:
        choices = [str(choice) for choice in get_args(hint)]
        nearest = difflib.get_close_matches(value, choices, n=1, cutoff=0)[0]
        return f"one of {', '.join(choices)}: did you mean {nearest}?"
    if get_origin(hint) is dict:
        return "a dict, as in {KEY: number}"
    if get_origin(hint) is list:
        (element,) = get_args(hint)
        return f"a list, as in [{', '.join(get_args(element)) if get_origin(element) is Literal else 'A, B'}]"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    parts = get_args(hint) or (hint,)
    return " or ".join(wanted(part, value) if get_origin(part) else words.get(part, str(part)) for part in parts)
