"""Run folders: their files, the run that they belong to, and its progress."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from colordist import registry
from colordist.config import TRACKERS, Config, as_dict
from colordist.errors import UserError
from colordist.files.atomic import ABSENT, content, exists, flush, reading, replace_text, sweep, writing, writing_to
from colordist.files.documents import DamagedFile, Malformed, damage_of, parse_plain_json, parse_yaml
from colordist.files.hub import HubModel
from colordist.files.opening import MOST_BYTES, open_regular
from colordist.files.paths import expanded
from colordist.ranges import MOST
from colordist.run.identity import fingerprint, learning_keys
from colordist.run.saved_settings import check_settings

_DIGESTS = {
    "images": "the images have changed",
    "pretrained": "the pretrained weights have changed",
    "init_from": "the snapshot that train.init_from names has changed",
}
"""Files with digests of what a run began with, and what is wrong where one differs."""
_FOLDERS = ("checkpoints", "snapshots", "samples", "tensorboard", "dvclive")
_FILES = ("metrics.jsonl", "metrics.json", "wandb.json", *(f"{name}.json" for name in TRACKERS), *_DIGESTS)
"""Folders and files of a run besides its settings and markers."""

_MOST_RECORDS = 2**22  # lines, each of at most MOST_BYTES
_MOST_KEYS = 10_000  # of all records

Record = dict[str, float]
"""A line of metrics.jsonl. ``step`` is an int; other values may be Inf or NaN."""
_Numbers = dict[str, int | float]
"""A record as it is parsed: its integers stay integers."""

State = Literal["new", "unfinished", "stopped", "finished"]


def step_name(step: int) -> str:
    """The name of a step's file or folder, sorted like the steps: ``step-000500``."""
    return f"step-{step:06d}"


def numbered(folder: Path, suffix: str = "") -> list[Path]:
    """List the paths in a folder that are named after a step, lowest step first; none if there is no folder.

    Raises RunError where the folder can't be read.
    """
    with reading(folder):
        try:
            paths = list(folder.iterdir())
        except ABSENT:
            return []
    found = [(re.fullmatch(rf"step-(\d+){suffix}", path.name), path) for path in paths]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def folder_for(config: Config, name: str) -> Path:
    """The config's run folder: ``run.dir``, or by default one named after the config and the run's fingerprint."""
    if config.run.dir is not None:
        return expanded(config.run.dir)
    listing = registry.component("source", config.data.source)(config.data).listing()
    return Path(f"runs/{name}-{fingerprint(config, listing)}")


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
        """Specs of the scores: labels, directions and roles of the metrics."""
        return self.path / "metrics.json"

    @property
    def samples(self) -> Path:
        """Grids of fixed test images: rows grey, prediction, target."""
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, for the trainer: everything needed to continue."""
        return self.path / "checkpoints"

    @property
    def snapshots(self) -> Path:
        """Snapshots, for people: EMA weights, and JSON to rebuild the network."""
        return self.path / "snapshots"

    @property
    def stop_file(self) -> Path:
        """A file that users create to stop the run after its current step."""
        return self.path / "stop"

    @property
    def state(self) -> State:
        """The run's state, by its marker files."""
        for marker in ("finished", "stopped"):
            if exists(self.path / marker):
                return marker
        return "unfinished" if exists(self.config_file) else "new"

    def is_finished(self, steps: int) -> bool:
        """Whether the run has finished at least this number of steps."""
        return self.state == "finished" and bool(self.settings()["train"]["steps"] >= steps)

    def settings(self) -> dict[str, Any]:
        """The settings in config.yaml, as plain values by section: see ``check_settings``.

        Raises UserError where there are none, or they are damaged; RunError where they can't be read.
        """
        if (text := content(self.config_file)) is None:
            raise UserError(f"{self.path} is no run folder: it has no config.yaml")
        with damage_of(self.config_file):
            found = parse_yaml(text)
        found = found if isinstance(found, dict) else {}
        if isinstance(found.get("task"), str):
            raise UserError(f"the run in {self.path} is of version 0.1: this version reads its snapshots only")
        with damage_of(self.config_file):
            return check_settings(found)

    def check_same_run(self, config: Config) -> None:
        """Raise UserError if the folder belongs to another run than this config's, or `resume` is `never`."""
        if self.state == "new":
            return
        if config.resume == "never":
            raise UserError(f"{self.path} holds a run, which --resume never won't continue: name another --run.dir")
        before, now = learning_keys(self.settings()), learning_keys(as_dict(config))
        differing = [key for key in sorted(before | now) if not _same(key, before.get(key), now.get(key))]
        if differing:
            # Of components that were replaced, the names say enough.
            differing = [key for key in differing if key in before and key in now] or differing
            told = ", ".join(f"{key} was {before.get(key)}, now {now.get(key)}" for key in differing)
            raise UserError(f"{self.path} holds another run ({told}): name another --run.dir, or change these back")

    def write_settings(self, config: Config) -> None:
        """Save the resolved settings. Raises UserError where that is impossible, RunError where the disk fails."""
        with writing_to(self.path, "name another --run.dir"):
            self.path.mkdir(parents=True, exist_ok=True)
            replace_text(self.config_file, yaml.safe_dump(as_dict(config), sort_keys=False))

    def check_complete(self) -> None:
        """Raise UserError if the settings or all checkpoints were removed, rather than overwrite the rest.

        Without a config.yaml no file there can be shown to be of this run.
        """
        if self.state == "new":
            left = [name for name in _FOLDERS if _holds_something(self.path / name)]
            if left := left + [name for name in _FILES if exists(self.path / name)]:
                raise UserError(f"{self.path} holds {', '.join(left)} but no config.yaml: name another --run.dir")
        elif not numbered(self.checkpoints) and (self.state != "unfinished" or self._had_checkpoints()):
            raise UserError(f"{self.path} holds a run but no checkpoint to continue it from: name another --run.dir")

    def _had_checkpoints(self) -> bool:
        """Whether the records go so far that a checkpoint was written: the second save waits for the first."""
        checkpoint = self.settings()["checkpoint"]
        steps = [record["step"] for record in self.records()]
        return bool(checkpoint["on_error"] == "stop" and max(steps, default=0) > 2 * checkpoint["every"])

    @property
    def images(self) -> str | None:
        """Digest of the run's images; None before it has begun."""
        return self._digest("images")

    @property
    def hub_model(self) -> Path | None:
        """The Hub's ``user/name@commit`` that the run began with; None for a run that began with none.

        Raises DamagedFile for another name.
        """
        _, _, model = (self._digest("init_from") or "").partition(" ")
        if model and ((named := HubModel.parse(model)) is None or named.revision is None):
            raise DamagedFile(f"{self.path / 'init_from'} is damaged: it names no model of the Hub")
        return Path(model) if model else None

    def check_same_inputs(self, digests: Mapping[str, str | None]) -> None:
        """Raise UserError if the images or weights differ from those that the run began with.

        digests: `images`; of pretrained weights, `pretrained`; of a snapshot's, `init_from`, followed by
            the name of a model of the Hub. None: there are none.
        """
        for name, digest in digests.items():
            if digest is not None and self._digest(name) not in (None, digest):
                raise UserError(f"{_DIGESTS[name]} since the run in {self.path} began: name another --run.dir")

    def _digest(self, name: str) -> str | None:
        found = content(self.path / name)
        return None if found is None else found.decode(errors="replace").strip()

    def mark(self, state: Literal["finished", "stopped"], step: int, reason: str = "") -> None:
        """Write a marker file. Removes the stop file, which is answered by that."""
        with writing(self.path / state):
            self._unmark()
            replace_text(self.path / state, json.dumps({"step": step} | ({"reason": reason} if reason else {})) + "\n")
            self.stop_file.unlink(missing_ok=True)

    def begin(self, config: Config, digests: Mapping[str, str | None] | None = None) -> None:
        """Write the settings, and the digests of images and weights, when a run begins or continues.

        The settings are written before anything else: they show that all else belongs to this run.
        digests: as for ``check_same_inputs``.
        """
        self.write_settings(config)
        with writing(self.path):
            for folder in (self.path, self.samples):
                sweep(folder)
            for name, digest in (digests or {}).items():
                if digest is not None and not exists(self.path / name):
                    replace_text(self.path / name, digest + "\n")
            self._unmark()

    def _unmark(self) -> None:
        for marker in ("finished", "stopped"):
            (self.path / marker).unlink(missing_ok=True)

    def flush_records(self) -> None:
        """Fsync metrics.jsonl."""
        with writing(self.metrics_file):
            flush(self.metrics_file)

    def records(self) -> list[Record]:
        """Read metrics.jsonl."""
        return read_records(self.metrics_file)


