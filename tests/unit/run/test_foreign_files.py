"""What isn't colordist's survives every verb: what lies in an output place or beside it, or has the name of one."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import alone_on_the_cpu, tiny
from PIL import Image
from runs import run

from colordist.cli.parser import Command
from colordist.colorize import colorize
from colordist.errors import UserError
from colordist.evaluate import evaluate
from colordist.evaluate import parse as parse_evaluate
from colordist.export import export
from colordist.report import report
from colordist.run.folder import RunFolder
from colordist.train import train


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with alone_on_the_cpu(monkeypatch):
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch, alone_on_the_cpu(patch):
        return run(tmp_path_factory.mktemp("runs") / "trained", train__steps=3, evaluate__every=3).path


def plant(place: Path) -> dict[Path, str]:
    """Files of somebody else beside a place, named as a program might name what it writes for a while."""
    place.parent.mkdir(parents=True, exist_ok=True)
    names = (f"{place.name}.tmp", f"{place.name}.new", f".{place.name}.tmp", f"{place.name}.old", "notes.txt")
    planted = {place.with_name(name): f"mine: {name}" for name in names}
    folder = place.with_name(f"{place.name}.tmp-1")
    folder.mkdir()
    planted[folder / "notes.txt"] = "mine, too"
    for file, text in planted.items():
        file.write_text(text)
    return planted


def assert_untouched(planted: dict[Path, str]) -> None:
    assert {file: file.read_text() for file in planted} == planted


def colorize_all(photos: Path, trained: Path, out: Path, *, overwrite: bool) -> None:
    settings = {
        "batch_size": 2,
        "variants": None,
        "resolution": None,
        "side_by_side": False,
        "format": "png",
        "upsample": "guided",
        "solver_steps": None,
        "hints": None,
        "saturation": 1.0,
        "seed": 0,
    }
    colorize(
        argparse.Namespace(model=trained, photos=[str(photos)], output=out, overwrite=overwrite, modules=[], **settings)
    )


def verb(name: str, trained: Path, out: Path) -> None:
    """Run a verb that writes to a place."""
    match name:
        case "train":
            train(Command(tiny(run__dir=str(out), train__steps=3), None, False))
        case "evaluate":
            evaluate(*parse_evaluate([str(trained), "-o", str(out)]))
        case "report":
            report([RunFolder(trained)], out)
        case "export":
            pytest.importorskip("onnxscript")
            export(trained, out)
        case "colorize":
            photos = out.parent / "photos"
            photos.mkdir(exist_ok=True)
            Image.new("RGB", (16, 16), "red").save(photos / "a.png")
            colorize_all(photos, trained, out, overwrite=True)


FILES = {"evaluate": "out.json", "report": "out.html", "export": "out.onnx"}
FOLDERS = ("train", "colorize")


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_what_lies_beside_an_output_survives(name: str, trained: Path, tmp_path: Path) -> None:
    """And what a verb has written it replaces, or continues, when it is run again."""
    out = tmp_path / "place" / FILES.get(name, "out")
    planted = plant(out)
    for _ in range(2):
        verb(name, trained, out)
        assert_untouched(planted)
    left = {path.name for path in out.parent.iterdir()} - {path.relative_to(out.parent).parts[0] for path in planted}
    assert left - {"images", "photos", "out.tmp-1"} == {out.name}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_none_of_ours_is_not_replaced(name: str, trained: Path, tmp_path: Path) -> None:
    for kind in (".png", ".html") if name == "report" else (Path(FILES[name]).suffix,):
        out = tmp_path / f"out{kind}"
        out.write_text("{}")
        with pytest.raises(UserError, match=r"is there already, and is no .* of colordist's: name another file$"):
            verb(name, trained, out)
        assert out.read_text() == "{}"
        out.unlink()
        out.mkdir()
        with pytest.raises(UserError, match="is there already"):
            verb(name, trained, out)


def test_a_picture_of_ours_is_replaced(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    report([RunFolder(trained)], out)
    drawn, inode = out.read_bytes(), out.stat().st_ino
    report([RunFolder(trained)], out)
    assert out.read_bytes() == drawn
    assert out.stat().st_ino != inode


@pytest.mark.parametrize(
    "part", ["metrics.jsonl", "images", "init_from", "wandb.json", "mlflow.json", "snapshots/a", "checkpoints/a"]
)
def test_a_run_does_not_begin_over_what_lies_in_its_folder(part: str, trained: Path, tmp_path: Path) -> None:
    (file := tmp_path / "out" / part).parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(
        UserError, match=rf"out holds {Path(part).parts[0]} but no config\.yaml: name another --run.dir$"
    ):
        verb("train", trained, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {Path(part).parts[0]}
    assert file.read_text() == "mine"


def test_foreign_files_inside_a_run_survive_its_continuation(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", train__steps=3, checkpoint__keep=1)
    places = ("", "samples", "snapshots", "checkpoints", "checkpoints/step-000003", "lock", "checkpoints/step-000001")
    planted = {folder.path / place / "notes.txt": "mine" for place in places}
    planted |= {folder.path / name: "mine" for name in ("metrics.jsonl.tmp", "config.yaml.tmp", "snapshots/latest.tmp")}
    for file, text in planted.items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    run(folder.path, train__steps=6, checkpoint__keep=1)
    assert_untouched(planted)


def test_a_snapshot_with_something_else_that_would_be_written_again_is_told_before_anything_is(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", train__steps=3, evaluate__every=1)
    (folder.path / "finished").unlink()
    (folder.snapshots / "step-000003" / "notes.txt").write_text("mine")
    before = {
        path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file() and path.parent.name != "lock"
    }
    with pytest.raises(UserError, match=r"step-000003 is there already.* holds other files"):
        run(folder.path, train__steps=3, evaluate__every=1)
    assert before == {path: path.read_bytes() for path in before}


def test_a_start_that_a_mistake_ended_binds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UserError, match="there is no key"):
        run(tmp_path / "run", track__wandb="online", data__train_images=8)
    assert not (tmp_path / "run").exists()
    assert run(tmp_path / "run", train__steps=3).is_finished(3)
