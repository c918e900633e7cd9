"""Nothing but a regular file is opened to read, or replaced."""

import os
import stat
from pathlib import Path

import pytest
from irregular import IRREGULAR, within

from colordist.errors import UserError
from colordist.files.atomic import replace_text
from colordist.files.opening import NotRegular, TooLarge, open_regular, read_regular, require_regular

REFUSED = ("pipe", "socket", "endless device", "full device")


@pytest.mark.parametrize("what", IRREGULAR)
def test_what_is_no_file_is_not_opened(what: str, tmp_path: Path) -> None:
    IRREGULAR[what](tmp_path / "a")
    with within(), pytest.raises(NotRegular if what in REFUSED else OSError) as refusal:
        open_regular(tmp_path / "a")
    if what in REFUSED:
        assert str(refusal.value).startswith(f"{tmp_path / 'a'} is a ")
        assert str(refusal.value).endswith("not a file: name a file, or move it elsewhere")


@pytest.mark.parametrize("what", [*REFUSED, "folder", "loop of links"])
def test_what_is_no_file_is_not_replaced(what: str, tmp_path: Path) -> None:
    IRREGULAR[what](tmp_path / "a")
    before = os.lstat(tmp_path / "a")
    with within(), pytest.raises((UserError, OSError)):
        replace_text(tmp_path / "a", "text")
    assert os.lstat(tmp_path / "a").st_mode == before.st_mode
    assert [each.name for each in tmp_path.iterdir()] == ["a"]  # no draft


def test_files_and_links_to_files_are_read_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "nothing").symlink_to("nowhere")
    for name in ("a", "link"):
        assert read_regular(tmp_path / name, 7) == b"content"
        with open_regular(tmp_path / name) as opened:
            assert stat.S_ISREG(os.fstat(opened.fileno()).st_mode)
            assert not os.get_inheritable(opened.fileno())
    with pytest.raises(TooLarge):
        read_regular(tmp_path / "a", 6)
    for name in ("link", "nothing", "new"):
        require_regular(tmp_path / name)
        replace_text(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"
    assert (tmp_path / "a").read_text() == "content"
