"""``colordist VERB``: exit codes, the one line of an error, and surroundings that no verb can run in."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from verbs import call_main

from colordist import cli
from colordist.cli.parser import parse
from colordist.data.source import cache_folder
from colordist.errors import RunError, UserError
from colordist.train import train

# --- colordist VERB


def test_unknown_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_main(monkeypatch, "trian", "--seed", "3") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "colordist: unknown verb 'trian': did you mean train?\n"
    assert call_main(monkeypatch, "classifier", "-o", "x") == 2
    assert capsys.readouterr().err == "colordist: the command classifier has been removed: use the metric features\n"


def test_verbs_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_main(monkeypatch) == 0
    said = capsys.readouterr().out
    for verb in cli.VERBS:
        assert verb in said


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_helps(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_main(monkeypatch, verb, "--help") == 0
    assert f"colordist {verb}" in capsys.readouterr().out


def test_verb_passes_its_arguments_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_main(monkeypatch, "train", "--train.stpes", "3") == 2
    assert "did you mean train.steps?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["evaluate"], "the following arguments are required: MODEL: try --help"),
        (["evaluate", "--answers", "a", "--truth"], "argument --truth: expected one argument: try --help"),
        (["colorize", "m", "p", "-o", "out", "--no\npe"], "unrecognized arguments: --no pe: try --help"),
        (["colorize", "m", "p"], "the following arguments are required: -o/--output: try --help"),
        (["export", "m"], "the following arguments are required: --onnx: try --help"),
        (["report", "--nope"], "unrecognized arguments: --nope: try --help"),
    ],
)
def test_a_mistake_in_the_options_of_a_verb_is_one_line(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_main(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err == f"colordist: {told}\n"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UserError("this"), 2, "this"),
        (RunError("this"), 1, "this"),
        (KeyboardInterrupt(), 1, "interrupted; run the same command again"),
    ],
)
def test_run_turns_an_error_into_a_line_and_a_code(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def verb() -> None:
        raise error

    with pytest.raises(SystemExit) as left:
        cli.run(verb)
    assert left.value.code == code
    assert capsys.readouterr().err == f"colordist: {told}\n"


def test_a_line_stays_one_of_limited_length(capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> None:
        raise UserError(f"{'x' * 100_000} is no\nfile: name\x1b[31m another")

    with pytest.raises(SystemExit):
        cli.run(verb)
    told = capsys.readouterr().err
    assert told.startswith("colordist: xxx")
    assert told.endswith("xxx is no?file: name?[31m another\n")
    assert len(told) < 600


def refused(capsys: pytest.CaptureFixture[str], verb: Callable[[], object] = lambda: None) -> str:
    """Run a verb that ends with a user's mistake. Returns its line."""
    with pytest.raises(SystemExit) as left:
        cli.run(lambda: (verb(), None)[1])
    assert left.value.code == 2
    return capsys.readouterr().err


def test_an_odd_variable_is_refused_before_the_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "x")
    assert refused(capsys, lambda: 1 / 0).startswith("colordist: OMP_NUM_THREADS is 'x', but must be")


def test_without_a_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert refused(capsys).startswith("colordist: the current folder can't be read (No such file or directory): ")


def test_without_a_folder_for_temporary_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nonexistent"])
    assert "set TMPDIR" in refused(capsys)


LONG = "a" * 300


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["colorize", "", "a.png", "-o", "out"], "argument MODEL: it is empty: name a path"),
        (["colorize", "photos-small", "a.png", "-o", ""], "argument -o/--output: it is empty"),
        (["evaluate", ""], "argument MODEL: it is empty"),
        (["push", "--", "--", "--"], "the following arguments are required: user/name"),
        (["export", LONG, "--onnx", "a.onnx"], "can't be a path (File name too long): name another one"),
        (["export", "photos-small", "--onnx", LONG], "File name too long"),
        (["report", LONG], "File name too long"),
        (["report", "run", "-o", f"{LONG}.html"], "File name too long"),
        (["train", "--run.dir", LONG], "File name too long"),
        (["colorize", "photos-small", "loop", "-o", "loop/out"], "can't be a path (Too many levels of symbolic links)"),
        (["report", "loop"], "can't be a path (Too many levels of symbolic links)"),
        (["train", "--data.source", "folder", "--data.root", LONG], "File name too long"),
        (["export", "./user/name", "--onnx", "a.onnx"], "there is no folder /"),
        (["export", "a\nb", "--onnx", "a.onnx"], "there is no folder a?b"),
        (["colorize", "photos-small", "\udcff\n", "-o", "out"], "no photo found at ??"),
    ],
)
def test_a_path_that_is_none(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert call_main(monkeypatch, *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_without_a_home_folder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As a container's user without an entry in the passwd file."""

    def no_entry(number: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    told = "colordist: ~/.cache: there is no such home folder: set HOME, or write the path without ~\n"
    assert refused(capsys, cache_folder) == told
    assert "~/run" in refused(capsys, lambda: train(parse(["--run.dir", "~/run"])))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")])
def test_out_of_memory_is_a_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> None:
        raise error

    with pytest.raises(SystemExit) as left:
        cli.run(verb)
    told = capsys.readouterr().err
    assert (left.value.code, told.count("\n")) == (1, 1)
    assert "out of memory" in told
    assert "train.micro_batch_size" in told


def test_bug_keeps_its_traceback() -> None:
    def verb() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        cli.run(verb)
