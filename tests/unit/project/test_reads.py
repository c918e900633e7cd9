"""Files are opened to read in ``files/opening.py`` alone: it never waits for the writer of a pipe."""

import ast
from collections.abc import Iterator

import pytest
from helpers import ROOT

PACKAGE = ROOT / "colordist"

READERS = {"read_bytes", "read_text", "load_file", "safe_open", "memmap", "fromfile", "loadtxt"}
"""Functions and methods of these names read a file by its path."""
PATH_FIRST = {"Image.open", "np.load", "torch.load", "json.load"}
"""These do if they get a path; what they get here is a file that was opened before, by this name or these."""
OPENED = {"opened", "content", "file"}

# By module and call: why it may.
ALLOWED = {
    ("files/opening.py", "os.open"): "the one place",
    ("files/opening.py", "os.fdopen"): "the one place",
    ("files/atomic.py", "os.open"): "fsync of what was written before, and of folders",
    ("models/pretrained.py", "load_file"): "maps a file that was opened before",
    ("data/sources/folder_cache.py", "np.memmap"): "of a file that is open already",
    ("run/provenance.py", "read_bytes"): "colordist's own modules",
    ("processes.py", "read_text"): "files of the kernel",
    ("cli/streams.py", "os.open"): "the null device",
    ("inference/onnx_file.py", "read_bytes"): "the file that was written a moment ago",
}


def calls(source: str) -> Iterator[str]:
    """Calls that open a file to read by other means than ``open_regular``."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called, name = ast.unparse(node.func), ast.unparse(node.func).rpartition(".")[2]
        first = ast.unparse(node.args[0]) if node.args else ""
        if (
            called in ("os.open", "os.fdopen")
            or name in READERS
            or (called in PATH_FIRST and first not in OPENED)
            or (name == "open" and called not in PATH_FIRST | {"os.open"} and _reads(node, is_method=called != "open"))
        ):
            yield called if name in ("open", "load", "fdopen", "memmap") else name


def _reads(call: ast.Call, *, is_method: bool) -> bool:
    """Whether a call of ``open``, or of a method of that name, may read: without a mode that only writes."""
    modes = [*call.args[0 if is_method else 1 :], *(each.value for each in call.keywords if each.arg == "mode")]
    if is_method and not modes:
        return False  # ``component.open()``; of a path, a mode says what is read
    return not (modes and isinstance(modes[0], ast.Constant) and set(str(modes[0].value)) & set("wax"))


FOUND = {
    (file.relative_to(PACKAGE).as_posix(), call)
    for file in sorted(PACKAGE.rglob("*.py"))
    for call in calls(file.read_text())
}


def test_files_are_opened_in_one_place() -> None:
    assert sorted(FOUND - ALLOWED.keys()) == []


def test_the_exceptions_are_used() -> None:
    assert sorted({each for each, why in ALLOWED.items() if why} - FOUND) == []


@pytest.mark.parametrize(
    "source",
    [
        "open(path)",
        "open(path, 'rb')",
        "open(path, mode='r+b')",
        "path.open('rb')",
        "path.read_text()",
        "(folder / 'a').read_bytes()",
        "Image.open(path)",
        "np.load(path, mmap_mode='r')",
        "torch.load(str(path))",
        "load_file(path)",
        "os.open(path, os.O_RDONLY)",
    ],
)
def test_the_checker_finds(source: str) -> None:
    assert len(list(calls(source))) == 1


@pytest.mark.parametrize(
    "source", ["open(path, 'w')", "path.open('ab')", "Image.open(opened)", "source.open()", "torch.load(opened)"]
)
def test_the_checker_lets_pass(source: str) -> None:
    assert list(calls(source)) == []
