"""SECURITY.md names the tests of its promises."""

import re

import pytest
from helpers import ROOT

TEXT = (ROOT / "SECURITY.md").read_text("utf-8")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tests|colordist)/[\w/.]+)`", TEXT))))
def test_what_it_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_a_runs_settings_import_nothing() -> None:
    """Modules are imported for arguments and ``--config`` files alone."""
    callers = [file.name for file in (ROOT / "colordist").rglob("*.py") if "load_modules(" in file.read_text("utf-8")]
    verbs = ["colorize.py", "demo.py", "export.py", "push.py", "report.py"]
    assert sorted(callers) == sorted([*verbs, "parser.py", "registry.py"])
