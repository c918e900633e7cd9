"""Shards: what is packed is what the folder has, wherever it lies; and what is not right is told in one line."""

import functools
import http.server
import io
import json
import logging
import multiprocessing
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers import alone_on_the_cpu, tiny
from packed import SIDE, images, packed
from PIL import Image

from colordist.config import RunError, UserError
from colordist.data.decode import Scaling
from colordist.data.pack import main, pack
from colordist.data.source import Source, StreamedSplit, part_of_training
from colordist.data.sources.folder import FolderSettings, folder
from colordist.data.sources.shard_index import NAME, Index
from colordist.data.sources.shards import ShardSettings, ShardSplit, shards
from colordist.data.streaming import StreamingLoader
from colordist.engine.runtime import Engine
from colordist.training.build import build_loader
from colordist.training.build_task import build_task


def opened(root: Path | str, cache: Path | None = None, classes: tuple[str, ...] | None = None) -> Source:
    return shards(str(root), classes, Scaling(SIDE), cache or Path("no cache"))


def training(source: Source) -> ShardSplit:
    assert isinstance(source.train, ShardSplit)
    return source.train


def mistake(root: Path | str, cache: Path | None = None, classes: tuple[str, ...] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        opened(root, cache, classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(root: Path, **changes: object) -> None:
    """Write other values into the index's first shard."""
    index = json.loads((root / NAME).read_text())
    index["shards"][0] |= changes
    (root / NAME).write_text(json.dumps(index))


# --- packing


def test_the_shards_have_the_folders_images(tmp_path: Path) -> None:
    root, index = packed(tmp_path)
    source, expected = opened(root), folder(tmp_path / "images", None, Scaling(SIDE), None)
    assert len(index.shards) > 3
    assert isinstance(source.train, StreamedSplit)
    for found, wanted in (source.train, expected.train), (source.test, expected.test):
        pixels = [[split[i].tobytes() for i in range(len(split))] for split in (found, wanted)]
        assert sorted(pixels[0]) == sorted(pixels[1])
        assert len(set(pixels[0])) == len(wanted)
    assert [image.tobytes() for image in map(source.test.__getitem__, range(7))] == [
        image.tobytes() for image in map(expected.test.__getitem__, range(7))
    ]


def test_the_files_are_tar_files_of_the_original_bytes(tmp_path: Path) -> None:
    root, index = packed(tmp_path)
    others = set()
    for shard in index.shards:
        content = (root / shard.name).read_bytes()
        assert len(content) == shard.bytes
        with tarfile.open(root / shard.name) as tar:
            assert tar.getnames() == shard.keys
            for key, offset, size in zip(shard.keys, shard.offsets, shard.sizes, strict=True):
                member = tar.extractfile(key)
                assert member is not None
                assert content[offset : offset + size] == member.read()
                original = tmp_path / "images" / shard.split / key
                if original.exists():
                    assert original.read_bytes() == content[offset : offset + size]
                else:
                    others.add(key)
    assert others == {"dog/006.png"}  # a BMP
    assert Index.read((root / NAME).read_bytes()) == index


def test_a_shard_is_a_sample_of_all(tmp_path: Path) -> None:
    _, index = packed(tmp_path)
    names = [key for shard in index.shards if shard.split == "train" for key in shard.keys]
    assert names != sorted(names)
    again = pack(tmp_path / "images", tmp_path / "again", 8000)
    assert again == index  # bytes and all


def test_names_that_webdataset_would_cut_or_mix_up(tmp_path: Path) -> None:
    for part, name in ("train", "a.b.jpg"), ("train", "a_b.png"), ("train", "a.b.bmp"), ("test", "c.jpg"):
        (tmp_path / "in" / part).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "in" / part / name)
    index = pack(tmp_path / "in", tmp_path / "out")
    keys = [key for shard in index.shards for key in shard.keys]
    assert sorted(key.split(".")[0] for key in keys) == ["a_b", "a_b-2", "a_b-3", "c"]
    assert all(key.count(".") == 1 for key in keys)
    assert index.classes == []


def test_packing_refuses_and_reports_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("colordist"), "handlers", [])  # other tests' verbs leave theirs
    root, out = images(tmp_path / "images"), tmp_path / "out"
    (root / "train" / "cat" / "broken.jpg").write_bytes(b"no image")
    main([str(root), "-o", str(out)])
    assert capsys.readouterr().out == f"{out}: 26 train images in 1 shards\n{out}: 7 test images in 1 shards\n"
    for arguments, told in (
        ([str(root), "-o", str(out)], "exists already"),
        ([str(tmp_path / "nowhere"), "-o", str(tmp_path / "other")], "is not a folder"),
        ([str(root), "-o", str(tmp_path / "other"), "--shard_mb", "0"], "try --shard_mb 64"),
        ([str(root), "-o", str(root / "train" / "dog" / "000.jpg" / "out")], "can't be written"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        line = capsys.readouterr().err
        assert told in line
        assert line.count("\n") == 1
    assert not (tmp_path / "other").exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_what_goes_wrong_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Index) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Index, "text", full)
    with pytest.raises(UserError, match="No space left"):
        packed(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


# --- opening


def test_classes_and_fractions(tmp_path: Path) -> None:
    root, _ = packed(tmp_path)
    source, dogs = opened(root), opened(root, classes=("dog",))
    assert (len(dogs.train), len(dogs.test)) == (9, 3)
    expected = folder(tmp_path / "images", ("dog",), Scaling(SIDE), None)
    for found, wanted in (dogs.train, expected.train), (dogs.test, expected.test):
        pixels = [sorted(split[i].tobytes() for i in range(len(split))) for split in (found, wanted)]
        assert pixels[0] == pixels[1]
    assert sum(training(dogs).shard_sizes()) == 9
    assert "'dog'" in mistake(root, classes=("dgo",))
    half = part_of_training(source, 0.5, 3)
    assert len(half.train) == 13
    assert half.train[4].tobytes() in {source.train[i].tobytes() for i in range(26)}
    assert sum(training(half).shard_sizes()) == 13
    assert len(source.train) == sum(training(source).shard_sizes()) == 26


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "../secret.tar"}, "'../secret.tar' is no name of a shard"),
        ({"name": "pipe:touch x.tar"}, "is no name of a shard"),
        ({"sha256": "../../x"}, "has no SHA-256"),
        ({"bytes": 20}, "lies outside"),
        ({"offsets": [-5]}, "no natural number"),
        ({"sizes": [1]}, "differ in length"),
        ({"classes": []}, "no class"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_damaged_index_is_one_line(changes: dict[str, object], told: str, tmp_path: Path) -> None:
    root, _ = packed(tmp_path)
    change(root, **changes)
    assert told in mistake(root)


def test_what_is_missing_is_told_at_the_start(tmp_path: Path) -> None:
    root, index = packed(tmp_path)
    assert "index.json can't be read (No such file or directory)" in mistake(tmp_path / "nowhere")
    shard = root / index.shards[1].name
    content = shard.read_bytes()
    shard.write_bytes(content[:-512])
    assert f"{shard} has {len(content) - 512} bytes, but index.json says {len(content)}" in mistake(root)
    shard.unlink()
    assert f"{shard} can't be read (No such file or directory)" in mistake(root)
    (root / NAME).write_text('{"format": 2}')
    assert "format 2, but this version reads 1" in mistake(root)
    (root / NAME).write_text("[" * 100_000)
    assert "is damaged" in mistake(root)


@pytest.mark.parametrize("root", ["pipe:cat /etc/passwd", "pipe://cat", "file:///tmp", "ftp://host/x", "s3://bucket"])
def test_nothing_but_folders_and_http(root: str, tmp_path: Path) -> None:
    """No config can run a command: there is no other way to a shard than to open a file, or to ask a web server."""
    if "://" in root:
        with pytest.raises(UserError, match="come from a folder, http or https"):
            ShardSettings(source="shards", root=root)
    assert "can't be read" in mistake(root)


def test_a_shard_cut_off_while_it_is_read(tmp_path: Path) -> None:
    root, index = packed(tmp_path)
    source = opened(root)
    (root / index.shards[0].name).write_bytes(b"")
    with pytest.raises(RunError, match="is truncated"):
        source.train[0]


@pytest.mark.parametrize(("chosen", "expected"), [({}, 8), ({"shuffle_shards": 3}, 3)])
def test_the_sampler_shuffles_as_many_shards_as_the_source_says(
    chosen: dict[str, int], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = packed(tmp_path)
    settings = {f"data__{key}": value for key, value in chosen.items()}
    config = tiny(data__source="shards", data__root=str(root), data__image_size=SIDE, data__workers=0, **settings)
    with alone_on_the_cpu(monkeypatch):
        engine = Engine("fp32")
        loader = build_loader(config, build_task(config), opened(root), engine)
        engine.close()
    assert isinstance(loader, StreamingLoader)
    assert loader._share.sampler.shuffle_shards == expected
    assert FolderSettings(source="folder").shuffle_shards == 1
    with pytest.raises(UserError, match=r"unknown key data\.shuffle_shards"):
        tiny(data__source="folder", data__shuffle_shards=3)


# --- damaged samples


def spoil(root: Path, index: Index, places: int) -> None:
    """Overwrite the first samples of the first shard."""
    shard = index.shards[0]
    content = bytearray((root / shard.name).read_bytes())
    for offset, size in list(zip(shard.offsets, shard.sizes, strict=True))[:places]:
        content[offset : offset + size] = bytes(size)
    (root / shard.name).write_bytes(content)


def test_grey_stands_for_what_can_not_be_decoded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root, index = packed(tmp_path, shard_bytes=20_000)
    before = opened(root)
    whole = [before.train[i] for i in range(26)]
    spoil(root, index, 12)
    source = opened(root)
    found = [source.train[i] for _ in range(2) for i in range(26)][:26]
    assert all((image == 128).all() and image.shape == (SIDE, SIDE, 3) for image in found[:12])
    assert all(np.array_equal(one, other) for one, other in zip(found[12:], whole[12:], strict=True))
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 6  # each but once
    assert told[0] == f"{index.shards[0].keys[0]} in train-000000.tar can't be decoded, and is replaced by grey"
    assert told[4].endswith("further ones are only counted")
    assert told[5] == "10 images can't be decoded so far"
    assert len(training(source).damaged) == 12


# --- over the net


@dataclass
class Server:
    """Serves a folder, and remembers what it was asked for."""

    url: str
    asked: list[str]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.rpartition("/")[2])
            if self.path.startswith("/moved/"):
                self.send_response(302)
                self.send_header("Location", f"ftp://127.0.0.1{self.path}")
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path))
    ) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield Server(f"http://127.0.0.1:{serving.server_address[1]}", asked)
        serving.shutdown()


