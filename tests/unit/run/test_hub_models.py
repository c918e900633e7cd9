"""MODEL on the Hugging Face Hub: fetched once, at a commit; two files and no others; what goes wrong is one line."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from helpers import alone_on_the_cpu, random_generator, tiny, write_snapshot
from hub import TOKEN, Files, Hub, asking
from PIL import Image
from runs import run
from safetensors.torch import load_file

import colordist
from colordist import evaluate
from colordist.colorize import main as colorize
from colordist.errors import UserError
from colordist.files.hub import HubModel
from colordist.run import snapshot

SETTINGS: dict[str, Any] = {"task__name": "autoencoder", "model__name": "autoencoder"}
MODEL = Path("me/tiny")
HUB_2 = pytest.mark.skipif(
    huggingface_hub.__version__.startswith("1."),
    reason="huggingface_hub 1 neither resumes a broken download nor says that a part of a model isn't cached",
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with alone_on_the_cpu(monkeypatch):
        yield


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot with random weights."""
    model, folder = tiny(**SETTINGS).model, tmp_path_factory.mktemp("local") / "snapshot"
    write_snapshot(folder, model, random_generator(model, 0.1), step=7, image_size=32)
    return folder


def files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: Path) -> Iterator[Hub]:
    """A hub with a snapshot, among files that nobody should fetch."""
    monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts
    served = Hub()
    others = {"README.md": b"card", "weights.pkl": b"code", "sub/model.json": b"{}", "setup.py": b"code"}
    served.add("me/tiny", files(local) | others)
    with asking(served, tmp_path / "cache", monkeypatch):
        yield served


def line(model: str | Path) -> str:
    """What reading a model is refused with."""
    with pytest.raises(UserError) as refusal:
        snapshot.read(snapshot.find(Path(model)))
    assert "\n" not in str(refusal.value)
    assert TOKEN not in str(refusal.value)
    return str(refusal.value)


# --- fetching


def test_two_files_are_fetched_once(hub: Hub, local: Path) -> None:
    folder = snapshot.find(MODEL)
    assert folder.name == hub.repos["me/tiny"].branches["main"]
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    photo = Image.linear_gradient("L").resize((40, 32))
    colored = [colordist.load(each)(photo).tobytes() for each in ("me/tiny", str(local))]
    assert colored[0] == colored[1]
    assert sorted(each.rsplit("/", 1)[1] for each in hub.downloads) == ["model.json", "model.safetensors"]


def test_a_branch_a_commit_and_a_branch_that_moved(hub: Hub, local: Path) -> None:
    repo = hub.repos["me/tiny"]
    first = repo.branches["main"]
    old = repo.commit(files(local) | {"note": b""}, "feature/x")
    second = hub.add("me/tiny", files(local) | {"note": b"2"})
    assert snapshot.find(MODEL).name == second
    assert snapshot.find(Path("me/tiny@feature/x")).name == old
    assert snapshot.find(Path(f"me/tiny@{first}")).name == first
    assert snapshot.pinned(MODEL) == Path(f"me/tiny@{second}")
    assert snapshot.pinned(local) == local
    assert line("me/tiny@v9") == "the Hub's me/tiny has no revision v9: name a branch, a tag or a commit"


def test_a_folder_goes_first(hub: Hub, local: Path) -> None:
    shutil.copytree(local, "me/tiny")
    assert snapshot.find(MODEL) == MODEL
    assert line("me/other").startswith("there is no folder me/other: give the folder of a run, or of a snapshot")
    assert line("me/other").endswith("me/other@main is the Hub's")
    assert hub.requests == []
    assert snapshot.find(Path("me/tiny@main")).is_relative_to(Path("cache").absolute())


@pytest.mark.parametrize(
    "name", ["tiny", "me/tiny/x", "./../me/tiny", "/me/tiny", "~/tiny", "me/..", "me/tiny@", "a b/c"]
)
def test_what_is_no_name_on_the_hub(name: str) -> None:
    assert HubModel.parse(Path(name).as_posix()) is None


# --- mistakes and failures


