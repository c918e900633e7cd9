"""The dependency audit: what it makes of pip-audit's answers."""

import sys

import pytest
from helpers import ROOT

sys.path.insert(0, str(ROOT / "tests"))
import audit


def package(name: str, *ids: str) -> dict[str, object]:
    return {"name": name, "version": "1", "vulns": [{"id": each, "fix_versions": ["2"]} for each in ids]}


UNKNOWN: dict[str, object] = {"name": "unknown", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code", "told"),
    [
        ([UNKNOWN], 0, "skipped"),
        ([UNKNOWN, package("torch")], 0, "1 of 2 packages, 0 vulnerabilities"),
        ([package("torch", "PYSEC-1")], 1, "torch 1: PYSEC-1, mended in 2"),
        ([package("torch", "PYSEC-0")], 0, "0 vulnerabilities"),
    ],
)
def test_a_vulnerability_fails_and_no_data_does_not(
    packages: list[dict[str, object]],
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(audit, "IGNORED", {"PYSEC-0": "not used here"})
    assert audit.judge(packages) == code
    assert told in capsys.readouterr().out