def test_a_remote_shard_is_fetched_once_when_it_is_wanted(server: Server, tmp_path: Path) -> None:
    root, index = packed(tmp_path)
    local, cache = opened(root), tmp_path / "cache"
    remote = opened(f"{server.url}/packed", cache)
    assert training(remote).digest == training(local).digest
    assert server.asked == [NAME]
    assert np.array_equal(remote.train[0], local.train[0])
    assert server.asked == [NAME, index.shards[0].name]
    for _ in range(2):
        for source in (remote, opened(f"{server.url}/packed/", cache)):
            assert all(np.array_equal(source.train[i], local.train[i]) for i in range(26))
            assert all(np.array_equal(source.test[i], local.test[i]) for i in range(7))
    assert sorted(server.asked) == sorted([NAME, NAME, NAME, *(shard.name for shard in index.shards)])
    assert {path.name for path in cache.glob("*.tar")} == {f"{shard.sha256}.tar" for shard in index.shards}
    assert not list(cache.glob("*.tmp"))


def read_all(url: str, cache: Path) -> int:
    source = opened(url, cache)
    return sum(int(source.train[i].sum()) for i in range(26))


def test_several_processes_fetch_a_shard_once(server: Server, tmp_path: Path) -> None:
    root, index = packed(tmp_path)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.starmap(read_all, [(f"{server.url}/packed", tmp_path / "cache")] * 4)
        pool.close()  # and join: to end them by a signal hangs where one of them has just let go of the queue's lock
        pool.join()
    assert set(found) == {read_all(str(root), tmp_path)}
    assert sorted(set(server.asked) - {NAME}) == sorted(name for name in server.asked if name != NAME)
    assert len(set(server.asked)) == 1 + sum(shard.split == "train" for shard in index.shards)


