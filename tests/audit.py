"""Dependency audit: known vulnerabilities of the installed packages, by pip-audit from PyPI's advisory data.

Exit code 1 if there is one that isn't in IGNORED; 0 where the data can't be reached, with the reason.
"""

import json
import subprocess
import sys

IGNORED: dict[str, str] = {}
"""Why a vulnerability doesn't matter here, by its id."""
_TIMEOUT = 180  # seconds


def main() -> int:
    """Run pip-audit and judge what it found."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=_TIMEOUT, check=False)
        packages = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return skipped(f"no answer in {_TIMEOUT} s")
    except ValueError:
        return skipped((done.stderr.strip().splitlines() or ["no output"])[-1])
    return judge(packages)


def judge(packages: list[dict[str, object]]) -> int:
    """Print the vulnerabilities of packages, as pip-audit lists them. Returns the exit code."""
    audited = [each for each in packages if "vulns" in each]
    if not audited:
        return skipped("PyPI's advisory data has none of the packages")
    found = [(each, vulnerability) for each in audited for vulnerability in each["vulns"]]  # type: ignore[attr-defined]
    found = [(each, vulnerability) for each, vulnerability in found if vulnerability["id"] not in IGNORED]
    for each, vulnerability in found:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
        print(f"{each['name']} {each['version']}: {vulnerability['id']}, mended in {fixed}")
    print(f"dependency audit: {len(audited)} of {len(packages)} packages, {len(found)} vulnerabilities")
    return 1 if found else 0


def skipped(reason: str) -> int:
    """Say that nothing was audited."""
    print(f"dependency audit skipped: {reason[:200]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
