"""Files of a run that anybody may have written: each verb that reads them says one line, soon, and changes nothing."""

import importlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import alone_on_the_cpu
from PIL import Image
from report_runs import trained
from runs import run as train_run
from safetensors.torch import load_file, save_file

import colordist
from colordist.errors import UserError
from colordist.run import checkpoint
from colordist.run.folder import RunFolder, numbered

SOON = 20.0  # seconds of CPU time

Verb = Callable[..., tuple[int, str, str]]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Verb]:
    """Run a verb in this process. Returns exit code, output and errors."""

    def call(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", [f"colordist {name}", *map(str, arguments)])
        capsys.readouterr()
        code, begin = 0, time.process_time()
        try:
            importlib.import_module(f"colordist.{name}").main()
        except SystemExit as end:
            code = int(end.code or 0)
        assert time.process_time() - begin < SOON
        said = capsys.readouterr()
        for text in (said.out, said.err):
            assert text.replace("\n", "").isprintable()
        return code, said.out, said.err

    with alone_on_the_cpu(monkeypatch):
        yield call


@pytest.fixture
def refused(verb: Verb) -> Callable[..., str]:
    """Run a verb that is to refuse, in one line: exit code 2."""

    def call(name: str, *arguments: object) -> str:
        code, out, error = verb(name, *arguments)
        assert (code, out) == (2, ""), error
        assert error.startswith("colordist: ")
        assert error.count("\n") == 1
        assert len(error) < 1000
        return error

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of a few steps."""
    return train_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the finished run, to be damaged."""
    shutil.copytree(finished.path, tmp_path / "run", symlinks=True)
    return RunFolder(tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


# --- settings

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} [{','.join(['*' + chr(97 + level)] * 9)}]\n" for level in range(9)
)
SETTINGS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "no section task"),
    "null": ("null", "no section task"),
    "nested": ("train: " + "[" * 5000, "nested"),
    "nested within the limits of Python": ("train: " + "[" * 100 + "]" * 100, "nested more than 32 deep"),
    "recursive": ("train: &a {steps: *a}", "nested more than 32 deep"),
    "an alias bomb": (BOMB, "more than 100000 values"),
    "a bomb of merges": ("a: &a {" + ",".join(f"k{i}: 1" for i in range(25000)) + "}", "more than 20000 keys"),
    "keys of numbers": ("1: 2", "the key 1 is no text"),
    "no text": (b"\xff\x00\xff", "no YAML"),
    "code": ("a: !!python/object/apply:os.system [ls]", "no YAML"),
    "a huge number": (f"seed: {'9' * 5000}", "damaged"),
    "a megabyte": ("#" * 2**20 + "#", "more than 1 MiB"),
    "terminal escapes": ('task: {name: "a\\e[31mb\\e]0;title\\a"}\n\x1b[2J', "damaged"),
}
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "text for a number": ({"train": {"steps": "many"}}, "train.steps: expected int, got str"),
    "null for a number": ({"train": {"steps": None}}, "train.steps: expected int, got null"),
    "true for a number": ({"train": {"steps": True}}, "train.steps: expected int, got bool"),
    "a negative number": ({"train": {"steps": -5}}, "train.steps is -5"),
    "a huge number": ({"train": {"steps": 10**30}}, "it has a number of 100 bits"),
    "NaN": ({"train": {"max_minutes": float("nan")}}, "train.max_minutes is nan"),
    "a list for a name": ({"task": {"name": ["cgan"]}}, "task.name is ['cgan']"),
    "a mapping for a size": ({"data": {"image_size": {"a": 1}}}, "data.image_size: expected int, got object"),
    "a size out of range": ({"data": {"image_size": 10**9}}, "data.image_size is 1000000000"),
    "text for a width": ({"model": {"width": "4"}}, "model.width: expected int, got str"),
    "text for a rate": ({"optimizer": {"generator": {"lr": "x"}}}, "optimizer.generator.lr: expected float, got str"),
    "an optimizer that is none": ({"optimizer": {"generator": 5}}, "optimizer.generator: expected object, got int"),
    "a negative seed": ({"seed": -1}, "seed: expected int >= 0"),
    "text for tags": ({"track": {"tags": 5}}, "track.tags: expected array, got int"),
}


