"""Checkpoints: everything needed to continue, for the trainer alone.

A checkpoint is a folder: ``state.pt``, and ``manifest.json`` with the size and SHA-256 of every file. It is written
beside its place, flushed to the disk and then renamed, so it exists whole or not at all; what the disk does to it
later, the manifest shows, which also has a digest of itself.

A checkpoint is damaged if it was read to its end and isn't what the manifest says, or if one of its files is missing.
A read that fails says nothing about it: that is reported as what it is, and nothing is renamed or removed.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colordist.config import CheckpointConfig, RunError, UserError
from colordist.files.atomic import ABSENT, exists, flush, holds_only, reading, reason, remove_folder, writing
from colordist.run.folder import numbered, step_name

FORMAT = 3
_FILES = _STATE, _MANIFEST = "state.pt", "manifest.json"
_log = logging.getLogger(__name__)


class Damaged(Exception):
    """A checkpoint was read, and isn't what was written: one line."""


@dataclass(frozen=True)
class Owner:
    """Who writes: the run, by the fingerprint of what it learns; and the writer's fencing number."""

    run: str
    fence: int
    check_fence: Callable[[], None]
    """Raises RunError when another process has taken over the run."""


def to_host(state: Any) -> Any:  # noqa: ANN401  nested dicts and lists of tensors and plain values
    """A copy on the CPU that training can't change any more."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: to_host(value) for key, value in state.items()}
    if isinstance(state, list):
        return [to_host(value) for value in state]
    return state


def save(folder: Path, step: int, state: dict[str, Any], owner: Owner, config: CheckpointConfig) -> None:
    """Write a checkpoint, then drop what needn't be kept. Raises RunError where that is impossible."""
    final = folder / step_name(step)
    with writing(final):
        _publish(_write(folder, step, state, owner), final, owner)
    _prune(folder, step, owner, config)


