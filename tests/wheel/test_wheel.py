"""The wheel: complete, and at work where there is no checkout."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import colordist

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

PROGRAM = """
from importlib.metadata import version
import colordist
from PIL import Image

colordist.load("photos-small")(Image.open("photo.png")).save("by_python.png")
print(colordist.__file__, colordist.__version__, version("colordist"))
"""


def outside(*command: str | Path, cwd: Path) -> str:
    """Run a command that finds neither the checkout nor a package index. Returns its output."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PIP_NO_INDEX": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves files beside the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "colordist", source / "colordist", ignore=shutil.ignore_patterns("__pycache__"))
    build = ("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels", ".")
    outside(sys.executable, *build, cwd=source)
    (found,) = (source / "wheels").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of an environment with the wheel, which shares the packages of this one."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder)
    pip = ("-m", "pip", "--python", folder / "bin" / "python")
    outside(sys.executable, *pip, "install", "--no-deps", wheel, cwd=folder)
    # Only now: pip would find colordist among them. Python processes no .pth files there, so no editable installation.
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    (site / "shared.pth").write_text(f"{Path(str(torch.origin)).parents[1]}\n")
    return folder / "bin"


def test_it_contains_the_whole_package(wheel: Path) -> None:
    there = {path for path in (ROOT / "colordist").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("colordist/")}
        licenses = {Path(name).name for name in archive.namelist() if ".dist-info/licenses/" in name}
    assert packed == {str(path.relative_to(ROOT)) for path in there}
    assert licenses == {"LICENSE", "NOTICE"}


def test_it_colours_an_image(programs: Path, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((60, 40)).save(tmp_path / "photo.png")
    assert "colorize" in outside(programs / "colordist", "--help", cwd=tmp_path)
    said = outside(programs / "colordist", "colorize", "photos-small", "photo.png", "-o", "coloured", cwd=tmp_path)
    assert said == "coloured 1 of 1 photos: coloured\n"
    file, *versions = outside(programs / "python", "-c", PROGRAM, cwd=tmp_path).split()
    assert Path(file).is_relative_to(programs.parent)
    assert versions == [colordist.__version__] * 2
    by_command, by_python = (
        np.asarray(Image.open(tmp_path / name)) for name in ("coloured/photo.png", "by_python.png")
    )
    assert by_command.shape == (40, 60, 3)
    assert np.array_equal(by_command, by_python)
