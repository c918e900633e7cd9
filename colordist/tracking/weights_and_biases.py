"""Weights & Biases."""

import json
import logging
import netrc
import os
import subprocess
import sys
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlparse

import msgspec
import numpy as np
from PIL import Image

from colordist.config import TrackConfig
from colordist.errors import RunError, UserError, one_line
from colordist.extras import needs_extra
from colordist.files.atomic import content, replace_text
from colordist.files.documents import damage_of, parse_json
from colordist.files.opening import open_regular
from colordist.metrics import hues
from colordist.run.folder import Record, RunFolder, read_records
from colordist.run.records import SCORE
from colordist.run.score_specs import load_specs
from colordist.tracking.attempts import Attempts, open_or_warn

log = logging.getLogger(__name__)

_INIT_TIMEOUT = 30.0  # seconds to wait for W&B's server before the run begins


class Known(msgspec.Struct):
    """The content of wandb.json."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[\w-]{1,64}$")]
    """The run's, at W&B."""
    offline: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Lines sent to files."""


def read_known(file: Path) -> Known | None:
    """Read wandb.json; None if there is no file. Raises UserError for a damaged one."""
    if (text := content(file)) is None:
        return None
    with damage_of(file):
        return parse_json(text, Known)


class WandB:
    """Weights & Biases: mirrors metrics.jsonl line by line.

    Lines that a resumed run logs again aren't sent twice. The last line is queried from W&B, as a kill may lose lines
    that it had not stored yet. Missing lines are sent when the run resumes, or by ``report --sync``.
    """

    def __init__(self, config: TrackConfig, folder: Path, about: dict[str, Any]) -> None:
        """about: settings and environment info. Raises UserError as `require_wandb`."""
        self._wandb, self._config, self._folder, self._about = _import(), config, folder, about
        self._file = folder / "wandb.json"
        self._known = read_known(self._file) or Known(uuid.uuid4().hex[:8])
        self.mode = _mode(config)
        self.attempt = Attempts("wandb", "report --sync sends the rest later")
        self.sent = 0
        """Lines sent by this object."""
        self._primary = load_specs(RunFolder(folder)).primary
        self._costs: list[float] = []
        """Cost of each snapshot so far, by the primary metric: lower is better."""
        stored = self._stored()
        self._run = self._begin()
        # Lines are W&B's steps, so online the server knows the next one.
        self._next = self._run.step if self.mode == "online" else stored
        self._is_new = False
        """Whether the newest line, with its sample grid and snapshot, was not sent before."""
        lines = read_records(folder / "metrics.jsonl")
        self._line = len(lines)
        for line, record in enumerate(lines):
            self._send(record, line)

    def _stored(self) -> int:
        """Number of lines in the offline files of `wandb sync`; the number last saved, if those were removed."""
        files = sorted(self._folder.glob(f"wandb/offline-run-*-{self._known.id}/*.wandb"), reverse=True)
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json"]
        for file in files:
            output = subprocess.run(
                [*command, str(file)], capture_output=True, encoding="utf-8", errors="replace", check=False
            ).stdout
            with suppress(ValueError, RecursionError, AttributeError):  # another program's output may be anything
                step = json.loads(output).get("step")
                if isinstance(step, int):
                    return step + 1
        return 0 if files else self._known.offline

    def _begin(self) -> Any:  # noqa: ANN401  wandb is imported only here
        """Begin or resume the run; offline if the server can't be reached."""
        config = self._config
        options: dict[str, Any] = {
            **{"id": self._known.id, "resume": "allow", "name": self._folder.name, "dir": self._folder},
            **{"project": config.project, "entity": config.entity, "group": config.group, "tags": config.tags or None},
            **{"notes": config.notes, "job_type": config.job_type, "config": self._about},
        }
        settings = self._wandb.Settings(init_timeout=_INIT_TIMEOUT, console="off")
        try:
            run = self._wandb.init(mode=self.mode, settings=settings, **options)
        except Exception as error:
            if self.mode == "offline":
                raise RunError(f"wandb can't write to {self._folder} ({one_line(error, 200)})") from None
            log.warning(
                "wandb can't be reached (%s): it writes to %s instead", one_line(error, 200), self._folder / "wandb"
            )
            self.mode = "offline"
            self._wandb.teardown()  # it still holds the run's id
            run = self._wandb.init(mode=self.mode, settings=settings, **options)
        run.define_metric("step")
        run.define_metric("images")
        run.define_metric("*", step_metric="step")
        return run

    def log(self, record: Record) -> None:
        """Send a record: the next line of metrics.jsonl."""
        self._send(record, self._line)
        self._line += 1

    def flush(self) -> None:
        """Do nothing: what W&B lacks, ``sync`` sends later."""

    def picture(self, file: Path, step: int) -> None:
        """Send a sample grid, and the a,b histograms of its predictions and targets, with the newest line."""
        if self._is_new:
            self.attempt(lambda: self._run.log({"step": step} | self._colors(file), step=self._line - 1))

    def _colors(self, file: Path) -> dict[str, Any]:
        with open_regular(file) as opened:
            _, prediction, target = np.split(np.asarray(Image.open(opened).convert("RGB")), 3)
        edges = np.append(hues.CENTERS, hues.CENTERS[-1] + hues.WIDTH) - hues.WIDTH / 2
        shown: dict[str, Any] = {"samples": self._wandb.Image(str(file))}
        for name, row in ("prediction", prediction), ("target", target):
            shares = hues.histograms(row[None])
            shown[f"histogram/{name}/a"] = self._wandb.Histogram(np_histogram=(shares.a, edges))
            shown[f"histogram/{name}/b"] = self._wandb.Histogram(np_histogram=(shares.b, edges))
        return shown

    def snapshot(self, folder: Path, step: int) -> None:
        """Send a snapshot, if `track.snapshots` asks for it."""
        if self._config.snapshots and self._is_new:
            best = self._costs and self._costs[-1] == min(self._costs)
            self.attempt(lambda: self._send_snapshot(folder, step, ["latest", "best"] if best else ["latest"]))

    def _send_snapshot(self, folder: Path, step: int, aliases: list[str]) -> None:
        artifact = self._wandb.Artifact(f"{self._folder.name}-snapshot", type="model", metadata={"step": step})
        artifact.add_dir(str(folder))
        self._run.log_artifact(artifact, aliases=aliases)

    def close(self) -> None:
        """Finish the run."""
        self.attempt(lambda: self._run.finish())

    def _send(self, record: Record, line: int) -> None:
        """Send a line, unless it was sent before."""
        if (key := f"{SCORE}{self._primary.name}") in record:
            self._costs.append(self._primary.cost(record[key]))
        self._is_new = line >= self._next
        if not self._is_new:
            return
        # The line's number is W&B's step, so W&B ignores a line sent twice.
        if self.attempt(lambda: self._run.log(record, step=line)):
            self._next = line + 1
            self.sent += 1
            if self.mode == "offline":
                self._known.offline = self._next
            self.attempt(lambda: replace_text(self._file, json.dumps(msgspec.structs.asdict(self._known)) + "\n"))


