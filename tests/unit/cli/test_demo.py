"""Mistakes in the options of ``colordist demo``: one line, before a server starts."""

import socket
from pathlib import Path

import pytest
from photos import snapshot_in
from verbs import call_main


def assert_one_line(code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """That a user's mistake ended in one line on stderr."""
    error = capsys.readouterr().err
    assert code == 2
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--port", "65536"], "--port is 65536, but must be at most 65535"),
        (["--port", "-1"], "--port is -1, but must be at least 0"),
        (["--port", "http"], "argument --port: invalid int value: 'http'"),
        (["--queue", "0"], "--queue is 0, but must be at least 1"),
        (["--max_megabytes", "0"], "--max_megabytes is 0"),
        (["--max_files", "1001"], "--max_files is 1001, but must be at most 1000"),
        (["--upsample", "nearest"], "argument --upsample: invalid choice: 'nearest'"),
        (["--import", "no_such_module"], "no_such_module"),
    ],
)
def test_mistakes(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert_one_line(call_main(monkeypatch, "demo", str(tmp_path), *arguments), told, capsys)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--resolution", "4"], "resolution is 4, but this network needs at least 8: try 8"),
        (["--saturation", "nan"], "saturation is nan"),
        (["--host", "nowhere.invalid"], "--host 'nowhere.invalid' is unknown: try --host 127.0.0.1"),
        (["--port", "{taken}"], "is taken: try another one, or leave --port out"),
    ],
)
def test_mistakes_that_the_model_and_the_machine_tell(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("colordist.serving.server.require_gradio", lambda: None)  # none of these gets as far as Gradio
    model = snapshot_in(tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [each.format(taken=taken.getsockname()[1]) for each in arguments]
        assert_one_line(call_main(monkeypatch, "demo", str(model), *given), told, capsys)
