"""Checkpoints: whole or not there, the newest kept, damage told in one line, and no code in them is run."""

import os
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from colordist.config import UserError
from colordist.engine import checkpoint


def state(value: float = 1.5) -> dict[str, Any]:
    weights = torch.full((3,), value, dtype=torch.float64)
    return {"networks": {"generator": OrderedDict(weight=weights)}, "meter": {"counts": {"generator/l1": 2}}}


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def load_newest(folder: Path) -> dict[str, Any] | None:
    newest = checkpoint.newest(folder)
    return None if newest is None else checkpoint.load(newest)


def state_file(folder: Path, step: int) -> Path:
    (file,) = (folder / f"step-{step:06d}").iterdir()
    return file


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as refused:
        load_newest(folder)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 7, state(1 / 3), keep=2)
    found = load_newest(tmp_path)
    assert found is not None
    assert found["step"] == 7
    assert torch.equal(found["networks"]["generator"]["weight"], torch.full((3,), 1 / 3, dtype=torch.float64))
    assert found["meter"] == state()["meter"]


def test_none_yet(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "checkpoints") is None
    (tmp_path / "step-000003").mkdir()  # and nothing in it
    assert load_newest(tmp_path) is None


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100):
        checkpoint.save(tmp_path, step, state(step), keep=2)
    assert steps(tmp_path) == ["step-000015", "step-000100"]
    found = load_newest(tmp_path)
    assert found is not None
    assert found["step"] == 100


def test_the_newest_is_kept_beyond_a_million_steps(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000):
        checkpoint.save(tmp_path, step, state(), keep=1)
    assert steps(tmp_path) == ["step-1000000"]


def test_the_same_step_again(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 5, state(1), keep=1)
    checkpoint.save(tmp_path, 5, state(2), keep=1)
    found = load_newest(tmp_path)
    assert found is not None
    assert found["networks"]["generator"]["weight"][0] == 2
    assert steps(tmp_path) == ["step-000005"]


def test_what_a_kill_left_behind_is_ignored_and_overwritten(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 5, state(), keep=2)
    half = tmp_path / "step-000010.tmp"
    half.mkdir()
    (half / state_file(tmp_path, 5).name).write_bytes(b"half of it")
    found = load_newest(tmp_path)
    assert found is not None
    assert found["step"] == 5
    checkpoint.save(tmp_path, 10, state(), keep=2)
    assert steps(tmp_path) == ["step-000005", "step-000010"]


def test_a_kill_while_writing_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 5, state(), keep=1)

    def half(_: object, file: Any) -> None:  # noqa: ANN401  a file or its name
        file.write(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 10, state(), keep=1)
    found = load_newest(tmp_path)
    assert found is not None
    assert found["step"] == 5


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_truncated(tmp_path: Path, share: float) -> None:
    checkpoint.save(tmp_path, 5, state(), keep=1)
    file = state_file(tmp_path, 5)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    message = refusal(tmp_path)
    assert str(file) in message
    assert f"delete {file.parent}" in message


def test_flipped_bit(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 5, state(), keep=1)
    file = state_file(tmp_path, 5)
    data = bytearray(file.read_bytes())
    number = torch.tensor(1.5, dtype=torch.float64).numpy().tobytes()
    data[data.index(number * 3)] ^= 1
    file.write_bytes(data)
    assert str(file) in refusal(tmp_path)


class Hostile:
    """Unpickled, it runs a command."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.file}'",)


def test_code_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    checkpoint.save(tmp_path / "checkpoints", 5, state() | {"meter": Hostile(trace)}, keep=1)
    message = refusal(tmp_path / "checkpoints")
    assert "can't be read" in message
    assert not trace.exists()
    # It would have run: that is what weights_only prevents.
    torch.load(state_file(tmp_path / "checkpoints", 5), weights_only=False)
    assert trace.exists()


def test_format_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
        checkpoint.save(tmp_path, 5, state(), keep=1)
    assert f"has format {checkpoint.FORMAT + 1}, but this version reads {checkpoint.FORMAT}" in refusal(tmp_path)


def test_what_people_leave_beside_checkpoints_is_left_alone(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 5, state(), keep=1)
    for name in ("step-old", "step-000004 copy", "step-000009.tmp"):
        shutil.copytree(tmp_path / "step-000005", tmp_path / name)
    checkpoint.save(tmp_path, 6, state(), keep=1)
    found = load_newest(tmp_path)
    assert found is not None
    assert found["step"] == 6
    assert {path.name for path in tmp_path.iterdir()} == {
        "step-old",
        "step-000004 copy",
        "step-000006",
        "step-000009.tmp",
    }
