"""Passwords and tokens never get into files or output."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import TINY, alone_on_the_cpu
from verbs import call_main

from colordist import cli
from colordist.errors import UserError
from colordist.secrets import redacted

PLANTED = "planted7secret"
ENVIRONMENT = {
    "HF_TOKEN": f"hf_{PLANTED}",
    "WANDB_API_KEY": PLANTED * 3,
    "HTTPS_PROXY": f"http://user:{PLANTED}@127.0.0.1:1",
    "AWS_SECRET_ACCESS_KEY": PLANTED,
}


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Secrets in the environment, and in the remote of the checkout that is the current folder."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"see https://user:{PLANTED}@host/x", "see https://***@host/x"),
        (f"http:/user:{PLANTED}@host", "http:/***@host"),  # as a path
        (f"https://{PLANTED}@host and ssh://git@host", "https://***@host and ssh://git@host"),
        (f"token hf_{PLANTED}x", "token ***x"),
        (f"token hf_{'aB3' * 12}", "token ***"),
        ("/data/hf_datasets/hf_downloads_2026", "/data/hf_datasets/hf_downloads_2026"),
        ("https://me:p@ss@host", "https://***@host"),
        (PLANTED * 3, "***"),
        ("12:30@home, https://host/a@b:c, user@host:path", "12:30@home, https://host/a@b:c, user@host:path"),
    ],
)
def test_redacted(text: str, told: str) -> None:
    assert redacted(text) == told


def test_a_setting_with_a_password_is_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    address = f"https://me:{PLANTED}@host"
    for setting in (
        f"--track.notes=see {address}",
        f"--track.tags=[a, hf_{PLANTED}]",
        f"--evaluate.metrics=[{{name: features, weights: '{address}'}}]",
    ):
        assert call_main(monkeypatch, "train", "--dry_run", setting) == 2
        told = capfd.readouterr()
        assert "holds a password or a token" in told.err
        assert PLANTED not in told.out + told.err


def test_messages_and_logs(capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> None:
        logging.getLogger("colordist").warning("%s failed", ENVIRONMENT["HTTPS_PROXY"])
        raise UserError(f"{ENVIRONMENT['WANDB_API_KEY']} is no key")

    with pytest.raises(SystemExit):
        cli.run(verb)
    assert capsys.readouterr().err == "http://***@127.0.0.1:1 failed\ncolordist: *** is no key\n"


def test_no_part_of_a_key_where_a_value_is_cut(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call_main(monkeypatch, "train", f"--train.steps={'x' * 40}{PLANTED * 3}") == 2
    assert PLANTED not in capfd.readouterr().err


def test_a_traceback() -> None:
    code = f"from colordist import cli; cli.run(lambda: int('\\x1b https://me:{PLANTED}@host'))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.endswith("ValueError: invalid literal for int() with base 10: '\\x1b https://***@host'\n")
    assert PLANTED not in found.stderr


def test_no_file_and_no_output_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also none of W&B's, and of what a page or a model card tells."""
    pytest.importorskip("wandb", reason="needs the extra wandb")
    pytest.importorskip("bokeh", reason="needs the extra report")
    for command in (["init", "-q"], ["remote", "add", "origin", f"https://user:{PLANTED}@host/repository.git"]):
        subprocess.run(["git", *command], check=True)
    settings = [f"--{key}={value}" for key, value in (TINY | {"train.steps": 2, "track.wandb": "offline"}).items()]
    with alone_on_the_cpu(monkeypatch):
        assert call_main(monkeypatch, "train", "--task.name=cgan", "--run.dir=run", *settings) == 0
    assert call_main(monkeypatch, "report", "run") == 0
    assert call_main(monkeypatch, "push", "run", "user/name", "--dry_run") == 0
    assert call_main(monkeypatch, "colorize", "nobody/nothing", "*.png", "-o", "out") == 2
    told = capfd.readouterr()
    assert PLANTED not in told.out + told.err
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert any(file.suffix == ".wandb" for file in files)
    assert [file for file in files if PLANTED.encode() in file.read_bytes()] == []