def read_records(file: Path) -> list[Record]:
    """Read metrics.jsonl; empty if there is no file. A truncated last line is left out.

    Raises UserError for a line that is damaged in another way, RunError where the file can't be read.
    """
    records: list[Record] = []
    keys: set[str] = set()
    damage: str | None = None
    for number, line in enumerate(_lines(file), start=1):
        if damage is not None:
            raise UserError(damage)
        try:
            record = parse_plain_json(line, _Numbers)
            keys |= record.keys()
            _check_record(record, keys)
            records.append(record)
        except Malformed as error:
            damage = f"line {number} of {file} is damaged ({error}): mend it or take it out"
    return records


def _lines(file: Path) -> Iterator[bytes]:
    """The lines of a file, of limited length and number; none if there is no file."""
    with reading(file):
        try:
            opened = open_regular(file)
        except ABSENT:
            return
        with opened:
            for _ in range(_MOST_RECORDS):
                if not (line := opened.readline(MOST_BYTES)):
                    return
                yield line
    raise UserError(f"{file} has more than {_MOST_RECORDS:,} lines: move it elsewhere")


def _check_record(record: Record, keys: Collection[str]) -> None:
    """Raise Malformed for a record without a step, or for too many keys of all records so far."""
    step: object = record.get("step")
    if not isinstance(step, int) or not 0 <= step <= MOST:
        raise Malformed("it has no step")
    if len(keys) > _MOST_KEYS:
        raise Malformed(f"more than {_MOST_KEYS} different keys")


def _holds_something(path: Path) -> bool:
    """Whether a path is a file or a folder that isn't empty. Raises RunError where it can't be read."""
    if not exists(path):
        return False
    with reading(path):
        return not path.is_dir() or any(path.iterdir())


def _same(key: str, before: object, now: object) -> bool:
    if key == "train.steps":
        return isinstance(before, int) and isinstance(now, int) and now >= before
    # An `auto` precision was resolved when the run began.
    return before == now or (key == "train.precision" and now == "auto")
