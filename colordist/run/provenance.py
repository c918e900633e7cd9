"""Where results come from: the code, its revision, and what it ran on."""

import hashlib
import subprocess
from pathlib import Path


def code_digest() -> str:
    """Eight hexadecimal digits that stand for the code of this package."""
    digest = hashlib.blake2b(digest_size=4)
    package = Path(__file__).parents[1]
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def revision() -> str:
    """What stands for the code: of its files, and where it is a checkout, the commit."""
    return f"{code_digest()} (git {commit})" if (commit := git_revision()) else code_digest()


def git_revision() -> str | None:
    """The commit that the code is of; None where it isn't a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
