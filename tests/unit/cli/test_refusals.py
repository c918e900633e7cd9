"""A run that is refused, or fails before its first result, leaves nothing behind and changes nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import TINY, alone_on_the_cpu
from photos import noise, snapshot_in
from verbs import call_main

TRAIN = ["train", "--task.name=cgan", "--run.dir=new/run", *(f"--{key}={value}" for key, value in TINY.items())]
IMAGES = [each for each in TRAIN if "_images=" not in each] + ["--data.source=folder", "--data.image_size=16"]
REFUSED = {
    "tracking without a key": [*TRAIN, "--track.wandb=online"],
    "no initial weights": [*TRAIN, "--train.init_from=nowhere"],
    "other initial weights": [*TRAIN, "--train.init_from=model", "--train.init_strict=true"],
    "no images": [*IMAGES, "--data.root=empty"],
    "unreadable images": [*IMAGES, "--data.root=damaged"],
    "foreign checkpoints": [*TRAIN, "--run.dir=foreign"],
    "a foreign folder of records": [*TRAIN, "--run.dir=odd"],
    "a foreign digest": [*TRAIN, "--run.dir=digest"],
    "colorize, no photo": ["colorize", "model", "empty", "-o", "new/out"],
    "colorize, no model": ["colorize", "nowhere", "photo.png", "-o", "new/out"],
    "colorize, damaged photos": ["colorize", "model", "damaged", "-o", "new/out"],
    "colorize, output is a file": ["colorize", "model", "photo.png", "-o", "photo.png"],
    "export, no model": ["export", "nowhere", "--onnx", "new/a.onnx"],
    "export, a foreign file": ["export", "model", "--onnx", "photo.png"],
    "export, latent codes": ["export", "noisy", "--onnx", "new/a.onnx"],
    "report, no run": ["report", "nowhere", "-o", "new/report.html"],
    "report, another ending": ["report", "model", "-o", "new/report.txt"],
    "evaluate, no images": ["evaluate", "model", "--data.source=folder", "--data.root=empty", "-o", "new/scores.json"],
    "evaluate, no answers": ["evaluate", "--answers", "empty", "--truth", "empty", "--json", "new/scores.json"],
}


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("empty", "damaged", "foreign", "odd/metrics.jsonl", "digest/images"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "damaged/a.png").write_bytes(b"no image")
    (tmp_path / "foreign/checkpoints").write_text("a file")
    noise(20, 20).save(tmp_path / "photo.png")
    snapshot_in(tmp_path / "model")
    snapshot_in(tmp_path / "noisy", noise=2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with alone_on_the_cpu(monkeypatch):
        yield


def tree(folder: Path) -> dict[str, bytes | None]:
    """Content of all files below a folder by path; None for folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_is_left_behind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(tmp_path)
    assert call_main(monkeypatch, *REFUSED[name]) == (1 if name == "colorize, damaged photos" else 2)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("colordist: ")]
    assert len(told) == (2 if name == "colorize, damaged photos" else 1)
    assert tree(tmp_path) == before


def test_a_lock_that_others_wait_for_stays(tmp_path: Path) -> None:
    """Only the process that made the folders removes them, and only if nothing else is there."""
    from colordist.run.lock import Lock

    Lock.acquire(tmp_path / "new/run", 30).withdraw()
    assert not (tmp_path / "new").exists()
    Lock.acquire(tmp_path / "new/run", 30).release()
    Lock.acquire(tmp_path / "new/run", 30).withdraw()
    assert (tmp_path / "new/run/lock/000002.json").exists()
