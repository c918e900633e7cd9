"""Glob patterns."""

import os
from pathlib import Path

import pytest
from irregular import within

from colordist.files.patterns import fixed_part, matches


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.jpg", "in/sub/b.png", "in/[x].png", "in/.hidden/c.png", "in/.d.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("in/*", ["in/[x].png", "in/a.jpg", "in/sub"]),
        ("in/**", ["in/[x].png", "in/a.jpg", "in/sub", "in/sub/b.png"]),
        ("in/**/*.png", ["in/[x].png", "in/sub/b.png"]),
        ("**/b.png", ["in/sub/b.png"]),
        ("in/a**", ["in/a.jpg"]),
        ("in/*/../a.jpg", ["in/sub/../a.jpg"]),
        ("in/a.jpg", ["in/a.jpg"]),
        ("in/b.jpg", []),
        ("nowhere/*", []),
    ],
)
def test_matches(pattern: str, found: list[str]) -> None:
    assert list(map(str, matches(pattern))) == found
    assert [os.path.relpath(each) for each in matches(os.path.abspath(pattern))] == [*map(os.path.normpath, found)]


def test_links_to_the_folder_itself_end_nothing() -> None:
    for name in "xyz":
        Path("in", name).symlink_to(".")
    with within():
        assert list(map(str, matches("in/**/*.png"))) == ["in/[x].png", "in/sub/b.png"]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    for name in ("elsewhere/deep/e.png", "in/sub/f.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("in/link").symlink_to(tmp_path / "elsewhere")
    Path("in/again").symlink_to("sub")  # found below its own path
    Path("elsewhere/back").symlink_to(tmp_path / "in")
    found = list(map(str, matches("in/**/*.png")))
    assert found == ["in/[x].png", "in/link/deep/e.png", "in/sub/b.png", "in/sub/f.png"]


def test_the_fixed_part() -> None:
    assert fixed_part("a/b/c*/d") == Path("a/b")
    assert fixed_part("*.jpg") == Path()
    assert fixed_part("/a/[b]") == Path("/a")