def merged(settings: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Settings with a nested change."""
    both = [key for key in change if isinstance(change[key], dict) and isinstance(settings.get(key), dict)]
    return settings | change | {key: merged(settings[key], change[key]) for key in both}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_are_none(name: str, run: RunFolder, refused: Callable[..., str]) -> None:
    content, told = SETTINGS[name]
    run.config_file.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = contents(run.path)
    for line in (refused("report", run.path), refused("evaluate", run.path), refused_to_continue(run)):
        assert "config.yaml" in line
        assert told in line
    assert contents(run.path) == before


@pytest.mark.parametrize("name", CHANGES)
def test_settings_of_wrong_types(name: str, run: RunFolder, refused: Callable[..., str]) -> None:
    change, told = CHANGES[name]
    run.config_file.write_text(yaml.safe_dump(merged(yaml.safe_load(run.config_file.read_text()), change)))
    before = contents(run.path)
    for line in (refused("report", run.path), refused("evaluate", run.path), refused_to_continue(run)):
        assert f"{run.config_file} is damaged: {told}" in line
    assert contents(run.path) == before


def test_settings_of_another_version_are_read(run: RunFolder, verb: Verb) -> None:
    settings = yaml.safe_load(run.config_file.read_text())
    change = {"train": {"later": 5}, "model": {"later": 5}, "optimizer": {"later": {"a": 1}}, "later": {"a": 1}}
    del settings["train"]["tf32"], settings["model"]["width"], settings["seed"]
    run.config_file.write_text(yaml.safe_dump(merged(settings, change)))
    code, out, _ = verb("report", run.path, "-o", run.path / "a.html")
    assert code == 0, out


# --- records

RECORDS = {
    "null": "null",
    "a number": "5",
    "no step": '{"loss/generator/l1": 1}',
    "a negative step": '{"step": -1}',
    "a huge step": '{"step": 1' + "0" * 30 + "}",
    "a huger step": '{"step": ' + "9" * 5000 + "}",
    "a fraction of a step": '{"step": 1.5}',
    "a step that is true": '{"step": true}',
    "text": '{"step": 1, "score/psnr": "5"}',
    "nested": '{"step": 1, "score/psnr": ' + "[" * 100_000 + "}",
    "a number out of range": '{"step": 1, "score/psnr": 1e999}',
    "many keys": "{" + ",".join(f'"loss/a/{i}": 1' for i in range(20_000)) + ', "step": 1}',
    "a long line": '{"step": 1, "' + "a" * 2**21 + '": 1}',
    "no text": "\x00\x1b[2J",
}
EXTREMES = (1e308, -1e308, 3e38, float("nan"), float("inf"), 10**300, -0.0, 1e-320)


@pytest.mark.parametrize("name", RECORDS)
def test_records_that_are_none(name: str, run: RunFolder, refused: Callable[..., str]) -> None:
    lines = run.metrics_file.read_text().splitlines()
    run.metrics_file.write_text("\n".join([lines[0], RECORDS[name], *lines[1:]]) + "\n")
    before = {name: each for name, each in contents(run.path).items() if not name.startswith("lock")}
    for line in (refused("report", run.path), refused_to_continue(run)):
        assert f"line 2 of {run.metrics_file} is damaged" in line
    assert {name: each for name, each in contents(run.path).items() if not name.startswith("lock")} == before


def test_extreme_numbers_are_shown(tmp_path: Path, verb: Verb) -> None:
    runs = []
    for number, score in enumerate(EXTREMES):
        folder = trained(tmp_path / f"run-{number}", scores={"psnr": score, "ciede2000": score})
        with folder.metrics_file.open("a") as file:
            file.write(json.dumps({"step": 10**12, "images": 10**17, "loss/generator/l1": score}) + "\n")
        runs.append(folder.path)
        assert verb("report", folder.path, "-o", tmp_path / f"{number}.html")[0] == 0
    assert verb("report", *runs, "-o", tmp_path / "all.html")[0] == 0


def test_of_many_losses_some_are_drawn(tmp_path: Path, verb: Verb) -> None:
    folder = trained(tmp_path / "run")
    with folder.metrics_file.open("a") as file:
        file.write(json.dumps({"step": 300} | {f"loss/generator/{number}": number for number in range(400)}) + "\n")
    assert verb("report", folder.path, "-o", tmp_path / "a.html")[0] == 0
    page = (tmp_path / "a.html").read_text()
    assert "Of 402 losses the first 60 are drawn." in page
    assert page.count('<figure class="chart">') < 80


# --- what else the report reads

BESIDE: dict[str, tuple[str, bytes, str]] = {
    "settings": ("config.yaml", b"[", "is damaged"),
    "records": ("metrics.jsonl", b"{\n{}\n", "line 1 of"),
    "specs": ("metrics.json", b"[" * 5000, "is damaged"),
    "no metric": ("metrics.json", b'{"metrics": [], "references": []}', "length >= 1"),
    "a metric of other types": (
        "metrics.json",
        b'{"metrics": [{"name": 1, "label": "a", "better": "lower"}], "references": []}',
        "expected str, got int",
    ),
    "billions of decimals": (
        "metrics.json",
        b'{"metrics": [{"name": "a", "label": "a", "better": "lower", "digits": 999999999}], "references": []}',
        "digits: expected int <= 20",
    ),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_damaged_run_is_named_and_the_others_are_shown(name: str, tmp_path: Path, verb: Verb) -> None:
    file, content, told = BESIDE[name]
    good, bad = (trained(tmp_path / each, scores={"psnr": 20.0}) for each in ("good", "bad"))
    (bad.path / file).write_bytes(content)
    code, out, error = verb("report", good.path, bad.path, "-o", tmp_path / "a.html")
    assert code == 0
    assert "PSNR" in out
    (line,) = error.splitlines()
    assert line.startswith("not shown: ")
    assert told in line
    assert "Not shown: " in (tmp_path / "a.html").read_text()
    code, out, error = verb("report", "--list", tmp_path)
    assert (code, error) == (0, "")
    assert sorted(line.split()[2] for line in out.splitlines()[1:]) == ["damaged", "finished"]
    code, _, error = verb("report", bad.path, bad.path.parent / "good" / ".." / "bad2")
    assert code == 2
    assert error.count("\n") == 1


PICTURES = {
    "empty": b"",
    "a header": b"\x89PNG\r\n\x1a\n",
    "broken": b"\x89PNG\r\n\x1a\n" + b"\x00" * 100,
    "no image": b"hello",
    "huge": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x01\x00\x00\x00\x01\x00\x00\x08\x02\x00\x00\x00\x1f\x15\xc4\x89",
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_damaged_sample_grid_is_left_out(name: str, tmp_path: Path, verb: Verb) -> None:
    good, bad = (trained(tmp_path / each, scores={"psnr": 20.0}) for each in ("good", "bad"))
    (bad.samples / "step-000010.png").write_bytes(PICTURES[name])
    assert verb("report", good.path, bad.path, "-o", tmp_path / "a.html")[0] == 0
    assert "has a sample grid that can&#39;t be read (step-000010.png)" in (tmp_path / "a.html").read_text()


# --- names and texts of a stranger

ESCAPE = "a\x1b]0;title\x07\x1b[31m</script><img src=x onerror=alert(1)>"


def test_texts_reach_neither_the_terminal_nor_the_page_as_they_are(tmp_path: Path, verb: Verb) -> None:
    name = ESCAPE.replace("/", "|")
    runs = [trained(tmp_path / f"{name}{number}", scores={"psnr": 20.0 + number}) for number in range(2)]
    specs = {
        "metrics": [{"name": "psnr", "label": ESCAPE, "better": "higher", "role": "primary"}],
        "references": [{"name": each, "label": f"{ESCAPE}{each}", "role": "baseline"} for each in ("grey", "constant")],
    }
    for folder in runs:
        folder.specs_file.write_text(json.dumps(specs))
        with folder.metrics_file.open("a") as file:
            file.write(json.dumps({"step": 300, f"loss/{ESCAPE}/{ESCAPE}": 1, "reference/grey/psnr": 1.0}) + "\n")
        settings = yaml.safe_load(folder.config_file.read_text())
        settings["track"]["tags"] = [ESCAPE]
        settings["later"] = {ESCAPE: ESCAPE}
        folder.config_file.write_text(yaml.safe_dump(settings))
    page = tmp_path / "a.html"
    code, out, _ = verb("report", *(folder.path for folder in runs), "-o", page)
    assert code == 0
    assert "onerror" in out
    text = page.read_text()
    assert "onerror" in text
    assert "<img src=x" not in text
    assert verb("report", "--list", tmp_path)[0] == 0
    (runs[0].path / "config.yaml").write_text("[")
    assert verb("report", runs[0].path)[0] == 2


def test_a_folders_name_that_is_no_text(tmp_path: Path, verb: Verb) -> None:
    folder = trained(tmp_path / "a\udcff\n", scores={"psnr": 20.0})
    other = trained(tmp_path / "b", scores={"psnr": 20.0})
    code, out, error = verb("report", folder.path, other.path, "-o", tmp_path / "a.html")
    assert (code, error) == (0, "")
    assert f"page: {tmp_path / 'a.html'}" in out
    assert verb("report", "--list", tmp_path)[0] == 0


# --- checkpoints and snapshots

MANIFESTS = ("null", "5", "[]", "{}", '{"format": 3}', "[" * 100_000, '{"format": null, "sha256": 1}', "\x00")


def refused_to_continue(run: RunFolder) -> str:
    """The line with which training refuses to continue a run."""
    with pytest.raises(UserError) as caught:
        train_run(run.path, train__steps=10)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", MANIFESTS)
def test_manifests_that_are_none(text: str, run: RunFolder) -> None:
    for path in numbered(run.checkpoints):
        (path / "manifest.json").write_text(text)
    before = contents(run.checkpoints)
    assert "all checkpoints are damaged" in refused_to_continue(run)
    assert contents(run.checkpoints) == before


def rewrite_state(run: RunFolder, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the state in the newest checkpoint, with a manifest that fits."""
    path = numbered(run.checkpoints)[-1]
    state = torch.load(path / "state.pt", weights_only=True)
    change(state)
    torch.save(state, path / "state.pt")
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["files"] = {"state.pt": checkpoint._describe(path / "state.pt")}
    (path / "manifest.json").write_text(json.dumps(manifest | {"sha256": checkpoint._digest(manifest)}))


def poison(tensors: dict[str, torch.Tensor]) -> None:
    next(iter(tensors.values())).view(-1)[0] = float("nan")


STATES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "NaN": (lambda state: poison(state["networks"]["generator"]["module"]), r"generator\.module\.\S+ has Inf or NaN"),
    "NaN in the EMA": (
        lambda state: poison(state["networks"]["generator"]["ema"]),
        r"generator\.ema\.\S+ has Inf or NaN",
    ),
    "a negative step": (lambda state: state.update(step=-1), "step: expected int >= 0"),
    "a huge step": (lambda state: state.update(step=10**30), "number of 100 bits"),
    "true for a step": (lambda state: state.update(step=True), "step: expected int, got bool"),
    "no step": (lambda state: state.pop("step"), "is no state of a run"),
    "no networks": (lambda state: state.update(networks=[5]), "is no state of a run"),
    "networks of numbers": (lambda state: state.update(networks={"generator": {"module": {"a": 5}}}), "is no state"),
}


