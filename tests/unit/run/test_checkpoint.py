"""Checkpoints: whole or not there, the newest kept, damage told in one line, and no code in them is run."""

import errno
import hashlib
import json
import os
import re
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import KILLED, OUT_OF_MEMORY, counting, in_child, killing, refusing, watched
from helpers import config_with

from colordist.config import CheckpointConfig
from colordist.errors import RunError, UserError
from colordist.files.host_copy import _copied, to_host
from colordist.run import checkpoint
from colordist.run.checkpoint import Owner, Writer, newest
from colordist.run.folder import RunFolder
from colordist.run.identity import identity
from colordist.run.lock import LockLost
from colordist.training.trainer import find_newest

RUN = "0123abcd"


def state(value: float = 1.5) -> dict[str, Any]:
    weights = torch.full((300,), value, dtype=torch.float64)
    return {"networks": {"generator": OrderedDict(weight=weights)}, "meter": {"counts": {"generator/l1": 2}}}


def owner(fence: int = 1, run: str = RUN) -> Owner:
    return Owner(run, fence, lambda: None)


def save(folder: Path, step: int, value: float = 1.5, fence: int = 1, **settings: Any) -> None:  # noqa: ANN401
    checkpoint.save(folder, step, state(value), owner(fence), CheckpointConfig(**{"keep": 1} | settings))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint, read whole; None where there is none."""
    found, _ = newest(folder, RUN)
    if found is None:
        return None
    loaded = checkpoint.load(found)
    assert found.name == f"step-{loaded['step']:06d}"
    assert (loaded["networks"]["generator"]["weight"] == loaded["step"]).all()
    return int(loaded["step"])


def one_line(error: BaseException) -> str:
    message = str(error)
    assert "\n" not in message
    return message


# --- whole, and the newest


def test_round_trip(tmp_path: Path) -> None:
    save(tmp_path, 7, 1 / 3)
    found, damaged = newest(tmp_path, RUN)
    assert found == tmp_path / "step-000007"
    assert damaged == []
    loaded = checkpoint.load(found)
    assert loaded["step"] == 7
    assert torch.equal(loaded["networks"]["generator"]["weight"], torch.full((300,), 1 / 3, dtype=torch.float64))
    assert loaded["meter"] == state()["meter"]


def test_the_manifest_tells_what_was_written_and_by_whom(tmp_path: Path) -> None:
    save(tmp_path, 7, fence=12)
    data = (tmp_path / "step-000007" / "state.pt").read_bytes()
    manifest = json.loads((tmp_path / "step-000007" / "manifest.json").read_text())
    described = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    expected = {"format": checkpoint.FORMAT, "step": 7, "run": RUN, "fence": 12, "files": {"state.pt": described}}
    assert manifest == expected | {"sha256": checkpoint._digest(expected)}


def test_none_yet(tmp_path: Path) -> None:
    assert newest(tmp_path / "checkpoints", RUN) == (None, [])
    (tmp_path / "step-000003.tmp-1").mkdir()
    assert newest(tmp_path, RUN) == (None, [])


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100):
        save(tmp_path, step, step, keep=2)
    assert names(tmp_path) == ["step-000015", "step-000100"]
    assert newest_step(tmp_path) == 100


def test_some_are_kept_for_ever(tmp_path: Path) -> None:
    for step in range(5, 55, 5):
        save(tmp_path, step, keep=2, keep_every=20)
    assert names(tmp_path) == ["step-000020", "step-000040", "step-000045", "step-000050"]


def test_the_newest_is_kept_beyond_a_million_steps(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-1000000"]


def test_the_same_step_again_is_the_same_one(tmp_path: Path) -> None:
    save(tmp_path, 5, 5)
    written = (tmp_path / "step-000005" / "state.pt").stat().st_mtime_ns
    save(tmp_path, 5, 5)
    assert (tmp_path / "step-000005" / "state.pt").stat().st_mtime_ns == written
    assert names(tmp_path) == ["step-000005"]


def test_the_same_step_again_where_it_was_damaged(tmp_path: Path) -> None:
    save(tmp_path, 5, 5)
    (tmp_path / "step-000005" / "state.pt").write_bytes(b"PK")
    save(tmp_path, 5, 5)
    assert newest_step(tmp_path) == 5
    assert names(tmp_path) == ["step-000005", "step-000005.damaged-0"]


def test_what_people_leave_beside_checkpoints_is_left_alone(tmp_path: Path) -> None:
    save(tmp_path, 5)
    others = ["step-old", "step-000004 copy", "step-000009.tmp", "step-000003.tmp-mine", "step-000002.damaged-0"]
    for name in others:
        shutil.copytree(tmp_path / "step-000005", tmp_path / name)
    save(tmp_path, 6, 6)
    assert newest_step(tmp_path) == 6
    assert names(tmp_path) == sorted([*others, "step-000006"])


def test_what_dead_writers_left_is_dropped(tmp_path: Path) -> None:
    save(tmp_path, 5)
    for name in ("step-000010.tmp-1", "step-000015.tmp-3", "step-000015.tmp-4", "step-000002.tmp-1.tmp-2"):
        shutil.copytree(tmp_path / "step-000005", tmp_path / name)
    save(tmp_path, 6, fence=3)
    assert names(tmp_path) == ["step-000006", "step-000015.tmp-4"]  # that of a later writer stays


def test_each_file_is_on_the_disk_before_the_checkpoint_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power failure could lose: whatever is written but not flushed, contents and names alike."""
    flushed: dict[Path, int] = {}
    renamed: list[tuple[Path, dict[Path, int]]] = []
    fsync, rename = os.fsync, os.rename

    def noting_fsync(descriptor: int) -> None:
        fsync(descriptor)
        flushed[Path(os.readlink(f"/proc/self/fd/{descriptor}"))] = os.fstat(descriptor).st_size

    def noting_rename(source: Path, target: Path) -> None:
        rename(source, target)
        renamed.append((target, dict(flushed)))

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "rename", noting_rename)
    folder = tmp_path / "run" / "checkpoints"
    save(folder, 5)
    ((target, before),) = renamed
    temporary = folder / "step-000005.tmp-1"
    assert target == folder / "step-000005"
    assert before[temporary / "state.pt"] == (target / "state.pt").stat().st_size
    assert before[temporary / "manifest.json"] == (target / "manifest.json").stat().st_size
    assert temporary in before
    assert {folder, folder.parent} <= flushed.keys() - before.keys()


