"""evaluate: a run's newest snapshot, scored on its own or on other images."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import alone_on_the_cpu, tiny

from colordist.cli.parser import Command
from colordist.data.sources.synthetic import SyntheticSettings
from colordist.errors import UserError
from colordist.evaluate import evaluate, parse
from colordist.run import snapshot
from colordist.run.folder import RunFolder
from colordist.train import train


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, for all tests."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch, alone_on_the_cpu(patch):
        train(Command(tiny(run__dir=str(folder)), Path("tiny.yaml"), False))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


def test_it_finds_what_training_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(*parse([str(run)]))
    found = json.loads((run / "evaluation-synthetic.json").read_text())
    logged = RunFolder(run).records()[-1]
    assert found["step"] == logged["step"] == 6
    assert found["images"] == 4
    assert {f"score/{name}": score for name, score in found["scores"].items()} == pytest.approx(
        {key: value for key, value in logged.items() if key.startswith("score/")}
    )
    assert list(found["references"]) == ["grey", "constant", "oracle", "target"]
    assert [each["name"] for each in found["specs"]["references"]] == list(found["references"])
    assert "grey (baseline)" in capsys.readouterr().out


def test_several_answers_are_scored_as_in_training(tmp_path: Path) -> None:
    folder = tmp_path / "noise"
    settings = {"model__noise": 2, "task__candidates": 3, "task__name": "autoencoder", "optimizer__generator__lr": 0.05}
    train(Command(tiny(run__dir=str(folder), **settings), Path("tiny.yaml"), False))
    evaluate(*parse([str(folder)]))
    found = json.loads((folder / "evaluation-synthetic.json").read_text())
    logged = RunFolder(folder).records()[-1]
    assert found["scores"]["diversity"] == pytest.approx(logged["score/diversity"])
    assert found["scores"]["diversity"] > 0
    assert not any({"diversity", "rarest"} & scores.keys() for scores in found["references"].values())


def test_one_answer_is_not_scored_for_its_variety(run: Path) -> None:
    assert not {"score/diversity", "score/rarest"} & RunFolder(run).records()[-1].keys()


def test_other_images(run: Path) -> None:
    folder, data, others, output, *_ = parse(
        [str(run), "--data.test_images", "7", "--data.seed", "1", "-o", str(run / "other.json")]
    )
    assert isinstance(data, SyntheticSettings)
    assert (data.test_images, data.seed, data.train_images) == (7, 1, 12)  # the rest is the run's own
    evaluate(folder, data, others, output)
    assert json.loads((run / "other.json").read_text())["images"] == 7


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "there is no folder nowhere: give the folder of a run, or of a snapshot"),
        (["."], ". is neither a run nor a snapshot: give the folder of a run, or of a snapshot"),
        (["RUN", "--data.sorce", "folder"], "unknown key data.sorce: did you mean data.source?"),
        (["RUN", "--data.source", "folder", "--data.root", "nowhere"], "nowhere"),
        (["RUN", "--json", "scores.json"], "--json goes with --answers"),
        (["RUN", "-o", f"{__file__}/no/x.json"], "test_evaluate.py is no folder: name another file"),
    ],
)
def test_mistakes_are_one_line(run: Path, arguments: list[str], told: str) -> None:
    with pytest.raises(UserError) as refusal:
        evaluate(*parse([str(run) if each == "RUN" else each for each in arguments]))
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_snapshot_that_names_no_step(run: Path) -> None:
    file = run / "snapshots" / "latest" / "model.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "step"}))
    with pytest.raises(UserError, match=r"latest is damaged: model\.json has no step$"):
        evaluate(*parse([str(run)]))


def test_a_run_without_a_snapshot(run: Path) -> None:
    (run / "snapshots" / "latest").unlink()
    with pytest.raises(UserError, match="no snapshot yet"):
        evaluate(*parse([str(run)]))


# --- a snapshot by itself


@pytest.fixture
def alone(run: Path, tmp_path: Path) -> Path:
    """The run's newest snapshot, without its run."""
    return (run / "snapshots" / "latest").resolve().rename(tmp_path / "alone")