def _write(folder: Path, step: int, state: dict[str, Any], owner: Owner) -> Path:
    """Write a checkpoint beside its place, and see it on the disk."""
    temporary = folder / f"{step_name(step)}.tmp-{owner.fence}"
    _remove(temporary)
    temporary.mkdir(parents=True)
    with (temporary / _STATE).open("wb") as file:
        with _untranslated():
            torch.save({"step": step, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    files = {_STATE: _describe(temporary / _STATE)}
    manifest = {"format": FORMAT, "step": step, "run": owner.run, "fence": owner.fence, "files": files}
    with (temporary / _MANIFEST).open("w") as file:
        json.dump(manifest | {"sha256": _seal(manifest)}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    flush(temporary)
    return temporary


@contextmanager
def _untranslated() -> Iterator[None]:
    """Raise what the disk or the memory said, where torch makes an error of its own of it."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__context__, OSError | MemoryError):
            raise error.__context__ from None
        raise


def _publish(temporary: Path, final: Path, owner: Owner) -> None:
    """Give a checkpoint its name. One that is there already and whole is the same one: it stays."""
    owner.check_fence()
    if exists(final):
        try:
            _verify(final, owner.run)
            _remove(temporary)
            return
        except Damaged:
            set_aside(final)
    temporary.rename(final)
    flush(final.parent)
    flush(final.parent.parent)


def _prune(folder: Path, step: int, owner: Owner, config: CheckpointConfig) -> None:
    """Drop all but the newest few, up to a step, and those that are kept for ever. What can't be dropped is told."""
    owner.check_fence()
    try:
        steps = {path: int(path.name.removeprefix("step-")) for path in numbered(folder)}
        earlier = [path for path in steps if steps[path] <= step and _is_own(path, owner.run)]
        for path in earlier[: -config.keep]:
            if config.keep_every is None or steps[path] % config.keep_every:
                _drop(path, owner.fence)
        sweep(folder, owner.fence)
    except (OSError, MemoryError, RunError) as error:
        what = getattr(error, "filename", None) or folder
        _log.warning("%s can't be dropped (%s): training goes on", what, reason(error))


def _is_own(checkpoint: Path, run: str) -> bool:
    """Whether a folder is a checkpoint of this run, and nothing else lies in it: only such a one is removed."""
    if not holds_only(checkpoint, _FILES):
        return False
    try:
        return bool(_manifest(checkpoint)["run"] == run)
    except Damaged:
        return False


def sweep(folder: Path, fence: int) -> None:
    """Drop what writers up to a fencing number left unfinished.

    After that none of them can publish it any more: not even one that is asleep just before it gives it its name.
    """
    for path in folder.glob("step-*.tmp-*"):
        number = path.name.rpartition("-")[2]
        if number.isdecimal() and int(number) <= fence and holds_only(path, _FILES):
            with suppress(FileNotFoundError):  # published just now
                _drop(path, fence)


def _drop(path: Path, fence: int) -> None:
    """Remove a checkpoint. It loses its name first: what has a checkpoint's name is whole to its end."""
    nameless = path.with_name(f"{path.name}.tmp-{fence}")
    path.rename(nameless)
    _remove(nameless)


def _remove(unfinished: Path) -> None:
    """Remove the files of a checkpoint that has no name yet, or no more. What is left is for the next sweep."""
    with suppress(OSError):
        remove_folder(unfinished, _FILES)


def newest(folder: Path, run: str) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is whole, None where there is none yet; and one line for each newer, damaged one.

    run: fingerprint of the run that they must be of. Raises UserError for a checkpoint of another run or format, and
    where there are some but none of them is whole; RunError for one that can't be read now.
    """
    damaged: list[str] = []
    for path in reversed(numbered(folder)):
        try:
            _verify(path, run)
            return path, damaged
        except Damaged as damage:
            damaged.append(f"{path} is damaged ({damage})")
    if damaged:
        raise UserError(f"no checkpoint is whole: {'; '.join(damaged)}: name another --run.dir to begin again")
    return None, []


def set_aside(checkpoint: Path) -> None:
    """Take a damaged checkpoint out of the way, without losing it."""
    number = 0
    while (aside := checkpoint.with_name(f"{checkpoint.name}.damaged-{number}")).exists():
        number += 1
    with writing(aside):
        checkpoint.rename(aside)


def load(checkpoint: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU: what belongs on a device moves there when it is taken up.

    Only tensors and plain values are read, so a hostile file can't run code. Raises RunError where the file can't be
    read now, or memory runs out; UserError where it holds something else than a state.
    """
    file = checkpoint / _STATE
    try:
        with reading(file), _untranslated():
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("it holds something else")
    except RunError:
        raise
    except Exception as error:
        raise UserError(f"{file} is no state of a run ({reason(error)}): name another --run.dir") from None
    return state


def _verify(checkpoint: Path, run: str) -> None:
    """Raise Damaged if a checkpoint isn't as it was written, UserError if it is none of this run's.

    Raises RunError where that can't be known, because it can't be read.
    """
    with reading(checkpoint / _MANIFEST):
        manifest = _manifest(checkpoint)
    form, files = manifest["format"], manifest["files"]
    if form != FORMAT:
        raise UserError(f"{checkpoint} has format {form}, but this version reads {FORMAT}: name another --run.dir")
    if manifest["run"] != run:
        raise UserError(f"{checkpoint} is of another run: take it out of there, or name another --run.dir")
    if files.keys() != {_STATE}:
        raise Damaged(f"{_MANIFEST} names other files than {_STATE}")
    with reading(checkpoint / _STATE):
        try:
            found = _describe(checkpoint / _STATE)
        except ABSENT as error:
            raise Damaged(f"{_STATE}: {error.strerror}") from None
    if found != files[_STATE]:
        raise Damaged(f"{_STATE} is not what was written")


def _manifest(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint's manifest says. Raises Damaged if it isn't what was written, and what the disk raises."""
    try:
        manifest = json.loads((checkpoint / _MANIFEST).read_bytes())
        seal = manifest.pop("sha256")
        manifest |= {"format": manifest["format"], "run": manifest["run"], "files": dict(manifest["files"])}
    except ABSENT as error:
        raise Damaged(f"{_MANIFEST}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged(f"{_MANIFEST}: it is no manifest") from None
    if seal != _seal(manifest):
        raise Damaged(f"{_MANIFEST} is not what was written")
    return dict(manifest)


def _seal(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _describe(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


class Writer:
    """Writes checkpoints behind the training, one at a time."""

    def __init__(
        self, folder: Path, owner: Owner, config: CheckpointConfig, flush: Callable[[], object] = lambda: None
    ) -> None:
        """flush: sees on the disk what a checkpoint counts on, before there is one."""
        self.folder = folder
        self.owner = owner
        self.config = config
        self.flush = flush
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def submit(self, step: int, state: dict[str, Any]) -> None:
        """Copy a state to the CPU now, and write it later. Waits for the write before, if there is one."""
        self.wait()
        with self._tolerated():
            with writing(self.folder / step_name(step)):
                copy = to_host(state)
            self._writing = self._thread.submit(self._write, step, copy)

    def _write(self, step: int, state: dict[str, Any]) -> None:
        self.flush()
        save(self.folder, step, state, self.owner, self.config)

    def check(self) -> None:
        """Raise RunError if a write has failed (`checkpoint.on_error: stop`), or say so once. Doesn't wait."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until all is written; else as ``check``."""
        unfinished, self._writing = self._writing, None
        if unfinished is not None:
            with self._tolerated():
                unfinished.result()

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        """A checkpoint that can't be written is a RunError or a warning, as the settings say."""
        try:
            yield
        except RunError as error:
            self.owner.check_fence()
            if self.config.on_error == "stop":
                raise
            _log.warning("%s; training goes on", error)
