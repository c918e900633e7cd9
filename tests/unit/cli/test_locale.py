"""Names that aren't ASCII, or not even text, where the locale is ASCII: files are UTF-8 all the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import TINY, clean_environment
from PIL import Image

pytest.importorskip("bokeh", reason="needs the extra report")
pytest.importorskip("onnxscript", reason="needs the extra onnx")

NAMES = (b"caf\xc3\xa9", b"caf\xe9")  # in UTF-8, in Latin-1
PROGRAM = """
import os, sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module="colordist")
from colordist.cli import main
for line in open(0, "rb"):
    sys.argv = ["colordist", *os.fsdecode(line.rstrip()).split("|")]
    try:
        main()
    except SystemExit as end:
        print("code", end.code)
"""


def test_train_report_colorize_and_export(tmp_path: Path) -> None:
    """In one process, which imports torch once. Opening a file in the locale's encoding is an error."""
    (tmp_path / "photos").mkdir()
    for name in map(os.fsdecode, NAMES):
        for number in range(8):
            Image.new("RGB", (32, 32), (30 * number, 90, 60)).save(tmp_path / "photos" / f"{number}{name}.png")
    common = {key: value for key, value in TINY.items() if "train_images" not in key and "test_images" not in key}
    settings = "|".join(f"--{key}={value}" for key, value in common.items())
    images = b"--data.source=folder|--data.image_size=16|--data.root=photos"
    train = b"train|%s|%s|--run.dir=r%s|--train.steps=" % (settings.encode(), images, NAMES[1])
    (tmp_path / "own.yaml").write_text("run: {dir: café}", "utf-8")
    lines = [
        b"train|--config=own.yaml",
        train + b"2",
        train + b"4",
        b"report|r%s|-o|page%s.html" % (NAMES[1], NAMES[0]),
        b"colorize|r%s|photos|-o|out" % NAMES[1],
        b"export|r%s|--onnx|n%s.onnx" % (NAMES[1], NAMES[0]),
    ]
    environment = clean_environment() | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", PROGRAM],
        input=b"\n".join(lines),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    codes = [line for line in done.stdout.splitlines() if line.startswith(b"code")]
    assert codes == [b"code 2"], done.stderr.decode(errors="replace")
    assert b"caf?/finished can't be a path in this locale (ascii): set PYTHONUTF8=1, or name another" in done.stderr
    assert len(os.listdir(os.fsencode(tmp_path / "out"))) == 16
    assert "caf" in (tmp_path / os.fsdecode(b"page" + NAMES[0] + b".html")).read_text("utf-8")
