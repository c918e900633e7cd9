"""Assessment of the facts of all processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from colordist.engine.preflight.facts import Facts

Status = Literal["ok", "warning", "failed"]

_SKEW = 1.0  # seconds of clock skew that file times bear; a cluster's authentication bears minutes
_SPACE = 2.0  # GiB of free space that a run folder should have


@dataclass(frozen=True)
class Finding:
    """One row of the table."""

    name: str
    status: Status
    value: str
    way_out: str = ""


def assess(facts: Sequence[Facts], run: Path) -> list[Finding]:
    """Assess the facts of all processes, in order of rank. Returns one finding per check."""
    hosts = list(dict.fromkeys(each.host for each in facts))
    findings = [Finding("processes", "ok", f"{len(facts)} on {len(hosts)} machines: {', '.join(hosts[:8])}")]
    for name in dict.fromkeys(name for each in facts for name in each.versions):
        findings.append(_compare(name, facts, [each.versions.get(name, "none") for each in facts]))
    devices = _compare("devices", facts, [each.devices for each in facts])
    findings.append(Finding("devices", "ok" if devices.status == "ok" else "warning", devices.value, devices.way_out))
    findings += [_folder(facts, run), _shared(facts), _space(facts), _clocks(facts), _data(facts), _weights(facts)]
    return findings


def _compare(name: str, facts: Sequence[Facts], values: Sequence[str]) -> Finding:
    hosts: dict[str, set[str]] = {}
    for each, value in zip(facts, values, strict=True):
        hosts.setdefault(value, set()).add(each.host)
    if len(hosts) == 1:
        return Finding(name, "ok", values[0])
    differing = ", ".join(f"{value} on {' '.join(sorted(where))}" for value, where in hosts.items())
    return Finding(name, "failed", differing, "install the same on every machine")


def _folder(facts: Sequence[Facts], run: Path) -> Finding:
    bad = [each for each in facts if each.folder]
    if not bad:
        return Finding("run folder", "ok", f"{run} is writable")
    return Finding("run folder", "failed", f"{bad[0].folder} on {bad[0].host}", "name another --run.dir")


def _shared(facts: Sequence[Facts]) -> Finding:
    bad = sorted({each.host for each in facts if not each.shares_folder})
    if not bad:
        return Finding("shared disk", "ok", "every machine sees the same run folder")
    return Finding("shared disk", "failed", f"{' '.join(bad)} sees another run folder", "put it on a shared disk")


def _space(facts: Sequence[Facts]) -> Finding:
    least = min(facts, key=lambda each: each.free)
    enough = least.free >= _SPACE or bool(least.folder)
    return Finding("free space", "ok" if enough else "warning", f"{least.free:.1f} GiB", "" if enough else "free some")


def _clocks(facts: Sequence[Facts]) -> Finding:
    worst = max(facts, key=lambda each: abs(each.skew))
    if abs(worst.skew) <= _SKEW:
        return Finding("clocks", "ok", f"at most {abs(worst.skew):.3f} s apart")
    return Finding("clocks", "warning", f"{worst.host} is {worst.skew:+.1f} s off", "synchronise the clocks (NTP)")


def _data(facts: Sequence[Facts]) -> Finding:
    bad = [each for each in facts if each.data]
    if not bad:
        return Finding("images", "ok", "present, nothing to download")
    return Finding("images", "failed", f"{bad[0].data}, on {bad[0].host}", "download them first, with internet access")


def _weights(facts: Sequence[Facts]) -> Finding:
    bad = [each for each in facts if each.weights]
    if not bad:
        return Finding("weights", "ok", "present, or none needed")
    return Finding("weights", "failed", f"unavailable on {bad[0].host}", bad[0].weights)


def failed(findings: Sequence[Finding]) -> bool:
    """Whether any check failed."""
    return any(finding.status == "failed" for finding in findings)


def table(findings: Sequence[Finding]) -> str:
    """Format the findings, one per line."""
    signs = {"ok": "ok", "warning": "!!", "failed": "NO"}
    width = max(len(finding.name) for finding in findings)
    return "\n".join(
        f"{signs[each.status]}  {each.name:<{width}}  {each.value}" + (f": {each.way_out}" if each.way_out else "")
        for each in findings
    )