def test_another_shard_than_the_index_says_is_not_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    root, index = packed(tmp_path)
    spoil(root, index, 1)
    source = opened(f"{server.url}/packed", tmp_path / "cache")
    with pytest.raises(RunError, match=r"doesn't have the SHA-256 in.*the same command continues") as caught:
        source.train[0]
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]
    (root / index.shards[0].name).unlink()
    with pytest.raises(RunError, match="404"):
        source.train[0]


def test_an_unreachable_index_is_one_line(server: Server, tmp_path: Path) -> None:
    assert "404" in mistake(f"{server.url}/nowhere", tmp_path)
    assert "can't be read" in mistake("http://127.0.0.1:9/x", tmp_path)
    assert "unknown url type: ftp" in mistake(f"{server.url}/moved", tmp_path)


def test_png_of_odd_formats_is_what_the_folder_shows(tmp_path: Path) -> None:
    """Deep grey, transparency, a palette: decoded once more they stay the same."""
    (tmp_path / "in").mkdir()
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(deep).save(tmp_path / "in" / "a.tif")
    Image.new("RGBA", (20, 20), (200, 10, 30, 90)).save(tmp_path / "in" / "b.webp", lossless=True)
    Image.new("P", (20, 20), 7).save(tmp_path / "in" / "c.gif")
    index = pack(tmp_path / "in", tmp_path / "out")
    source = opened(tmp_path / "out")
    expected = folder(tmp_path / "in", None, Scaling(SIDE), None)
    for found, wanted in (source.train, expected.train), (source.test, expected.test):
        assert sorted(found[i].tobytes() for i in range(len(found))) == sorted(
            wanted[i].tobytes() for i in range(len(wanted))
        )
    for shard in index.shards:
        with tarfile.open(tmp_path / "out" / shard.name) as tar:
            for key in shard.keys:
                member = tar.extractfile(key)
                assert member is not None
                assert Image.open(io.BytesIO(member.read())).format == "PNG"
