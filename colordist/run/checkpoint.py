"""Checkpoints: everything that the trainer needs to continue.

A checkpoint is a folder with ``state.pt`` and ``manifest.json``: size and SHA-256 of the state, and a digest of the
manifest itself. It is written under a temporary name, fsynced and renamed (atomically), so its name implies that it is
complete; later damage is detected by the manifest.

A checkpoint counts as damaged if a file is missing, or was read completely and doesn't match the manifest. A failed
read says nothing about the checkpoint: it is reported as what it is, and nothing is renamed or removed.
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

from colordist.config import CheckpointConfig, RunError, UserError
from colordist.files.atomic import ABSENT, exists, flush, holds_only, reading, reason, remove_folder, writing
from colordist.files.documents import MOST_BYTES
from colordist.files.host_copy import to_host
from colordist.files.opening import NotRegular, TooLarge, open_regular, read_regular
from colordist.run.folder import numbered, step_name

FORMAT = 3
_FILES = _STATE, _MANIFEST = "state.pt", "manifest.json"
_log = logging.getLogger(__name__)


class Damaged(Exception):
    """A checkpoint is incomplete, or differs from what was written. The message is one line."""


@dataclass(frozen=True)
class Owner:
    """The writer of checkpoints."""

    run: str
    """Identity of the run: see ``run.identity``."""
    fence: int
    """Fencing token: see ``run.lock``."""
    check_fence: Callable[[], None]
    """Raises RunError when another process has taken over the run."""


def save(folder: Path, step: int, state: dict[str, Any], owner: Owner, config: CheckpointConfig) -> None:
    """Write a checkpoint, then prune old ones. Raises RunError where it can't be written."""
    final = folder / step_name(step)
    with writing(final):
        _publish(_write(folder, step, state, owner), final, owner)
    _prune(folder, step, owner, config)