# --- damage


def damage_truncate(share: float) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def rewrite(*, sealed: bool = True, **changes: object) -> Callable[[Path], object]:
    """Change the manifest; sealed: as a writer would."""

    def damage(file: Path) -> None:
        manifest = json.loads(file.read_text()) | changes
        if sealed:
            del manifest["sha256"]
            manifest["sha256"] = checkpoint._digest(manifest)
        file.write_text(json.dumps(manifest))

    return damage


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{f"state cut at {share}": ("state.pt", damage_truncate(share)) for share in (0, 0.01, 0.5, 0.999)},
    "state with a flipped bit": ("state.pt", flip),
    "state longer": ("state.pt", lambda file: file.write_bytes(file.read_bytes() + b"\0")),
    "no state": ("state.pt", lambda file: file.unlink()),
    "state is a folder": ("state.pt", make_folder),
    **{f"manifest cut at {share}": ("manifest.json", damage_truncate(share)) for share in (0, 0.5)},
    "no manifest": ("manifest.json", lambda file: file.unlink()),
    "manifest is no text": ("manifest.json", lambda file: file.write_bytes(b"\xff\x00")),
    "manifest is a list": ("manifest.json", lambda file: file.write_text("[1]")),
    "manifest nested": ("manifest.json", lambda file: file.write_text("[" * 100_000)),
    "manifest of another run, unsealed": ("manifest.json", rewrite(sealed=False, run="f" * 8)),
    "manifest of another format, unsealed": ("manifest.json", rewrite(sealed=False, format=99)),
    "manifest without files": ("manifest.json", rewrite(files={})),
    "manifest with another file": ("manifest.json", rewrite(files={"state.pt": {}, "/dev/zero": {}})),
    "manifest with odd files": ("manifest.json", rewrite(files=3)),
    "digest of another kind": ("manifest.json", rewrite(files={"state.pt": {"size": True, "sha256": None}})),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_one_is_named_and_the_one_before_it_used(name: str, tmp_path: Path) -> None:
    for step in (5, 10):
        save(tmp_path, step, step, keep=2)
    file, damage = DAMAGES[name]
    damage(tmp_path / "step-000010" / file)
    found, (line,) = newest(tmp_path, RUN)
    assert found == tmp_path / "step-000005"
    assert line.startswith(f"{tmp_path / 'step-000010'} is damaged (")
    assert "\n" not in line


