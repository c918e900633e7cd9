"""Files that aren't colordist's, planted everywhere: after any verb each is what and where it was."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from forking import call, require_civil
from hypothesis import given
from hypothesis import strategies as st
from material import AUTOENCODER, TINY, cases, fresh

OWN_NAMES = (
    *("metrics.jsonl", "metrics.json", "images", "pretrained", "init_from", "wandb.json", "report.html"),
    *("samples/step-000000.png", "checkpoints/step-000002/state.pt", "checkpoints/step-000002/manifest.json"),
    *("checkpoints/step-000008/state.pt", "snapshots/step-000004/model.json", "snapshots/latest/notes.txt"),
    *("snapshots/step-000004/model.safetensors", "evaluation-synthetic.json"),
)
"""Names that colordist uses in a run's folder. In a folder without a config.yaml they are somebody else's."""
DEAD = 2**22 + 1  # no process has this number
ANYWHERE = (
    *("notes.txt", "photo.png", "model.pt", "a/b.txt", "step-000001", "step-000001.txt", "step-000001/notes.txt"),
    *("step-000009.tmp-1/notes.txt", "step-000002.damaged-0/notes.txt", "latest.txt", "finished.txt", "report.html"),
    f".step-000004.colordist-{socket.gethostname()[:40]}-{DEAD}-new/notes.txt",
    *("config.yml", "lock.txt", "000009.txt", "model.json.bak"),
)
FOLDERS = ("", "checkpoints", "checkpoints/step-000002", "snapshots", "snapshots/step-000004", "samples", "lock")
CONTINUE = ["train", *TINY, *AUTOENCODER, "--run.dir", "run"]
VERBS = (
    [*CONTINUE, "--train.steps", "6"],
    [*CONTINUE, "--train.steps", "4"],
    [*CONTINUE, "--train.steps", "6", "--checkpoint.keep", "1"],
    [*CONTINUE, "--train.steps", "6", "--seed", "1"],
    [*CONTINUE, "--train.steps", "6", "--resume", "never"],
    ["evaluate", "run"],
    ["evaluate", "run", "-o", "out"],
    ["report", "run"],
    ["report", "run", "-o", "out.html"],
    ["report", "run", "-o", "out.png"],
    ["report", "--list", "."],
    ["colorize", "run", "photo.png", "-o", "out"],
    ["colorize", "run", "run", "-o", "run/samples"],
    ["export", "run", "--onnx", "out.onnx"],
    ["push", "run", "a/b", "--dry_run", "--license", "mit"],
)
OUTPUTS = ("out", "out.html", "out.png", "out.onnx", "out/photo.png", "run/evaluation-synthetic.json")


def planted(root: Path, name: str, number: int) -> dict[Path, bytes]:
    """Plant a file, with the folders above it, unless something is in its place."""
    file = root / name
    if os.path.lexists(file) or any(each.exists() and not each.is_dir() for each in file.parents):
        return {}
    file.parent.mkdir(parents=True, exist_ok=True)
    content = b"not of colordist: %d\n" % number
    file.write_bytes(content)
    return {file: content}


@pytest.mark.fuzz
@cases(80)
@given(data=st.data())
def test_foreign_files_stay(data: Any, trained: Path, photo: Path, place: Path) -> None:  # noqa: ANN401
    is_run = data.draw(st.sampled_from([True, True, False]), "whether there is a run")
    fresh(place, photo, *([trained] if is_run else []))
    inside = st.tuples(st.sampled_from(FOLDERS), st.sampled_from(ANYWHERE)).map(lambda pair: f"run/{pair[0]}/{pair[1]}")
    names = st.one_of(inside, st.sampled_from(OUTPUTS), st.sampled_from(ANYWHERE))
    if not is_run:
        names = st.one_of(names, st.sampled_from(OWN_NAMES).map("run/{}".format))
    chosen = data.draw(st.lists(names, min_size=1, max_size=4, unique=True))
    # Of a run, a report and an evaluation by these names are its own.
    own = {"run/evaluation-synthetic.json", "run//report.html"} if is_run else set()
    files: dict[Path, bytes] = {}
    for number, name in enumerate(chosen):
        if name not in own:
            files |= planted(place, name, number)
    require_civil(call(data.draw(st.sampled_from(VERBS)), place))
    for file, content in files.items():
        assert file.is_file(), f"{file} is gone"
        assert file.read_bytes() == content, f"{file} was changed"


@pytest.mark.fuzz
@cases(40)
@given(data=st.data())
def test_links_to_foreign_files_and_folders_are_not_followed(
    data: Any,  # noqa: ANN401
    trained: Path,
    photo: Path,
    place: Path,
) -> None:
    fresh(place, photo, trained)
    elsewhere = place / "elsewhere"
    (elsewhere / "folder").mkdir(parents=True)
    kept = {elsewhere / name: name.encode() for name in ("file", "folder/state.pt", "folder/model.json", "folder/a")}
    for file, content in kept.items():
        file.write_bytes(content)
    run = place / "run"
    links = (
        *("metrics.jsonl", "finished", "stopped", "report.html", "stop", "images", "samples", "checkpoints", "lock"),
        *("checkpoints/step-000006", "checkpoints/step-000002", "snapshots/step-000004", "snapshots/latest", "wandb"),
    )
    for name in data.draw(st.lists(st.sampled_from(links), min_size=1, max_size=2, unique=True)):
        if (run / name).is_dir() and not (run / name).is_symlink():
            (run / name).rename(place / name.replace("/", "-"))
        if (run / name).parent.is_dir():
            (run / name).unlink(missing_ok=True)
            (run / name).symlink_to(data.draw(st.sampled_from([elsewhere / "file", elsewhere / "folder", run / name])))
    require_civil(call(data.draw(st.sampled_from(VERBS)), place))
    for file, content in kept.items():
        assert file.is_file(), f"{file} is gone"
        assert file.read_bytes() == content, f"{file} was changed"
