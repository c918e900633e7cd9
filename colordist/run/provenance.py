"""Provenance of results: digest and revision of the code."""

import hashlib
import subprocess
from pathlib import Path


def code_digest() -> str:
    """Digest of this package's code: eight hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=4)
    package = Path(__file__).parents[1]
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def revision() -> str:
    """The code's digest and, in a checkout, its commit."""
    return f"{code_digest()} (git {commit})" if (commit := git_revision()) else code_digest()


def git_revision() -> str | None:
    """The code's commit; None outside of a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
