"""Pipes, devices, sockets, folders and broken links where files are expected: one line at once, nothing replaced."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import alone_on_the_cpu
from irregular import IRREGULAR, within
from photos import noise, snapshot_in

import colordist
from colordist.data.decode import Scaling, Undecodable, decode
from colordist.data.encoded import read_unchanged
from colordist.data.sources import dataset_files, folder_cache
from colordist.data.sources.dataset_files import Location
from colordist.data.sources.folder import folder
from colordist.errors import RunError, UserError
from colordist.evaluate import carry_out
from colordist.inference.colorizer import read_photo
from colordist.inference.photo_files import find_photos, obstacles
from colordist.models.pretrained import Pretrained, create_pretrained
from colordist.run import checkpoint, snapshot

FILES = [each for each in IRREGULAR if each != "folder"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with within():
        yield


def photos(where: str, count: int = 3) -> Path:
    Path(where).mkdir()
    for number in range(count):
        noise(20, 16, seed=number).save(f"{where}/{number}.png")
    return Path(where)


@pytest.mark.parametrize("what", IRREGULAR)
def test_images(what: str) -> None:
    IRREGULAR[what](Path("a.png"))
    for read in (decode, read_photo):
        with pytest.raises(Undecodable, match=r"not a regular file|unreadable"):
            read(Path("a.png"))
    with pytest.raises(RunError, match=r"^a\.png (can't be read|is a )"):
        read_unchanged(Path("a.png"), 10, "before")


@pytest.mark.parametrize("what", FILES)
def test_image_folders(what: str, caplog: pytest.LogCaptureFixture) -> None:
    IRREGULAR[what](photos("in") / "bad.png")
    caplog.set_level("INFO", "colordist")
    source = folder(Path("in"), None, Scaling(16), Path("cache"))
    assert len(source.train) + len(source.test) == 3
    reason = "not a regular file" if what in ("pipe", "socket", "endless device", "full device") else "broken link"
    assert f"1 {reason} (bad.png)" in caplog.text


@pytest.mark.parametrize("what", IRREGULAR)
def test_the_cache(what: str) -> None:
    photos("in")
    for suffix in ("json", "npy"):
        folder(Path("in"), None, Scaling(16), Path("cache"))
        (cached,) = Path("cache").glob(f"*.{suffix}")
        cached.unlink()
        IRREGULAR[what](cached)
        assert folder_cache.load(cached.with_suffix(""), 1000, streamed=False) is None
        (cached.rmdir if what == "folder" else cached.unlink)()


@pytest.mark.parametrize("what", FILES)
def test_answers(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    photos("truth"), photos("answers")
    Path("answers/1.png").unlink()
    IRREGULAR[what](Path("answers/1.png"))
    with alone_on_the_cpu(monkeypatch), pytest.raises(UserError, match=r"1: (not a regular file|unreadable)"):
        carry_out(["--answers", "answers", "--truth", "truth"])


@pytest.mark.parametrize("what", IRREGULAR)
def test_pretrained_weights(what: str) -> None:
    IRREGULAR[what](Path("weights"))
    with pytest.raises((UserError, RunError), match=r"^model\.weights: [^\n]*weights[^\n]*$"):
        create_pretrained(Pretrained("resnet18", "weights"))


@pytest.mark.parametrize("what", IRREGULAR)
@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_snapshots(name: str, what: str) -> None:
    path = snapshot_in(Path("network")) / name
    path.unlink()
    IRREGULAR[what](path)
    for read in (snapshot.read, snapshot.read_weights, colordist.load):
        with pytest.raises((UserError, RunError)) as refusal:
            read(Path("network"))
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("what", IRREGULAR)
@pytest.mark.parametrize("name", ["state.pt", "manifest.json"])
def test_checkpoints(name: str, what: str) -> None:
    path = Path("checkpoints/step-000001")
    path.mkdir(parents=True)
    IRREGULAR[what](path / name)
    # A file whose links lead in a circle can't be read; anything else is damage. Neither is read.
    with pytest.raises((UserError, RunError)):
        checkpoint.newest(Path("checkpoints"), "run")
    with pytest.raises((UserError, RunError)):
        checkpoint.load(path)


@pytest.mark.parametrize("what", [*FILES, "folder"])
def test_outputs_are_not_replaced(what: str) -> None:
    photos("in", 1)
    Path("out").mkdir()
    IRREGULAR[what](Path("out/0.png"))
    (job,) = find_photos(["in"], Path("out"), ".png")
    told = obstacles([job], overwrite=True)
    assert what == "dangling link" or told[job].startswith("out/0.png can't be overwritten (")
    assert obstacles([job], overwrite=False)[job].startswith("out/0.png exists")
    assert os.path.lexists("out/0.png")


@pytest.mark.parametrize("what", ["pipe", "socket", "endless device"])
def test_datasets(what: str) -> None:
    pytest.importorskip("datasets")
    IRREGULAR[what](photos("in") / "train.parquet")
    with pytest.raises(UserError, match=r"^in/train\.parquet is a (pipe|socket|device), not a file"):
        dataset_files.load(Location("in"))
