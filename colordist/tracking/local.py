"""Numbers that stay here: in metrics.jsonl and on the terminal."""

import json
import sys
from pathlib import Path

from tqdm import tqdm

from colordist.files.atomic import replace_text, writing
from colordist.run.folder import read_records
from colordist.tracking.tracker import Record


class JsonLines:
    """metrics.jsonl: one record a line, on disk at once."""

    def __init__(self, file: Path, start: int) -> None:
        """start: the step that the run begins or continues with; what was logged after it is done again, so dropped."""
        kept = [record for record in read_records(file) if record["step"] <= start] if start > 0 else []
        self._path = file
        with writing(file):
            replace_text(file, "".join(json.dumps(record) + "\n" for record in kept))
            self._file = file.open("ab", buffering=0)  # what the disk refused isn't tried again by close()

    def log(self, record: Record) -> None:
        """Append a line. Raises RunError where that is impossible."""
        rest = (json.dumps(record) + "\n").encode()
        with writing(self._path):
            while rest:
                rest = rest[self._file.write(rest) :]

    def picture(self, file: Path, step: int) -> None:
        """Pictures lie in the run folder already."""

    def snapshot(self, folder: Path, step: int) -> None:
        """So do snapshots."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Terminal:
    """A progress bar with images/s, time left and losses; plain lines where there is no terminal."""

    def __init__(self, steps: int, start: int) -> None:
        self._interactive = sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=not self._interactive, dynamic_ncols=True)
        self._steps = steps

    def log(self, record: Record) -> None:
        """Show losses and speed."""
        hidden = ("scores/", "reference/"), ("/lr", "/gradient_norm", "/accuracy", "/accuracy_real", "/accuracy_fake")
        losses = {key: value for key, value in record.items() if "/" in key and not key.startswith(hidden[0])}
        shown = {key: value for key, value in losses.items() if not key.endswith(hidden[1])}
        shown = {key: value for key, value in shown.items() if value or not key.endswith("/skipped")}
        if not shown:
            return
        text = " ".join(f"{key} {value:.4f}" for key, value in shown.items())
        step, speed = int(record["step"]), record["images_per_second"]
        if self._interactive:
            self._bar.set_postfix_str(f"{speed:.0f} images/s {text}", refresh=False)
            self._bar.update(step - self._bar.n)
        else:
            left = (self._steps - step) * record["images"] / step / speed
            print(f"step {step}/{self._steps} {speed:.0f} images/s {left:.0f} s left {text}", flush=True)

    def picture(self, file: Path, step: int) -> None:
        """A terminal shows none."""

    def snapshot(self, folder: Path, step: int) -> None:
        """Nor this."""

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()
