"""A run folder: what lies where, whose run it is, and how far it got."""

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from colordist.config import Config, RunError, UserError, fingerprint, learning_keys

State = Literal["new", "unfinished", "stopped", "finished"]


def step_name(step: int) -> str:
    """What is named after a step, so that names sort like steps: ``step-000500``."""
    return f"step-{step:06d}"


def numbered(folder: Path, suffix: str = "") -> list[Path]:
    """What is named after a step in a folder, lowest step first; anything else that lies there is left alone."""
    found = [(re.fullmatch(rf"step-(\d+){suffix}", path.name), path) for path in folder.glob("step-*")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def folder_for(config: Config, name: str) -> Path:
    """The config's run folder: the one it names, else one named after what is learned."""
    return Path(os.path.expanduser(config.run.dir or f"runs/{name}-{fingerprint(config)}"))


@dataclass(frozen=True)
class RunFolder:
    """The files of a run."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved settings."""
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line: losses, rates, speed, scores."""
        return self.path / "metrics.jsonl"

    @property
    def specs_file(self) -> Path:
        """What the scores are: labels, directions and roles of the metrics."""
        return self.path / "metrics.json"

    @property
    def samples(self) -> Path:
        """Grids of fixed test images: rows grey, prediction, target."""
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        """For the trainer: everything needed to continue."""
        return self.path / "checkpoints"

    @property
    def snapshots(self) -> Path:
        """For people: averaged weights, and what it takes to rebuild the network."""
        return self.path / "snapshots"

    @property
    def stop_file(self) -> Path:
        """Made by whoever wants the run to stop after the step it is in."""
        return self.path / "stop"

    @property
    def state(self) -> State:
        """How far the run got."""
        for marker in ("finished", "stopped"):
            if (self.path / marker).exists():
                return marker
        return "unfinished" if self.config_file.exists() else "new"

    def is_finished(self, steps: int) -> bool:
        """Whether the run did all its steps, and isn't asked for more."""
        return self.state == "finished" and bool(self.settings()["train"]["steps"] >= steps)

    def settings(self) -> dict[str, Any]:
        """The settings in config.yaml. Raises UserError where there are none."""
        try:
            settings = yaml.safe_load(self.config_file.read_text())
        except OSError:
            raise UserError(f"{self.path} is no run folder: it has no config.yaml") from None
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"{self.config_file} is damaged: {' '.join(str(error).split())}") from None
        if not isinstance(settings, dict) or not {"task", "data", "train"} <= settings.keys():
            raise UserError(f"{self.config_file} is damaged: it doesn't hold all settings")
        return settings

    def check_same_run(self, config: Config) -> None:
        """Raise UserError if the folder belongs to another run than this config's, or mustn't be continued."""
        if self.state == "new":
            return
        if config.resume == "never":
            raise UserError(f"{self.path} holds a run, which --resume never won't continue: name another --run.dir")
        before, now = learning_keys(self.settings()), learning_keys(dataclasses.asdict(config))
        differing = [key for key in sorted(before | now) if not _same(key, before.get(key), now.get(key))]
        if differing:
            told = ", ".join(f"{key} was {before.get(key)}, now {now.get(key)}" for key in differing)
            raise UserError(f"{self.path} holds another run ({told}): name another --run.dir, or change these back")

    def write_settings(self, config: Config) -> None:
        """Save the resolved settings. Raises UserError where that is impossible."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            replace_text(self.config_file, yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))
        except OSError as error:
            raise UserError(f"{self.path} can't be written ({error.strerror}): name another --run.dir") from None

    def check_complete(self) -> None:
        """Raise UserError if what a continued run needs was taken away, rather than begin again over what is left."""
        checkpoints = bool(numbered(self.checkpoints))
        if self.state == "new" and checkpoints:
            raise UserError(f"{self.path} holds checkpoints but no config.yaml: name another --run.dir")
        if self.state in ("finished", "stopped") and not checkpoints:
            raise UserError(f"{self.path} holds a run but no checkpoint to continue it from: name another --run.dir")

    def check_same_images(self, fingerprint: str) -> None:
        """Remember the images that the run learns from and is scored on; raise UserError if they were others."""
        self._check_same("images", fingerprint, "the images have changed")

    def check_same_weights(self, digest: str) -> None:
        """Remember the weights that the generator began with; raise UserError if they were others."""
        self._check_same("init_from", digest, "the snapshot that train.init_from names has changed")

    def _check_same(self, name: str, digest: str, changed: str) -> None:
        file = self.path / name
        if not file.exists():
            with writing(file):
                replace_text(file, digest + "\n")
        elif file.read_text().strip() != digest:
            raise UserError(f"{changed} since the run in {self.path} began: name another --run.dir")

    def mark(self, state: Literal["finished", "stopped"], step: int, reason: str = "") -> None:
        """Say how the run ended. A request to stop has been answered by that."""
        with writing(self.path / state):
            self._unmark()
            replace_text(self.path / state, json.dumps({"step": step} | ({"reason": reason} if reason else {})) + "\n")
            self.stop_file.unlink(missing_ok=True)

    def begin(self, config: Config) -> None:
        """The run begins, or goes on, with these settings."""
        self.write_settings(config)
        with writing(self.path):
            self._unmark()

    def _unmark(self) -> None:
        for marker in ("finished", "stopped"):
            (self.path / marker).unlink(missing_ok=True)

    def flush_records(self) -> None:
        """See the lines of metrics.jsonl on the disk."""
        with writing(self.metrics_file):
            flush(self.metrics_file)

    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return read_records(self.metrics_file)


def read_records(file: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file, none if there is no file; a last line that was cut off is left out.

    Raises UserError for a line that is damaged in another way.
    """
    lines = file.read_bytes().splitlines() if file.exists() else []
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or not isinstance(record.get("step"), int):
                raise ValueError
            records.append(record)
        except ValueError:
            if number < len(lines):
                raise UserError(f"line {number} of {file} is damaged: mend it or take it out") from None
    return records


def replace_text(file: Path, text: str) -> None:
    """Write a file that exists whole or not at all, also after a power failure."""
    temporary = file.with_name(f"{file.name}.tmp")
    with temporary.open("w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(temporary, file)
    flush(file.parent)


def flush(path: Path) -> None:
    """See on the disk what a file holds, or what a folder's files are called."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """What the disk refuses in here is a RunError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"{what} can't be written ({reason}): once it can be, the same command continues") from None


def _same(key: str, before: object, now: object) -> bool:
    if key == "train.steps":
        return isinstance(before, int) and isinstance(now, int) and now >= before
    # An `auto` precision was resolved when the run began.
    return before == now or (key == "train.precision" and now == "auto")