def test_a_bit_that_flips_anywhere_in_a_manifest_is_found(tmp_path: Path) -> None:
    for step in (5, 10):
        save(tmp_path, step, step, keep=2)
    file = tmp_path / "step-000010" / "manifest.json"
    written = file.read_bytes()
    for place in range(len(written)):
        data = bytearray(written)
        data[place] ^= 1 << place % 8
        file.write_bytes(data)
        with pytest.raises(checkpoint.Damaged):
            checkpoint._verify(file.parent, RUN)


def test_where_none_is_whole_nothing_is_begun_again(tmp_path: Path) -> None:
    for step in (5, 10):
        save(tmp_path, step, step, keep=2)
        flip(tmp_path / f"step-{step:06d}" / "state.pt")
    with pytest.raises(UserError, match=r"all checkpoints are damaged: .*step-000010.*step-000005") as refused:
        newest(tmp_path, RUN)
    one_line(refused.value)


def test_a_folder_of_somebody_else_is_refused_and_stays(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (tmp_path / "step-000010").mkdir()
    (tmp_path / "step-000010" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"step-000010 holds notes\.txt, which is no part of a checkpoint") as refused:
        newest(tmp_path, RUN)
    one_line(refused.value)
    assert names(tmp_path) == ["step-000005", "step-000010"]


def test_a_damaged_one_is_set_aside_but_not_lost(tmp_path: Path) -> None:
    for _ in range(2):
        save(tmp_path, 5, 5)
        checkpoint.set_aside(tmp_path / "step-000005")
    assert names(tmp_path) == ["step-000005.damaged-0", "step-000005.damaged-1"]
    assert newest(tmp_path, RUN) == (None, [])


def test_another_format_and_another_run_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 5)
    with pytest.raises(UserError, match="is of another run: move it elsewhere") as refused:
        newest(tmp_path, "another")
    one_line(refused.value)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
        save(tmp_path, 6)
    told = f"has format {checkpoint.FORMAT + 1}, but this version reads {checkpoint.FORMAT}"
    with pytest.raises(UserError, match=told) as refused:
        newest(tmp_path, RUN)
    one_line(refused.value)


class Hostile:
    """Unpickled, it runs a command."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.file}'",)


def test_code_is_not_run_even_if_the_manifest_is_right(tmp_path: Path) -> None:
    trace, folder = tmp_path / "trace", tmp_path / "checkpoints"
    checkpoint.save(folder, 5, state() | {"meter": Hostile(trace)}, owner(), CheckpointConfig())
    found, damaged = newest(folder, RUN)
    assert found is not None
    assert damaged == []
    with pytest.raises(UserError, match="is no state of a run") as refused:
        checkpoint.load(found)
    assert "delete" not in one_line(refused.value)
    assert not trace.exists()
    # It would have run: that is what weights_only prevents.
    torch.load(found / "state.pt", weights_only=False)
    assert trace.exists()


def test_what_holds_no_state_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 5)
    torch.save([1], tmp_path / "step-000005" / "state.pt")
    with pytest.raises(UserError, match="it holds something else"):
        checkpoint.load(tmp_path / "step-000005")


# --- faults at every operation


CODES = (errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EACCES, OUT_OF_MEMORY)


def told(code: int) -> str:
    """What the line says of an error."""
    return "out of memory" if code == OUT_OF_MEMORY else os.strerror(code)


def operations(folder: Path, *, reads: bool = False) -> list[str]:
    """What a checkpoint that drops another one does to the disk."""
    save(folder, 5, 5)
    done: list[str] = []
    with watched(counting(done), reads=reads):
        save(folder, 10, 10, fence=2)
    return done


def test_every_kind_of_operation_is_there_to_fail(tmp_path: Path) -> None:
    done = operations(tmp_path)
    assert set(done) == {"mkdir", "open", "write", "fsync", "rename", "unlink", "rmdir"}
    assert done.count("rename") == 2
    assert done.count("fsync") == 5


def check_that_it_goes_on(folder: Path) -> None:
    """The newest complete checkpoint is there; the next process cleans up, and writes the rest."""
    assert newest_step(folder) in (5, 10)
    assert newest(folder, RUN)[1] == []
    checkpoint.sweep(folder, 3)
    save(folder, 10, 10, fence=3)
    assert newest_step(folder) == 10
    save(folder, 15, 15, fence=3)
    assert names(folder) == ["step-000015"]
    assert newest_step(folder) == 15


@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize("code", CODES)
def test_a_fault_at_every_operation(
    code: int, for_good: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For a moment, or for good."""
    outcomes = set()
    for at in range(len(operations(tmp_path / "counted", reads=True))):
        folder = tmp_path / str(at)
        save(folder, 5, 5)
        caplog.clear()
        refused = None
        with watched(refusing(at, code, for_good=for_good), reads=True):
            try:
                save(folder, 10, 10, fence=2)
            except RunError as error:
                refused = one_line(error)
        if refused is not None:
            assert re.match(rf"{folder / 'step-000010'} can't be (read|written) \({told(code)}\)", refused)
        outcomes.add("not written" if refused else "not dropped" if "can't be removed" in caplog.text else "")
        check_that_it_goes_on(folder)
    assert outcomes >= {"not written", "not dropped"}


