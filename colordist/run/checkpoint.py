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
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor

from colordist.config import CheckpointConfig
from colordist.errors import RunError, UserError
from colordist.files.atomic import ABSENT, exists, flush, holds_only, reading, reason, remove_folder, writing
from colordist.files.documents import Malformed, parse_json, typed
from colordist.files.host_copy import to_host
from colordist.files.opening import MOST_BYTES, NotRegular, TooLarge, open_regular, read_regular
from colordist.files.weights import require_finite
from colordist.ranges import MOST
from colordist.run.folder import numbered, step_name
from colordist.run.lock import LockLost

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
        unfinished = _write(folder, step, state, owner)
        try:
            _publish(unfinished, final, owner)
        except LockLost:
            _remove(unfinished)  # if the run has been finished in the meantime, nobody sweeps any more
            raise
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
    with (temporary / _MANIFEST).open("w", encoding="utf-8") as file:
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
        return _manifest(checkpoint).run == run
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


class _Step(msgspec.Struct):
    step: Annotated[int, msgspec.Meta(ge=0, le=MOST)]


def load(checkpoint: Path) -> dict[str, Any]:
    """Load the state in a checkpoint to the CPU.

    Loads tensors and plain values only, so a malicious file can't run code. Raises RunError for a failed read or
    exhausted memory, UserError where the file holds something else, or weights that are Inf or NaN.
    """
    file = checkpoint / _STATE
    try:
        with reading(file), _original_error(), open_regular(file) as opened:
            state: dict[str, Any] = torch.load(opened, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("it holds something else")
        typed({"step": state["step"]}, _Step)
        for name, network in state["networks"].items():
            for part in ("module", "ema"):
                require_finite(network.get(part, {}), f"{name}.{part}.")
    except RunError:
        raise
    except Exception as error:
        raise UserError(f"{file} is no state of a run ({reason(error)}): name another --run.dir") from None
    return state


def _verify(checkpoint: Path, run: str) -> None:
    """Raise Damaged if a checkpoint is, UserError for another run or format, RunError for a failed read."""
    with reading(checkpoint / _MANIFEST):
        manifest = _manifest(checkpoint)
    if manifest.format != FORMAT:
        raise UserError(
            f"{checkpoint} has format {manifest.format}, but this version reads {FORMAT}: name another --run.dir"
        )
    if manifest.run != run:
        raise UserError(f"{checkpoint} is of another run: move it elsewhere, or name another --run.dir")
    if manifest.files.keys() != {_STATE}:
        raise Damaged(f"{_MANIFEST} names other files than {_STATE}")
    with reading(checkpoint / _STATE):
        try:
            found = _describe(checkpoint / _STATE)
        except ABSENT as error:
            raise Damaged(f"{_STATE}: {error.strerror}") from None
        except NotRegular as error:
            raise Damaged(f"{_STATE}: {error}") from None
    if found != manifest.files[_STATE]:
        raise Damaged(f"{_STATE} is not what was written")


class _Manifest(msgspec.Struct):
    """The content of a manifest, of any format."""

    format: int
    run: str
    sha256: str
    files: dict[str, Any]


def _manifest(checkpoint: Path) -> _Manifest:
    """Read a checkpoint's manifest. Raises Damaged if it isn't what was written, and OSError."""
    try:
        found = parse_json(read_regular(checkpoint / _MANIFEST, MOST_BYTES), dict[str, Any])
        manifest = typed(found, _Manifest)
    except ABSENT as error:
        raise Damaged(f"{_MANIFEST}: {error.strerror}") from None
    except (Malformed, NotRegular, TooLarge) as error:
        raise Damaged(f"{_MANIFEST}: {error}") from None
    if manifest.sha256 != _digest({key: value for key, value in found.items() if key != "sha256"}):
        raise Damaged(f"{_MANIFEST} is not what was written")
    return manifest


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
        self._failure: RunError | None = None  # of the latest write
        self._kept: dict[int, Tensor] = {}  # the latest copy, free once it is written

    def submit(self, step: int, state: dict[str, Any]) -> None:
        """Copy a state to the CPU, and start writing it. Waits for the previous write."""
        self.wait()
        self._failure = None
        with self._noting_failure():
            with writing(self.folder / step_name(step)):
                copy = to_host(state, self._kept)
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
            with self._noting_failure():
                unfinished.result()

    def finish(self) -> None:
        """Wait for the last write. Raises RunError if it has failed, also where that was a warning."""
        self.wait()
        if self._failure is not None:
            raise self._failure

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        with self.tolerating():
            try:
                yield
            except RunError as error:
                self._failure = error
                raise

    @contextmanager
    def tolerating(self) -> Iterator[None]:
        """Turn a failed write into the run folder into a warning, unless `checkpoint.on_error` is `stop`."""
        try:
            yield
        except RunError as error:
            try:
                self.owner.check_fence()
            except RunError as lost:
                if isinstance(lost, LockLost):  # else it can't be read, either
                    raise
            if self.config.on_error == "stop":
                raise
            _log.warning("%s; training continues", error)