@pytest.mark.parametrize("name", STATES)
def test_states_that_are_none(name: str, run: RunFolder) -> None:
    change, told = STATES[name]
    rewrite_state(run, change)
    assert re.search(told, refused_to_continue(run))


def test_moments_of_inf_are_no_damage(run: RunFolder) -> None:
    """An Adam moment may overflow: the update is 0 then."""

    def overflow(state: dict[str, Any]) -> None:
        moments = state["networks"]["generator"]["optimizer"]["state"]
        next(iter(moments.values()))["exp_avg_sq"].view(-1)[0] = float("inf")

    rewrite_state(run, overflow)
    assert train_run(run.path, train__steps=10).state == "finished"


DESCRIPTIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "text for a width": (lambda about: about["model"].update(width="4"), "model.width: expected int, got str"),
    "null for a depth": (lambda about: about["model"].update(depth=None), "model.depth: expected int, got null"),
    "a huge depth": (lambda about: about["model"].update(depth=10**30), "number of 100 bits"),
    "a list for a name": (lambda about: about["model"].update(name=[]), "model.json: model.name: expected str"),
    "a number for a task": (lambda about: about.update(task=5), "model.json: task: expected object, got int"),
    "a negative step": (lambda about: about.update(step=-1), "model.json: step: expected int >= 0"),
    "text for a step": (lambda about: about.update(step="5"), "model.json: step: expected int | null, got str"),
    "a huge image size": (
        lambda about: about.update(image_size=10**9),
        "model.json: image_size: expected int <= 65536",
    ),
    "a network of huge layers": (lambda about: about["model"].update(width=2**16), "parameters, model.safetensors has"),
    "a network of many layers": (lambda about: about["model"].update(blocks=1024), "describes far more tensors"),
    "text for a format": (lambda about: about.update(format="2"), "model.json: format: expected int, got str"),
    "text for scores": (lambda about: about.update(scores={"psnr": "x"}), "model.json: scores"),
    "numbers for packages": (lambda about: about.update(requires=[5]), "model.json: requires"),
    "a mapping for a digest": (lambda about: about.update(sha256={}), "model.json: sha256: expected str | null"),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_descriptions_that_are_none(name: str, run: RunFolder, refused: Callable[..., str], tmp_path: Path) -> None:
    change, told = DESCRIPTIONS[name]
    file = run.snapshots / "latest" / "model.json"
    about = json.loads(file.read_text())
    change(about)
    file.write_text(json.dumps(about))
    photo = tmp_path / "photo.png"
    Image.new("RGB", (32, 32), "red").save(photo)
    for arguments in (
        ("colorize", run.path, photo, "-o", tmp_path / "out"),
        ("push", run.path, "me/tiny", "--dry_run"),
        ("evaluate", run.snapshots / "latest", "--data.source", "synthetic"),
    ):
        line = refused(*arguments)
        assert "is damaged: " in line
        assert told in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float, run: RunFolder, tmp_path: Path) -> None:
    folder = run.snapshots / "latest"
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, folder / "model.safetensors")
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(about | {"sha256": None}))
    told = f"is damaged: {re.escape(name)} has Inf or NaN"
    with pytest.raises(UserError, match=told):
        colordist.load(run.path)
    with pytest.raises(UserError, match=told):
        train_run(tmp_path / "other", train__init_from=str(run.path))
    assert not (tmp_path / "other").exists()


def test_a_cards_front_matter_may_be_anything(run: RunFolder, verb: Verb) -> None:
    for front in (BOMB, "a: &a [*a]", "[" * 5000, "model-index: 5", "license: [[]]", "tags: {1: 2}", "\x00", "- 1"):
        (run.snapshots / "latest" / "README.md").write_bytes(f"---\n{front}\n---\n# A card".encode() + b"\xff")
        code, _, error = verb("push", run.path, "me/tiny", "--dry_run")
        assert code in (0, 2)
        assert code == 0 or "front matter" in error.splitlines()[-1]


def test_a_run_that_began_with_a_path_is_refused(run: RunFolder) -> None:
    (run.path / "init_from").write_text("0123 /etc/passwd\n")
    assert "init_from is damaged" in refused_to_continue(run)