def _write(folder: Path, step: int, state: dict[str, Any], owner: Owner) -> Path:
    """Write and fsync a checkpoint under a temporary name, and return its path."""
    temporary = folder / f"{step_name(step)}.tmp-{owner.fence}"
    _remove(temporary)
    temporary.mkdir(parents=True)
    with (temporary / _STATE).open("wb") as file:
        with _original_error():
            torch.save({"step": step, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    files = {_STATE: _describe(temporary / _STATE)}
    manifest = {"format": FORMAT, "step": step, "run": owner.run, "fence": owner.fence, "files": files}
    with (temporary / _MANIFEST).open("w") as file:
        json.dump(manifest | {"sha256": _digest(manifest)}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    flush(temporary)
    return temporary


@contextmanager
def _original_error() -> Iterator[None]:
    """Raise the OSError or MemoryError where torch has replaced it by a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__context__, OSError | MemoryError):
            raise error.__context__ from None
        raise


def _publish(temporary: Path, final: Path, owner: Owner) -> None:
    """Rename a checkpoint to its final name. An undamaged one with that name has the same content: it is kept."""
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
    """Remove checkpoints by ``checkpoint.keep`` and ``keep_every``, up to a step. A failure is a warning."""
    owner.check_fence()
    try:
        steps = {path: int(path.name.removeprefix("step-")) for path in numbered(folder)}
        earlier = [path for path in steps if steps[path] <= step and _is_own(path, owner.run)]
        for path in earlier[: -config.keep]:
            if config.keep_every is None or steps[path] % config.keep_every:
                _delete(path, owner.fence)
        sweep(folder, owner.fence)
    except (OSError, MemoryError, RunError) as error:
        what = getattr(error, "filename", None) or folder
        _log.warning("%s can't be removed (%s): training continues", what, reason(error))


def _is_own(checkpoint: Path, run: str) -> bool:
    """Whether a folder is a checkpoint of this run and holds no other files: only then may it be removed."""
    if not holds_only(checkpoint, _FILES):
        return False
    try:
        return bool(_manifest(checkpoint)["run"] == run)
    except Damaged:
        return False


def sweep(folder: Path, fence: int) -> None:
    """Remove unfinished checkpoints of writers up to a fencing token.

    After that none of them can publish one any more, not even a writer that is suspended just before the rename.
    """
    for path in folder.glob("step-*.tmp-*"):
        number = path.name.rpartition("-")[2]
        if number.isdecimal() and int(number) <= fence and holds_only(path, _FILES):
            with suppress(FileNotFoundError):  # published in the meantime
                _delete(path, fence)


def _delete(path: Path, fence: int) -> None:
    """Delete a checkpoint. Renamed first, so that its final name implies that it is complete."""
    unfinished = path.with_name(f"{path.name}.tmp-{fence}")
    path.rename(unfinished)
    _remove(unfinished)


def _remove(unfinished: Path) -> None:
    """Remove an unfinished checkpoint. What can't be removed is left to the next sweep."""
    with suppress(OSError):
        remove_folder(unfinished, _FILES)


def newest(folder: Path, run: str) -> tuple[Path | None, list[str]]:
    """The newest undamaged checkpoint, None if there are none yet, and one line for each newer, damaged one.

    run: identity of the run. Raises UserError for a checkpoint of another run or format, for a folder with other
    files, and where all are damaged; RunError for a failed read.
    """
    damaged: list[str] = []
    for path in reversed(numbered(folder)):
        try:
            _verify(path, run)
            return path, damaged
        except Damaged as damage:
            _require_own(path)
            damaged.append(f"{path} is damaged ({damage})")
    if damaged:
        raise UserError(f"all checkpoints are damaged: {'; '.join(damaged)}: name another --run.dir to begin again")
    return None, []


def _require_own(damaged: Path) -> None:
    """Raise UserError for a folder that holds other files than a checkpoint: it is somebody else's."""
    with reading(damaged), suppress(*ABSENT):
        if others := sorted({path.name for path in damaged.iterdir()} - {*_FILES}):
            raise UserError(f"{damaged} holds {others[0]}, which is no part of a checkpoint: move the folder elsewhere")


def set_aside(checkpoint: Path) -> None:
    """Rename a damaged checkpoint to ``NAME.damaged-N``."""
    number = 0
    while (aside := checkpoint.with_name(f"{checkpoint.name}.damaged-{number}")).exists():
        number += 1
    with writing(aside):
        checkpoint.rename(aside)


def load(checkpoint: Path) -> dict[str, Any]:
    """Load the state in a checkpoint to the CPU.

    Loads tensors and plain values only, so a malicious file can't run code. Raises RunError for a failed read or
    exhausted memory, UserError where the file holds something else.
    """
    file = checkpoint / _STATE
    try:
        with reading(file), _original_error(), open_regular(file) as opened:
            state: dict[str, Any] = torch.load(opened, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("it holds something else")
    except RunError:
        raise
    except Exception as error:
        raise UserError(f"{file} is no state of a run ({reason(error)}): name another --run.dir") from None
    return state


def _verify(checkpoint: Path, run: str) -> None:
    """Raise Damaged if a checkpoint is, UserError for another run or format, RunError for a failed read."""
    with reading(checkpoint / _MANIFEST):
        manifest = _manifest(checkpoint)
    form, files = manifest["format"], manifest["files"]
    if form != FORMAT:
        raise UserError(f"{checkpoint} has format {form}, but this version reads {FORMAT}: name another --run.dir")
    if manifest["run"] != run:
        raise UserError(f"{checkpoint} is of another run: move it elsewhere, or name another --run.dir")
    if files.keys() != {_STATE}:
        raise Damaged(f"{_MANIFEST} names other files than {_STATE}")
    with reading(checkpoint / _STATE):
        try:
            found = _describe(checkpoint / _STATE)
        except ABSENT as error:
            raise Damaged(f"{_STATE}: {error.strerror}") from None
        except NotRegular as error:
            raise Damaged(str(error)) from None
    if found != files[_STATE]:
        raise Damaged(f"{_STATE} is not what was written")


def _manifest(checkpoint: Path) -> dict[str, Any]:
    """Read a checkpoint's manifest. Raises Damaged if it isn't what was written, and OSError."""
    try:
        manifest = json.loads(read_regular(checkpoint / _MANIFEST, MOST_BYTES))
        digest = manifest.pop("sha256")
        manifest |= {"format": manifest["format"], "run": manifest["run"], "files": dict(manifest["files"])}
    except ABSENT as error:
        raise Damaged(f"{_MANIFEST}: {error.strerror}") from None
    except (NotRegular, TooLarge) as error:
        raise Damaged(str(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged(f"{_MANIFEST}: it is no manifest") from None
    if digest != _digest(manifest):
        raise Damaged(f"{_MANIFEST} is not what was written")
    return dict(manifest)


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _describe(file: Path) -> dict[str, Any]:
    with open_regular(file) as opened:
        return {"size": os.fstat(opened.fileno()).st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


class Writer:
    """Writes checkpoints in a background thread, one at a time."""

    def __init__(
        self, folder: Path, owner: Owner, config: CheckpointConfig, flush: Callable[[], object] = lambda: None
    ) -> None:
        """flush: fsyncs files that must not be behind a checkpoint; called before each write."""
        self.folder = folder
        self.owner = owner
        self.config = config
        self.flush = flush
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def submit(self, step: int, state: dict[str, Any]) -> None:
        """Copy a state to the CPU, and start writing it. Waits for the previous write."""
        self.wait()
        with self._tolerated():
            with writing(self.folder / step_name(step)):
                copy = to_host(state)
            self._writing = self._thread.submit(self._write, step, copy)

    def _write(self, step: int, state: dict[str, Any]) -> None:
        self.flush()
        save(self.folder, step, state, self.owner, self.config)

    def check(self) -> None:
        """Raise RunError if a write has failed (`checkpoint.on_error: stop`), or warn once. Doesn't wait."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the current write. Raises or warns as ``check``."""
        unfinished, self._writing = self._writing, None
        if unfinished is not None:
            with self._tolerated():
                unfinished.result()

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        """Turn a failed write into a warning, unless `checkpoint.on_error` is `stop`."""
        try:
            yield
        except RunError as error:
            self.owner.check_fence()
            if self.config.on_error == "stop":
                raise
            _log.warning("%s; training continues", error)