def scores(file: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads(file.read_text())["scores"]
    return found


@pytest.mark.parametrize("bundled", [False, True])
def test_a_snapshot_is_scored_on_images_that_the_command_names(
    run: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    bundled: bool,
) -> None:
    evaluate(*parse([str(run)]))
    model = str(request.getfixturevalue("alone"))
    if bundled:
        monkeypatch.setattr(snapshot, "BUNDLED", tmp_path)
        monkeypatch.chdir(run)
        model = "alone"
    same = ["--data.source", "synthetic", "--data.train_images", "12", "--data.test_images", "4"]
    evaluate(*parse([model, *same, "-o", str(tmp_path / "new" / "scores.json")]))
    assert scores(tmp_path / "new" / "scores.json") == scores(run / "evaluation-synthetic.json")
    before = {*tmp_path.rglob("*")}
    evaluate(*parse([model, *same]))
    assert {*tmp_path.rglob("*")} == before
    assert capsys.readouterr().out.endswith("4 images; -o FILE writes the scores\n")


def test_a_snapshot_has_its_image_size_but_no_images(alone: Path) -> None:
    with pytest.raises(
        UserError, match=r"alone is a snapshot without data\.source of its own: add --data\.source folder"
    ):
        parse([str(alone)])
    about = json.loads((alone / "model.json").read_text())
    (alone / "model.json").write_text(json.dumps(about | {"image_size": 48}))
    chosen = [str(alone), "--data.source", "folder", "--data.root", "photos"]
    assert parse(chosen)[1].image_size == 48
    (alone / "model.json").write_text(json.dumps({key: about[key] for key in about if key != "image_size"}))
    with pytest.raises(UserError, match=r"without data\.image_size of its own: add --data\.image_size 256$"):
        parse(chosen)
    assert parse([*chosen, "--data.image_size", "64"])[1].image_size == 64


def test_only_scores_of_its_own_images_are_written_into_a_run(run: Path) -> None:
    own = run / "evaluation-synthetic.json"
    for same in ([], ["--data.test_images", "4"], ["--evaluate.metrics", "[]"]):
        assert parse([str(run), *same])[3] == own
    for other in (["--data.seed", "1"], ["--data.source", "folder"], ["--data.image_size", "64"]):
        assert parse([str(run), *other])[3] is None


def test_random_hints_are_given_and_the_same_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "hints"
    settings = {"task__hints": True, "task__name": "autoencoder", "optimizer__generator__lr": 0.05}
    train(Command(tiny(run__dir=str(folder), **settings), Path("tiny.yaml"), False))
    own = (folder / "metrics.jsonl").read_text()
    found = []
    for hints in ("0", "3", "3", "20"):
        evaluate(*parse([str(folder), "--hints", hints, "-o", str(tmp_path / f"{hints}.json")]))
        found.append(json.loads((tmp_path / f"{hints}.json").read_text()))
    assert [each["hints"] for each in found] == [0, 3, 3, 20]
    assert found[1] == found[2]
    assert len({each["scores"]["psnr"] for each in found}) == 3
    assert found[0]["scores"]["psnr"] == json.loads(own.splitlines()[-1])["score/psnr"]  # training scores without any
    evaluate(*parse([str(folder), "--hints", "1"]))  # not the run's own scores: they would be taken for them
    assert not (folder / "evaluation-synthetic.json").exists()
    assert "step 6, 1 hint" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "told"),
    [("-1", "--hints is -1, but must lie in"), ("2", "--hints is 2, but this network takes none: train one")],
)
def test_mistaken_hints_are_refused(run: Path, count: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        evaluate(*parse([str(run), "--hints", count]))