@pytest.mark.parametrize(
    ("status", "message", "told"),
    [
        (401, "Invalid credentials in Authorization header", "the Hub refuses the token"),
        (403, "You need more rights", "can't be fetched (You need more rights): use a token that may, `hf auth login`"),
        (503, "", "can't be fetched now"),
        (500, f"token {TOKEN} is \x1b[31mbroken", "can't be fetched now (token *** is ?[31mbroken): "),
    ],
)
def test_an_error_of_the_hub(hub: Hub, status: int, message: str, told: str) -> None:
    hub.status["api/models"] = status, message
    assert line(MODEL).startswith("there is no folder me/tiny, and the Hub")
    assert told in line(MODEL)


def test_no_such_model_and_a_private_one(hub: Hub, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("me/secret", files(local), private=True)
    assert snapshot.find(Path("me/secret")).is_dir()
    monkeypatch.delenv("HF_TOKEN")
    shutil.rmtree("cache")
    for name in ("me/secret", "me/nothing"):
        assert line(name) == (
            f"there is no folder {name}, and the Hub shows no model {name}: correct the name, or, if it is private, "
            "give a token, `hf auth login`, or HF_TOKEN"
        )


@HUB_2
@pytest.mark.parametrize("how", ["offline", "no network"])
def test_without_a_network_the_cache_will_do(hub: Hub, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def without_network() -> None:
        if how == "offline":
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        closed = "http://127.0.0.1:1"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", closed)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", closed + "/{repo_id}/{filename}")

    folder = snapshot.find(MODEL)
    without_network()
    assert snapshot.find(MODEL) == folder
    weights = folder / "model.safetensors"
    weights.resolve().unlink()
    weights.unlink()
    expected = "as HF_HUB_OFFLINE is set and the cache lacks it" if how == "offline" else "can't be fetched now"
    assert expected in line(MODEL)
    shutil.rmtree("cache")
    assert expected in line(MODEL)


@HUB_2
def test_a_broken_connection(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cut["model.safetensors"] = 3000
    whole = len(hub.repos["me/tiny"].commits[snapshot.find(MODEL).name]["model.safetensors"])
    assert whole > 3000
    assert sum(" from " in each for each in hub.downloads) == -(-whole // 3000) - 1  # it continues where it broke
    shutil.rmtree("cache")
    hub.cut["model.safetensors"] = 0
    assert "can't be fetched now (" in line(MODEL)
    hub.cut.clear()
    hub.downloads.clear()
    snapshot.read(snapshot.find(MODEL))
    assert len(hub.downloads) == 1  # the JSON was there


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:99999", "http://[bad", "ftp://host", "nonsense"])
def test_an_address_that_is_none(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert "HF_ENDPOINT is no address like https://huggingface.co: unset it, or correct it" in line("me/tiny")


def test_another_programs_model_is_not_fetched(hub: Hub, local: Path) -> None:
    for each in ({"config.json": b"{}"}, {"model.json": b"{}"}, {"model.json": b"../../etc/passwd"}, {}):
        hub.add("me/other", each | {"model.safetensors": b"large"})
        assert "the Hub's me/other holds no snapshot of colordist" in line("me/other")
    hub.add("me/other", {"model.json": (local / "model.json").read_bytes(), "model.bin": b"large"})
    assert "the Hub's me/other holds no model.safetensors" in line("me/other")
    assert not any("safetensors" in each for each in hub.downloads)


# --- hostile repositories


def pickled() -> bytes:
    saved = io.BytesIO()
    torch.save({"weights": torch.zeros(3)}, saved)
    return saved.getvalue()


WEIGHTS = {
    "huge header": (1 << 62).to_bytes(8, "little") + b"{",
    "long header": (90 << 20).to_bytes(8, "little") + b"{}",
    "pickle": pickled(),
    "empty": b"",
    "offsets": (69).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9000000000],"data_offsets":[0,9999999]}}',
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_none(hub: Hub, local: Path, name: str) -> None:
    about = json.loads((local / "model.json").read_text()) | {"sha256": None}
    hub.add("me/tiny", {"model.json": json.dumps(about).encode(), "model.safetensors": WEIGHTS[name]})
    assert " is damaged: " in line(MODEL)


@pytest.mark.parametrize(
    "change",
    [
        {"task": []},
        {"task": "cgan"},
        {"task": {"name": ["cgan"]}},
        {"model": {"name": "autoencoder", "width": "wide"}},
        {"model": {"name": "autoencoder", "depth": 10**9}},
        {"model": {"name": "autoencoder", "width": None}},
        {"model": {"name": "autoencoder", "width": 10**6, "depth": 1}},
        {"model": {"name": "timm_unet", "encoder": "hf-hub:evil/model", "weights": "none"}},
        {"model": {"name": "timm_unet", "encoder": "local-dir:/", "weights": "/etc/passwd"}},
        {"model": {"name": "os.system"}, "requires": [1]},
        {"requires": 5, "task": {"name": "evil"}},
        {"format": 10**9},
        {"sha256": 5},
    ],
    ids=str,
)
def test_a_description_of_a_wrong_shape(hub: Hub, local: Path, change: dict[str, Any]) -> None:
    about = json.loads((local / "model.json").read_text()) | change
    hub.add("me/tiny", files(local) | {"model.json": json.dumps(about).encode()})
    line(MODEL)
    assert not any("evil" in each for each in hub.requests)


def test_nested_json(hub: Hub, local: Path) -> None:
    hub.add("me/tiny", files(local) | {"model.json": b"[" * 100_000})
    assert "holds no snapshot of colordist" in line(MODEL)


def test_names_that_leave_the_folder(hub: Hub, local: Path, tmp_path: Path) -> None:
    hostile = ("../../../../evil", "/evil", "model.json/../../../../evil", "..\\evil", "model.safetensors/x.pkl")
    hub.add("me/tiny", files(local) | dict.fromkeys(hostile, b"evil"))
    snapshot.read(snapshot.find(MODEL))
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"evil"]


# --- commands


def test_a_mistake_on_the_command_line_is_one_line(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (8, 8)).save("photo.png")
    monkeypatch.setattr("sys.argv", ["colordist", "me/nothing", "photo.png", "-o", "out"])
    with pytest.raises(SystemExit) as end:
        colorize()
    assert end.value.code == 2
    said = capsys.readouterr()
    assert re.fullmatch(r"colordist: there is no folder me/nothing, and the Hub .*\n", said.err)
    assert said.out == ""


def test_evaluate_records_the_commit(hub: Hub, tmp_path: Path) -> None:
    data = ["--data.source", "synthetic", "--data.train_images", "4", "--data.test_images", "4"]
    evaluate.carry_out(["me/tiny", *data, "-o", "scores.json"])
    found = json.loads(Path("scores.json").read_text())
    assert found["run"] == f"me/tiny@{hub.repos['me/tiny'].branches['main']}"


def test_a_run_begins_with_a_model_of_the_hub_and_stays_with_its_commit(hub: Hub, local: Path) -> None:
    settings = SETTINGS | {"train__init_from": "me/tiny", "evaluate__every": 3}
    found = run(Path("run"), **settings, train__steps=1)
    begun, expected = (load_file(each / "model.safetensors") for each in (found.snapshots / "step-000000", local))
    assert all(torch.equal(begun[name], expected[name]) for name in expected)
    named = f"me/tiny@{hub.repos['me/tiny'].branches['main']}"
    assert found.hub_model == Path(named)
    assert found.settings()["train"]["init_from"] == "me/tiny"

    model = tiny(**SETTINGS).model
    write_snapshot(Path("newer"), model, random_generator(model, 0.5), step=8)
    hub.add("me/tiny", files(Path("newer")))  # the branch moves
    shutil.rmtree("cache")
    hub.downloads.clear()
    run(Path("run"), **settings, train__steps=2)
    assert hub.downloads
    assert all(named.replace("@", "/resolve/") in each for each in hub.downloads)
    newest = found.snapshots / "latest"
    assert f"beginning with the weights of `{named}` on the Hugging Face Hub" in (newest / "README.md").read_text()
    assert json.loads((newest / "model.json").read_text())["init_from"] == named
    assert not [path for path in Path().rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
