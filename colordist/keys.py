"""Settings by section, ``{"train": {"steps": 5}}``, and by dotted key, ``{"train.steps": 5}``."""

from collections.abc import Mapping
from typing import Any

from colordist.config import Value


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"train.steps": 5}`` to ``{"train": {"steps": 5}}``."""
    found: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        inner = found
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return found


def flatten(section: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """``{"train": {"steps": 5}}`` to ``{"train.steps": 5}``."""
    flat: dict[str, Value] = {}
    for key, value in section.items():
        if isinstance(value, dict) and key != "lr_scales":  # a setting, not a section
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
