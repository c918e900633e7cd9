"""What a run has written for `wandb sync`, read back with W&B's own reader."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def inspect(folder: Path) -> list[dict[str, Any]]:
    """All records, in order, over all continuations."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json"]
    records: list[dict[str, Any]] = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        told = subprocess.run([*command, str(file)], capture_output=True, text=True, check=True).stdout
        records += [json.loads(line) for line in told.splitlines()]
    return records


def history(folder: Path) -> list[dict[str, Any]]:
    """What was logged, in order, over all continuations."""
    rows = [record["history"]["item"] for record in inspect(folder) if record["type"] == "history"]
    return [{key: value for key, value in row.items() if key[0] != "_" or key == "_step"} for row in rows]