def digests(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("code", CODES)
def test_a_read_that_fails_is_no_damage(code: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever read it is: the line says what it was; no checkpoint is renamed, removed, or passed over."""
    run, config = RunFolder(tmp_path), config_with({})
    for step in (5, 10):
        checkpoint.save(run.checkpoints, step, state(step), owner(run=identity(config)), config.checkpoint)
    before, done = digests(tmp_path), list[str]()

    def resume() -> dict[str, Any]:
        found = find_newest(config, run)
        assert found is not None
        return checkpoint.load(found)

    with watched(counting(done), reads=True):
        resume()
    assert set(done) == {"listdir", "open to read", "read", "stat"}
    for at in range(len(done)):
        with watched(refusing(at, code), reads=True), pytest.raises(RunError) as refused:
            resume()
        line = one_line(refused.value)
        assert re.match(rf"{run.checkpoints}\S* can't be read \({told(code)}\): ", line)
        assert not re.search("damaged|delete|another", line)
        assert digests(tmp_path) == before
        assert not caplog.records
    assert resume()["step"] == 10


@pytest.mark.parametrize("code", CODES)
def test_a_fault_while_a_checkpoint_is_written_that_is_there_already(code: int, tmp_path: Path) -> None:
    """It is looked at, and it is whole: it keeps its name, and every byte."""
    done: list[str] = []
    save(tmp_path / "counted", 5, 5)
    with watched(counting(done), reads=True):
        save(tmp_path / "counted", 5, 5, fence=2)
    for at in range(len(done)):
        folder = tmp_path / str(at)
        save(folder, 5, 5)
        before = digests(folder / "step-000005")
        with watched(refusing(at, code), reads=True), suppress(RunError):
            save(folder, 5, 5, fence=2)
        assert digests(folder / "step-000005") == before
        assert not list(folder.glob("*.damaged-*"))


def test_memory_that_runs_out_while_a_state_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def to_host(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(checkpoint, "to_host", to_host)
    for on_error in ("stop", "warn"):
        writer = Writer(tmp_path, owner(), CheckpointConfig(on_error=on_error))
        refusal = pytest.raises(RunError, match=r"step-000005 can't be written \(out of memory\)")
        with refusal if on_error == "stop" else nullcontext():
            writer.submit(5, state())


def test_only_checkpoints_of_this_run_are_dropped(tmp_path: Path) -> None:
    """Not what somebody has put beside them under such a name, nor one with something else in it."""
    for step in (1, 2, 3):
        save(tmp_path, step, step, keep=5)
    (tmp_path / "step-000001" / "notes.txt").write_text("mine")
    shutil.rmtree(tmp_path / "step-000002")
    (tmp_path / "step-000002").mkdir()
    (tmp_path / "step-000002" / "state.pt").write_text("mine")
    checkpoint.save(tmp_path, 4, state(), owner(run="another"), CheckpointConfig(keep=5))
    (tmp_path / "step-000005.tmp-1").mkdir()
    (tmp_path / "step-000005.tmp-1" / "notes.txt").write_text("mine")
    before = digests(tmp_path)
    save(tmp_path, 6, 6, fence=2)
    after = digests(tmp_path)
    dropped = {path.relative_to(tmp_path).parts[0] for path in before.keys() - after.keys()}
    assert dropped == {"step-000003"}
    assert all(after[path] == data for path, data in before.items() if path in after)


def test_a_kill_at_every_operation(tmp_path: Path) -> None:
    total = len(operations(tmp_path / "counted"))
    left = set()
    for at in range(total):
        folder = tmp_path / str(at)
        save(folder, 5, 5)

        def killed(folder: Path = folder, at: int = at) -> None:
            with watched(killing(at)):
                save(folder, 10, 10, fence=2)

        assert in_child(killed) == KILLED
        left.add(newest_step(folder))
        check_that_it_goes_on(folder)
    assert left == {5, 10}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    if os.system(f"mount -t tmpfs -o size=64k tmpfs '{tmp_path}' 2>/dev/null"):
        pytest.skip("no small disk can be mounted here")
    try:
        save(tmp_path, 5, 5, keep=2)
        (tmp_path / "other").write_bytes(bytes(50 * 1024))
        with pytest.raises(RunError, match=r"step-000010 can't be written \(No space left on device\)"):
            save(tmp_path, 10, 10, keep=2)
        assert newest_step(tmp_path) == 5
        (tmp_path / "other").unlink()
        save(tmp_path, 10, 10, keep=2)
        assert names(tmp_path) == ["step-000005", "step-000010"]
    finally:
        os.system(f"umount '{tmp_path}'")


# --- the writer behind the training


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """No checkpoint is written before this is set."""
    real, go = checkpoint.save, threading.Event()

    def save_later(*args: Any) -> None:  # noqa: ANN401
        assert go.wait(20)
        real(*args)

    monkeypatch.setattr(checkpoint, "save", save_later)
    return go


def test_what_is_written_is_what_was_there_when_it_was_asked_for(tmp_path: Path, held: threading.Event) -> None:
    writer = Writer(tmp_path, owner(), CheckpointConfig())
    live = state(5)
    writer.submit(5, live)
    live["networks"]["generator"]["weight"].add_(1)  # training goes on
    live["meter"]["counts"]["generator/l1"] = 9
    writer.check()  # doesn't wait
    assert not (tmp_path / "step-000005").exists()
    held.set()
    writer.wait()
    assert newest_step(tmp_path) == 5
    assert checkpoint.load(tmp_path / "step-000005")["meter"]["counts"] == {"generator/l1": 2}


def test_one_write_at_a_time(tmp_path: Path, held: threading.Event) -> None:
    writer = Writer(tmp_path, owner(), CheckpointConfig(keep=3))
    writer.submit(5, state(5))
    second = threading.Thread(target=lambda: writer.submit(10, state(10)))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    held.set()
    second.join(20)
    writer.wait()
    assert names(tmp_path) == ["step-000005", "step-000010"]


def test_the_host_copy_keeps_how_tensors_lie_in_memory() -> None:
    """Fused Adam goes through weights and moments side by side. On a device, tensors of a dtype are copied together."""
    weights = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    rows = torch.randn(6, 4)
    tensors = [weights, rows[2:4], torch.tensor(3.0), rows[:, 1], rows.T, torch.empty(0, 2)]
    for copies in (to_host(tensors), _copied(tensors)):
        for copy, tensor in zip(copies, tensors, strict=True):
            assert torch.equal(copy, tensor)
            assert copy.stride() == torch.empty_like(tensor).stride()
            assert copy.data_ptr() != tensor.data_ptr() or not tensor.numel()


def test_the_host_copy_overwrites_an_earlier_one_where_it_fits() -> None:
    kept: dict[int, torch.Tensor] = {}
    weights = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    first = to_host([weights, torch.ones(3), torch.ones(2, 2)], kept)
    rows = torch.arange(8.0).view(2, 4)
    tensors = [weights * 2, torch.zeros(3, dtype=torch.int32), rows[:, :2], rows.T]
    second = to_host(tensors, kept)
    assert second[0] is first[0]
    assert not any(second[index] is first[index] for index in (1, 2))
    for copy, tensor in zip(second, tensors, strict=True):
        assert copy.dtype == tensor.dtype
        assert torch.equal(copy, tensor)
        assert copy.stride() == torch.empty_like(tensor).stride()


def test_a_checkpoint_does_not_change_when_its_memory_is_used_again(tmp_path: Path) -> None:
    writer, live = Writer(tmp_path, owner(), CheckpointConfig(keep=3)), state(5)
    weight = live["networks"]["generator"]["weight"]
    weights = {}
    for step in (5, 10, 15):
        writer.submit(step, live)
        weights[step] = weight.clone()
        weight.add_(step)
    writer.wait()
    for step, expected in weights.items():
        found = checkpoint.load(tmp_path / f"step-{step:06d}")
        assert torch.equal(found["networks"]["generator"]["weight"], expected)


def test_what_a_checkpoint_counts_on_is_on_the_disk_first(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    writer = Writer(tmp_path, owner(), CheckpointConfig(), flush=lambda: seen.append(names(tmp_path)))
    for step in (5, 10):
        writer.submit(step, state(step))
    writer.wait()
    assert seen == [[], ["step-000005"]]


def failing(folder: Path, on_error: str, refuse: Callable[[], None] = lambda: None) -> Writer:
    """A writer whose folder can't be made, because a file lies there."""
    folder.write_text("in the way")
    settings = CheckpointConfig(on_error=on_error)  # type: ignore[arg-type]
    return Writer(folder, Owner(RUN, 1, refuse), settings)


def wait_until_told(writer: Writer) -> None:
    while writer._writing is not None:
        writer.check()


def test_a_failure_surfaces_in_the_training(tmp_path: Path) -> None:
    writer = failing(tmp_path / "file", "stop")
    writer.submit(5, state())
    with pytest.raises(RunError, match="step-000005 can't be written"):
        wait_until_told(writer)
    writer.check()  # it is told once
    writer.submit(10, state())
    with pytest.raises(RunError, match="step-000010 can't be written"):
        writer.submit(15, state())


def test_a_failure_is_a_warning_if_that_is_wanted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = failing(tmp_path / "file", "warn")
    writer.submit(5, state())
    wait_until_told(writer)
    assert len(re.findall("step-000005 can't be written .*; training continues", caplog.text)) == 1
    (tmp_path / "file").unlink()
    writer.submit(10, state(10))
    writer.wait()
    assert newest_step(tmp_path / "file") == 10
    assert len(caplog.records) == 1


def fenced_off() -> None:
    raise LockLost("process 5 on there has taken over")


@pytest.mark.parametrize("on_error", ["stop", "warn"])
def test_whoever_is_fenced_off_writes_no_more(on_error: str, tmp_path: Path) -> None:
    save(tmp_path, 5, 5)
    settings = CheckpointConfig(on_error=on_error)  # type: ignore[arg-type]
    writer = Writer(tmp_path, Owner(RUN, 1, fenced_off), settings)
    writer.submit(10, state(10))
    with pytest.raises(RunError, match="has taken over"):
        writer.wait()
    assert newest_step(tmp_path) == 5
    assert names(tmp_path) == ["step-000005"]
    other = failing(tmp_path / "file", on_error, fenced_off)  # a failure of any kind may come from that
    other.submit(10, state(10))
    with pytest.raises(RunError, match="has taken over"):
        other.wait()


def test_whoever_sleeps_just_before_publishing_cannot_publish_later(tmp_path: Path) -> None:
    """It believes that it is the owner, and is overtaken before it says so."""
    save(tmp_path, 5, 5)

    def sleep() -> None:
        checkpoint.sweep(tmp_path, 2)  # the new owner begins
        assert newest_step(tmp_path) == 5

    with pytest.raises(RunError, match="step-000010 can't be written"):
        checkpoint.save(tmp_path, 10, state(10), Owner(RUN, 1, sleep), CheckpointConfig())
    assert newest_step(tmp_path) == 5
    assert newest(tmp_path, RUN)[1] == []
