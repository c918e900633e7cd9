"""The recipes in CONTRIBUTING.md, executed; and the command lines there and in README.md, parsed."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, alone_on_the_cpu
from PIL import Image

from colordist import cli, registry
from colordist.cli.parser import parse
from colordist.run import snapshot
from colordist.run.folder import RunFolder
from colordist.train import train

LAUNCHERS = ("python -m colordist.", "colordist ", "accelerate launch -m colordist.")
SIZE = 16


def blocks(page: str, language: str = "") -> list[str]:
    """The code blocks of a page in some language."""
    text = (ROOT / page).read_text()
    return [code for found, code in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M) if found == language]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Verb and arguments of each line in a code block that runs colordist."""
    lines = [line for page in ("README.md", "CONTRIBUTING.md") for block in blocks(page) for line in block.splitlines()]
    for line in lines + first_run():
        for launcher in LAUNCHERS:
            if line.startswith(launcher):
                verb, *arguments = shlex.split(line.removeprefix(launcher), comments=True)
                yield verb, arguments


def first_run() -> list[str]:
    """Lines of docs/first-run.md that train, without their launchers and with their variables in place."""
    text = "".join(blocks("docs/first-run.md"))
    for name, value in re.findall(r"^(\w+)='(.*)'$", text, re.M):
        text = text.replace(f"${name}", value)
    return re.findall(r"python -m colordist\.train .*", re.sub(r"accelerate launch .*? -m", "python -m", text))


CODE = {code.split(".py", 1)[0].removeprefix("# "): code for code in blocks("CONTRIBUTING.md", "python")}
"""The recipes' modules by name. The first line of each says what its file is called."""
COMMANDS = list(commands())
RECIPES = {arguments[1]: arguments for verb, arguments in COMMANDS if arguments[:1] == ["--import"]}
"""The command of each recipe, by the module's name."""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the recipes' modules, configs/ and some images; forgets what was registered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_registered", {})
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name, code in CODE.items():
        (tmp_path / f"{name}.py").write_text(code)
    images = np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", train=images[:8], test=images[8:])
    for split in ("train", "test"):
        (tmp_path / "photos" / split).mkdir(parents=True)
        Image.fromarray(images[0]).save(tmp_path / "photos" / split / "0.png")
    with alone_on_the_cpu(monkeypatch):
        yield tmp_path
    for name in CODE:
        sys.modules.pop(name, None)


def test_the_recipes_were_found() -> None:
    assert set(RECIPES) == set(CODE) == {"charbonnier", "dilated", "npz", "chroma"}
    assert len(COMMANDS) > 10


TINY = {
    **{"run.dir": "run", "data.image_size": SIZE, "train.steps": 2, "train.global_batch_size": 4},
    **{"train.precision": "fp32", "log.every": 1},
}
SCENES = {"data.train_images": 8, "data.test_images": 4}
REGRESSION = {"task.name": "autoencoder"}


def trained(workplace: Path, name: str, **settings: object) -> RunFolder:
    """Two steps by the command of a recipe."""
    given = [text for key, value in {**TINY, **settings}.items() for text in (f"--{key}", str(value))]
    command = parse([*RECIPES[name], *given])
    train(command)
    assert name in sys.modules
    folder = RunFolder(workplace / "run")
    assert folder.state == "finished"
    return folder


def test_a_task(workplace: Path) -> None:
    folder = trained(workplace, "charbonnier", **SCENES)
    assert folder.settings()["task"] == {"name": "charbonnier", "epsilon": 0.01}
    assert any("charbonnier" in key for record in folder.records() for key in record)
    assert type(snapshot.read(snapshot.latest(folder.path)).task).__module__ == "charbonnier"


def test_a_generator(workplace: Path) -> None:
    folder = trained(workplace, "dilated", **SCENES, **REGRESSION)
    generator = snapshot.read(snapshot.latest(folder.path)).networks["generator"]
    assert type(generator).__module__ == "dilated"
    assert folder.settings()["model"]["width"] == generator.head.in_channels == 16  # type: ignore[union-attr]


def test_a_source(workplace: Path) -> None:
    folder = trained(workplace, "npz", **REGRESSION)
    card = (snapshot.latest(folder.path) / "README.md").read_text()
    assert "learned from 8 images and was scored on 4 others" in card
    assert "a NumPy archive" in card


def test_a_metric(workplace: Path) -> None:
    folder = trained(workplace, "chroma", **SCENES, **REGRESSION)
    last = folder.records()[-1]
    assert 0 < last["score/chroma"] <= 50
    assert "Chroma difference" in (snapshot.latest(folder.path) / "README.md").read_text()


@pytest.mark.parametrize(("verb", "arguments"), COMMANDS, ids=str)
def test_commands_in_the_documents_are_understood(
    verb: str, arguments: list[str], workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if verb == "train":
        train(parse([*arguments, "--print_run_dir"]))
        assert Path(capfd.readouterr().out.strip()).parent.name == "runs"
        return
    # There are no runs to work on: the verb says so in one line, and understands its arguments.
    monkeypatch.setattr(sys, "argv", ["colordist", verb, *arguments])
    code: object = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    error = capfd.readouterr().err
    assert code in (0, 2), error
    assert "try --help" not in error
    assert "unknown" not in error
