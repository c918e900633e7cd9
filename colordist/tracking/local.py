"""Local trackers: metrics.jsonl and the terminal."""

import json
import os
import sys
from pathlib import Path

from tqdm import tqdm

from colordist.console import say
from colordist.files.atomic import replace_text, writing
from colordist.run.folder import Record, read_records
from colordist.run.records import LOSS, SPEED


class JsonLines:
    """metrics.jsonl: one record per line. It is opened for each, as a network file system reports errors on closing."""

    def __init__(self, file: Path, start: int) -> None:
        """start: the first step to run; later records are removed, as they will be logged again."""
        kept = [record for record in read_records(file) if record["step"] <= start] if start > 0 else []
        self._path = file
        with writing(file):
            replace_text(file, text := "".join(json.dumps(record) + "\n" for record in kept))
        self._size = len(text.encode())
        self._unwritten, self._is_torn = b"", False

    def log(self, record: Record) -> None:
        """Append a line, after those that couldn't be written before. Raises RunError if it can't be written."""
        self._unwritten += (json.dumps(record) + "\n").encode()
        self.flush()

    def flush(self) -> None:
        """Append the lines that couldn't be written before. Raises RunError if they still can't be."""
        if not self._unwritten:
            return
        with writing(self._path):
            if self._is_torn:
                os.truncate(self._path, self._size)  # part of a line may be there
            self._is_torn = True
            with self._path.open("ab", buffering=0) as file:
                rest = self._unwritten
                while rest:
                    rest = rest[file.write(rest) :]
        self._size += len(self._unwritten)
        self._unwritten, self._is_torn = b"", False

    def picture(self, file: Path, step: int) -> None:
        """Do nothing: sample grids are in the run folder."""

    def snapshot(self, folder: Path, step: int) -> None:
        """Do nothing: snapshots are in the run folder."""

    def close(self) -> None:
        """Do nothing: no file is open."""


class Terminal:
    """A progress bar with images/s and losses; plain lines with the remaining time where there is no terminal."""

    def __init__(self, steps: int, start: int) -> None:
        self._interactive = sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=not self._interactive, dynamic_ncols=True)
        self._steps = steps

    def log(self, record: Record) -> None:
        """Show losses and speed."""
        losses = {key.removeprefix(LOSS): value for key, value in record.items() if key.startswith(LOSS)}
        speed = record.get(SPEED)
        if speed is None:  # scores
            return
        skips = {key: value for key, value in record.items() if key.endswith("/skipped") and value}
        text = " ".join(f"{key} {value:.4f}" for key, value in {**losses, **skips}.items())
        step = int(record["step"])
        if self._interactive:
            self._bar.set_postfix_str(f"{speed:.0f} images/s {text}", refresh=False)
            self._bar.update(step - self._bar.n)
        else:
            left = (self._steps - step) * record["images"] / step / speed
            say(f"step {step}/{self._steps} {speed:.0f} images/s {left:.0f} s left {text}")

    def flush(self) -> None:
        """Do nothing: lines are flushed as they are printed."""

    def picture(self, file: Path, step: int) -> None:
        """Not shown."""

    def snapshot(self, folder: Path, step: int) -> None:
        """Not shown."""

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()
