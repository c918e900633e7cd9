"""Where numbers go: metrics.jsonl always, the terminal, Weights & Biases when asked. Only the first process has any.

A record is flat: ``{"step": 50, "images": 1600, "generator/l1": 0.1, ...}``. Scores are keyed ``scores/NAME``, those of
floors and ceiling ``reference/NAME/NAME``.
"""

import json
import sys
import uuid
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from colordist.config import TrackConfig
from colordist.run_folder import read_records, replace_text

Record = dict[str, float]


class Tracker(Protocol):
    """Takes records, and now and then a picture."""

    def log(self, record: Record) -> None:
        """Take a record."""
        ...

    def picture(self, file: Path, step: int) -> None:
        """Take a picture that lies in the run folder."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class JsonLines:
    """metrics.jsonl: one record a line, on disk at once."""

    def __init__(self, file: Path, start: int) -> None:
        """start: the step that the run begins or continues with; what was logged after it is done again, so dropped."""
        kept = [record for record in read_records(file) if record["step"] <= start] if start > 0 else []
        replace_text(file, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = file.open("a")

    def log(self, record: Record) -> None:
        """Append a line."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def picture(self, file: Path, step: int) -> None:
        """Pictures lie in the run folder already."""

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
        hidden = ("scores/", "reference/"), ("/lr", "/gradient_norm", "/accuracy_real", "/accuracy_fake")
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

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


class WandB:
    """Weights & Biases: one run, whose steps are ours."""

    def __init__(self, config: TrackConfig, folder: Path, settings: dict[str, Any]) -> None:
        import wandb

        identity = folder / "wandb_id"
        if not identity.exists():
            identity.write_text(uuid.uuid4().hex[:8])
        self._wandb = wandb
        self._run = wandb.init(
            project=config.project,
            name=folder.name,
            id=identity.read_text(),
            resume="allow",
            mode="offline" if config.wandb == "offline" else "online",
            dir=folder,
            config=settings,
        )
        self._run.define_metric("*", step_metric="step")

    def log(self, record: Record) -> None:
        """Send a record."""
        self._run.log(record)

    def picture(self, file: Path, step: int) -> None:
        """Send a picture."""
        self._run.log({"step": step, "samples": self._wandb.Image(str(file))})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    def log(self, record: Record) -> None:
        """Give all of them a record."""
        for tracker in self._trackers:
            tracker.log(record)

    def picture(self, file: Path, step: int) -> None:
        """Give all of them a picture."""
        for tracker in self._trackers:
            tracker.picture(file, step)

    def close(self) -> None:
        """Close all of them."""
        for tracker in self._trackers:
            tracker.close()
