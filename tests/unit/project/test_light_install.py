"""What the core dependencies are enough for, in a process that can't import the packages of any extra."""

import json
import os
import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from helpers import ROOT
from PIL import Image

from colordist.config import TrackConfig
from colordist.engine.select import select_strategy
from colordist.errors import UserError
from colordist.tracking import require_tracking

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = {
    name: packages for name, packages in PROJECT["optional-dependencies"].items() if name not in ("all", "dev")
}

PROGRAM = """
import contextlib, io, json, sys
from importlib.machinery import PathFinder

class Core(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else super().find_spec(name, path, target)

blocked, commands = json.loads(sys.argv[1])
sys.meta_path[:] = [Core if finder is PathFinder else finder for finder in sys.meta_path]
known = set(sys.modules)
import colordist
found = {"import": sorted({name.partition(".")[0] for name in set(sys.modules) - known} - sys.stdlib_module_names)}

from colordist import cli
for name, arguments in commands.items():
    sys.argv, out, err = ["colordist", *arguments], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code
    found[name] = [code, out.getvalue(), err.getvalue()]
print(json.dumps(found))
"""


def import_names(requirements: list[str]) -> set[str]:
    """Names under which packages are imported: those of the extras differ from pip's by hyphens alone."""
    names = {re.split(r"[\[<>=!; ]", each)[0].replace("-", "_") for each in requirements}
    return names - {"colordist"}


OPTIONAL = set().union(*map(import_names, EXTRAS.values())) | {"scipy", "skimage", "pytest", "hypothesis"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Exit code, output and errors of each command in one process; modules that ``import colordist`` imports."""
    folder = tmp_path_factory.mktemp("light")
    Image.linear_gradient("L").resize((40, 32)).save(folder / "photo.png")
    small = ["--task.name", "autoencoder", "--model.name", "autoencoder", "--model.depth", "2"]
    run = ["train", *small, "--run.dir", "run"]
    page, photo, scenes = "page.html", "photo.png", ["--data.source", "synthetic", "--data.image_size", "32"]
    commands: dict[str, list[str]] = {
        "colorize": ["colorize", "photos-small", photo, "-o", "coloured"],
        "push": ["push", "photos-small", "me/photos", "--license", "apache-2.0", "--dry_run"],
        "dry run": [*run, "--dry_run"],
        "train": run,
        "evaluate": ["evaluate", "photos-small", *scenes],
        "report": ["report", "run"],
        "answers": ["evaluate", "--answers", "coloured", "--truth", "coloured", "-o", page],
        "export": ["export", "photos-small", "--onnx", "network.onnx"],
        "doctor": ["doctor", *run[1:]],
        "demo": ["demo", "photos-small"],
        "quick doctor": ["doctor", "--quick", *run[1:]],
        "list": ["report", "--list", "."],
    }
    arguments = json.dumps([sorted(OPTIONAL), commands])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers | {"folder": sorted(path.name for path in folder.rglob("*"))}


def test_the_extras_were_found() -> None:
    extras = {"train", "deepspeed", "wandb", "report", "onnx", "metrics", "datasets", "tensorboard", "demo", "league"}
    assert extras == EXTRAS.keys()
    assert {"accelerate", "psutil", "deepspeed", "wandb", "wandb_workspaces", "bokeh", "torch_fidelity"} <= OPTIONAL
    assert PROJECT["optional-dependencies"]["all"] == [
        f"colordist[{','.join(each for each in EXTRAS if each not in ('demo', 'league'))}]"
    ]
    assert "colordist[all]" in PROJECT["optional-dependencies"]["dev"]


def test_importing_colordist_imports_nothing_else(found: dict[str, Any]) -> None:
    assert found["import"] == ["colordist"]


def test_the_core_colourizes(found: dict[str, Any]) -> None:
    code, output, error = found["colorize"]
    assert (code, error) == (0, "")
    assert output == "coloured 1 of 1 photos: coloured\n"
    assert found["folder"].count("photo.png") == 2


def test_the_core_prepares_an_upload(found: dict[str, Any]) -> None:
    code, output, error = found["push"]
    assert (code, error) == (0, "")
    assert "license: apache-2.0" in output


def test_the_core_does_a_dry_run(found: dict[str, Any]) -> None:
    code, output, error = found["dry run"]
    assert (code, error) == (0, "")
    assert re.search(r"^memory per process \(cpu, fp32\): about \d+ MiB", output, re.M)


def test_the_core_checks_machines_and_lists_runs(found: dict[str, Any]) -> None:
    assert found["quick doctor"][::2] == [0, ""]
    assert found["list"] == [0, "no runs under .\n", ""]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("train", "this command needs the package accelerate: pip install 'colordist[train]'"),
        ("evaluate", "this command needs the package accelerate: pip install 'colordist[train]'"),
        ("report", "a report needs the package bokeh: pip install 'colordist[report]'"),
        ("answers", "a page of answers needs the package bokeh: pip install 'colordist[report]'"),
        ("export", "export needs the package onnxruntime: pip install 'colordist[onnx]'"),
        ("demo", "demo needs the package gradio: pip install 'colordist[demo]'"),
        ("doctor", "this command needs the package accelerate: pip install 'colordist[train]'"),
    ],
)
def test_a_missing_extra_is_one_line(command: str, line: str, found: dict[str, Any]) -> None:
    code, _, error = found[command]
    assert (code, error) == (2, f"colordist: {line}\n")
    assert not {"run", "page.html", "network.onnx"} & {*found["folder"]}


def test_tracking_without_wandb_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # how Python notes what isn't there
    require_tracking(TrackConfig(wandb="off"))
    with pytest.raises(UserError, match=r"track\.wandb\) needs the package wandb: pip install 'colordist\[wandb\]'$"):
        require_tracking(TrackConfig(wandb="auto"))


def test_a_launcher_that_asks_for_deepspeed_without_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colordist.engine.deepspeed", raising=False)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UserError, match=r"which needs the package deepspeed: pip install 'colordist\[deepspeed\]'$"):
        select_strategy("generator", None, None)  # type: ignore[arg-type]  # it doesn't get that far