def require_wandb(config: TrackConfig) -> None:
    """Raise UserError for tracking without the package, or `online` without a key."""
    if config.wandb != "off":
        _import()
        _mode(config)


def open_wandb(config: TrackConfig, folder: Path, about: dict[str, Any]) -> WandB | None:
    """Open W&B for a run. Logs a failure and returns None. Raises UserError as above."""
    return open_or_warn(lambda: WandB(config, folder, about), "wandb", "report --sync sends it all later")


def sync(folder: Path, config: TrackConfig, settings: dict[str, Any]) -> int:
    """Send the lines of metrics.jsonl that the server lacks. Returns their number.

    Raises UserError without a key, RunError where the server can't be reached.
    """
    if _mode(replace(config, wandb="online")) == "offline":
        raise UserError("WANDB_MODE is offline: unset it to send anything")
    tracker = WandB(replace(config, wandb="online"), folder, settings)
    sent = tracker.sent
    tracker.close()
    if tracker.attempt.have_failed or tracker.mode == "offline":
        raise RunError(f"W&B's server can't be reached: the missing lines are still in {folder / 'metrics.jsonl'}")
    return sent


def _import() -> Any:  # noqa: ANN401  a module
    """The package wandb. Raises UserError where it is missing."""
    with needs_extra("wandb", "tracking by W&B (track.wandb)"):
        import wandb
    return wandb


def _mode(config: TrackConfig) -> Literal["online", "offline"]:
    """Resolve `auto`. Never asks for a key. Raises UserError for `online` without one."""
    if config.wandb == "offline" or os.environ.get("WANDB_MODE") == "offline":
        return "offline"
    if has_key():
        return "online"
    if config.wandb == "online":
        raise UserError("track.wandb is online, but there is no key: run `wandb login` once, or try track.wandb auto")
    return "offline"


def has_key() -> bool:
    """Whether there is an API key for the server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
