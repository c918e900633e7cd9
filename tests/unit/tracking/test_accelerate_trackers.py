"""Trackers of accelerate: TensorBoard, MLflow, and one that keeps what it is sent."""

import json
import math
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from event_files import images, scalars
from PIL import Image
from runs import killed_run, run

from colordist.config import TRACKERS, TrackConfig
from colordist.errors import UserError
from colordist.run.folder import RunFolder
from colordist.tracking import JsonLines, open_trackers, require_tracking
from colordist.tracking.accelerate_trackers import BACKENDS, AccelerateTracker, Backend

SETTINGS: dict[str, Any] = {"seed": 3, "task": {"name": "cgan"}, "data": {"root": None, "classes": ["a", "b"]}}


def follow_steps(folder: Path, start: int, steps: list[int], name: str = "tensorboard") -> None:
    """Log these steps as a run does that begins or continues with a step."""
    folder.mkdir(exist_ok=True)
    trackers = [JsonLines(folder / "metrics.jsonl", start), *open_trackers(TrackConfig(to=name), folder, SETTINGS)]
    for step in steps:
        for tracker in trackers:
            tracker.log({"step": step, "images": 4 * step, "loss/generator/l1": 1 / step})
            tracker.log({"step": step, "images": 4 * step, "score/mae": 2 / step})
    for tracker in trackers:
        tracker.close()


def written(folder: Path) -> dict[tuple[str, int], float]:
    """The values of metrics.jsonl, by key and step."""
    records = RunFolder(folder).records()
    return {(key, int(each["step"])): value for each in records for key, value in each.items() if key != "step"}


def grid_of(color: tuple[int, int, int], file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 12), color).save(file)


# --- settings


def test_the_names_are_those_of_accelerate() -> None:
    assert {*TRACKERS, "wandb"} == LOGGER_TYPE_TO_CLASS.keys()
    assert BACKENDS.keys() == {*TRACKERS}


def test_a_name_twice_is_one_tracker() -> None:
    assert TrackConfig(to=["mlflow", "aim", "mlflow"]).trackers == ["mlflow", "aim"]
    assert TrackConfig(to="mlflow").trackers == ["mlflow"]
    assert TrackConfig().trackers == []


@pytest.mark.parametrize(
    ("name", "install"), [("tensorboard", "'colordist[tensorboard]'"), ("mlflow", "mlflow"), ("comet_ml", "comet_ml")]
)
def test_a_missing_package_is_one_line(name: str, install: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # how Python notes what isn't there
    with pytest.raises(UserError) as refused:
        require_tracking(TrackConfig(to=[name]))
    assert str(refused.value) == f"track.to {name} needs the package {name}: pip install {install}"


def test_a_broken_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clearml.py").write_text("raise TypeError('Descriptors cannot\\nbe created directly')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "clearml", raising=False)
    with pytest.raises(UserError, match=r"can't be imported \(Descriptors cannot be .*\): pip install --upgrade clear"):
        require_tracking(TrackConfig(to=["clearml"]))


def test_nothing_is_created_where_a_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aim", None)
    with pytest.raises(UserError, match="needs the package aim"):
        run(tmp_path / "run", track__to=["aim"])
    assert not (tmp_path / "run").exists()


# --- TensorBoard


@pytest.fixture
def _needs_tensorboard() -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")


needs_tensorboard = pytest.mark.usefixtures("_needs_tensorboard")


@needs_tensorboard
def test_tensorboard_holds_every_value_once_after_each_continuation(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for start, steps in (0, [1, 2, 3]), (1, [2, 3, 4]), (4, [5]):
        follow_steps(folder, start, steps)
        found = scalars(folder)
        assert {*Counter(found).values()} == {1}
        assert {each[:2]: each[2] for each in found} == pytest.approx(written(folder), rel=1e-7)
    assert {step for _, step, _ in found} == {1, 2, 3, 4, 5}


@needs_tensorboard
def test_tensorboard_keeps_nan_and_infinity(tmp_path: Path) -> None:
    (tracker,) = open_trackers(TrackConfig(to="tensorboard"), tmp_path, SETTINGS)
    tracker.log({"step": 1, "loss/generator/l1": math.nan, "loss/generator/total": math.inf})
    tracker.close()
    values = {key: value for key, _, value in scalars(tmp_path)}
    assert math.isnan(values["loss/generator/l1"])
    assert values["loss/generator/total"] == math.inf


@needs_tensorboard
def test_settings_are_there_once(tmp_path: Path) -> None:
    for start in (0, 1):
        follow_steps(tmp_path / "run", start, [start + 1])
    (settings,) = tmp_path.glob("run/tensorboard/*/hparams.yml")
    assert settings.read_text() == "data.classes: '[''a'', ''b'']'\nseed: 3\ntask.name: cgan\n"


@needs_tensorboard
def test_sample_grids_are_there_once(tmp_path: Path) -> None:
    run(tmp_path / "run", track__to="tensorboard", evaluate__every=2)
    # Killed before the step 4 was saved, so its grid will be drawn again.
    (tmp_path / "run" / "finished").unlink()
    run(tmp_path / "run", track__to="tensorboard", evaluate__every=2, train__steps=8)
    shown = images(tmp_path / "run")
    assert [step for step, _ in shown] == [0, 2, 4, 6, 8]
    for step, image in shown:
        expected = np.asarray(Image.open(tmp_path / "run" / "samples" / f"step-{step:06d}.png"))
        assert np.array_equal(image, expected)


@needs_tensorboard
def test_a_killed_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records after the checkpoint, and a grid, are written again."""
    settings: dict[str, Any] = {"track__to": ["tensorboard"], "evaluate__every": 2, "log__every": 1}
    killed_run(tmp_path / "run", monkeypatch, at=4, **settings)
    folder = run(tmp_path / "run", **settings).path
    found = scalars(folder)
    assert {*Counter(each[:2] for each in found).values()} == {1}
    assert {each[:2]: each[2] for each in found} == pytest.approx(written(folder), rel=1e-6)
    assert [step for step, _ in images(folder)] == [0, 2, 4, 6]


@needs_tensorboard
def test_other_files_beside_the_event_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    follow_steps(folder, 0, [1])
    (settings,) = folder.glob("tensorboard/*/hparams.yml")
    mine = [settings.with_name("notes.txt"), folder / "tensorboard" / "events.out.tfevents.1.host.2.3"]
    for file in mine:
        file.write_text("mine")
    follow_steps(folder, 1, [2])
    assert [file.read_text() for file in mine] == ["mine", "mine"]
    assert not settings.exists()


@needs_tensorboard
def test_nothing_is_removed_behind_a_link(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    follow_steps(tmp_path / "other", 0, [1])
    before = scalars(tmp_path / "other")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "other" / "tensorboard")
    follow_steps(tmp_path / "run", 0, [1])
    assert "run/tensorboard is a link" in caplog.text
    assert scalars(tmp_path / "other") == before


@needs_tensorboard
def test_a_run_does_not_begin_over_the_events_of_another(tmp_path: Path) -> None:
    follow_steps(tmp_path / "run", 0, [1])
    (tmp_path / "run" / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"run holds tensorboard but no config\.yaml"):
        run(tmp_path / "run")


# --- a tracker that is resumed: its data would be on a server


class Kept(GeneralTracker):  # type: ignore[misc]  # accelerate has no types
    """Keeps what it is sent in a file of its own, and fails or is killed as told."""

    name, requires_logging_directory = "kept", False
    fails_at: int | None = None
    killed_after: int | None = None

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    @property
    def tracker(self) -> Path:
        return self.file

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._append({"settings": values})

    def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:  # noqa: ANN401
        if step == Kept.fails_at:
            raise ConnectionError("nobody\nis there")
        self._append({"step": step, "values": values})
        if step == Kept.killed_after:
            raise KeyboardInterrupt

    def log_images(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:  # noqa: ANN401
        self._append({"grid": step, "shape": list(values["samples"][0].shape)})

    def _append(self, line: dict[str, Any]) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    @property
    def sent(self) -> list[tuple[int, str]]:
        """Step and key of each value."""
        return [(line["step"], key) for line in self.lines if "step" in line for key in line["values"]]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """Takes mlflow's place."""
    monkeypatch.setattr(Kept, "fails_at", None)
    monkeypatch.setattr(Kept, "killed_after", None)
    tracker = Kept(tmp_path / "kept.jsonl")
    monkeypatch.setitem(BACKENDS, "mlflow", Backend("json", lambda place: tracker))
    return tracker


def pairs(*steps: int) -> list[tuple[int, str]]:
    return [(step, key) for step in steps for key in ("images", "loss/generator/l1", "score/mae")]


def test_a_resumed_run_sends_nothing_twice(tmp_path: Path, kept: Kept) -> None:
    folder = tmp_path / "run"
    follow_steps(folder, 0, [1, 2, 3], "mlflow")  # killed after step 3; the last checkpoint is of step 1
    first = json.loads((folder / "mlflow.json").read_text())
    follow_steps(folder, 1, [2, 3, 4], "mlflow")
    assert kept.sent == pairs(1, 2, 3, 4)
    assert sum("settings" in line for line in kept.lines) == 1
    then = json.loads((folder / "mlflow.json").read_text())
    assert then["id"] == first["id"]
    assert then["newest"] == {"images": 4, "loss/generator/l1": 4, "score/mae": 4}


def test_what_was_not_sent_is_sent_when_the_run_is_resumed(
    tmp_path: Path, kept: Kept, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kept, "fails_at", 2)
    follow_steps(tmp_path / "run", 0, [1, 2, 3], "mlflow")
    assert kept.sent == pairs(1)
    (warning,) = caplog.records
    assert warning.message == ("mlflow failed (nobody is there): the run continues; the rest is sent if it is resumed")
    monkeypatch.setattr(Kept, "fails_at", None)
    follow_steps(tmp_path / "run", 3, [4], "mlflow")
    assert kept.sent == pairs(1, 2, 3, 4)


@pytest.mark.parametrize("can_be_asked", [True, False])
def test_a_kill_between_sending_a_record_and_noting_that(
    can_be_asked: bool, tmp_path: Path, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without asking, one record is there twice, as docs/tracking.md says."""

    def newest(*_: object) -> dict[str, int]:
        return {key: step for step, key in kept.sent}

    if can_be_asked:
        monkeypatch.setitem(BACKENDS, "mlflow", replace(BACKENDS["mlflow"], newest=newest))
    monkeypatch.setattr(Kept, "killed_after", 2)
    with pytest.raises(KeyboardInterrupt):
        follow_steps(tmp_path / "run", 0, [1, 2], "mlflow")
    monkeypatch.setattr(Kept, "killed_after", None)
    follow_steps(tmp_path / "run", 1, [2, 3], "mlflow")
    twice = {pair for pair, count in Counter(kept.sent).items() if count > 1}
    assert twice == (set() if can_be_asked else {(2, "images"), (2, "loss/generator/l1")})
    assert {*kept.sent} == {*pairs(1, 2, 3)}


def test_a_change_of_intervals_sends_no_step_twice(tmp_path: Path, kept: Kept) -> None:
    """The intervals of logging may change when a run is resumed: then other lines have the same numbers."""
    follow_steps(tmp_path / "run", 0, [1, 2, 3, 4], "mlflow")
    follow_steps(tmp_path / "run", 1, [3, 5], "mlflow")
    assert kept.sent == pairs(1, 2, 3, 4, 5)


def test_sample_grids_are_sent_once(tmp_path: Path, kept: Kept) -> None:
    (folder := tmp_path / "run").mkdir()
    for step in (0, 5):
        grid_of((9, 9, 9), folder / "samples" / f"step-{step:06d}.png")
    for start in (0, 0, 5):
        lines = JsonLines(folder / "metrics.jsonl", start)
        tracker = AccelerateTracker("mlflow", TrackConfig(), folder, SETTINGS)
        for step in range(start, start + 6, 5):
            for each in lines, tracker:
                each.log({"step": step, "score/mae": 1.0})
                each.picture(folder / "samples" / f"step-{min(step, 5):06d}.png", step)
        tracker.close()
    assert [(line["grid"], line["shape"]) for line in kept.lines if "grid" in line] == [
        (step, [12, 4, 3]) for step in (0, 5, 10)
    ]


@pytest.mark.parametrize("text", ["{", "{}", '{"id": "../x"}', '{"id": "a", "newest": {"a": "b"}}', "[" * 10_000])
def test_a_damaged_note_is_a_warning(text: str, tmp_path: Path, kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mlflow.json").write_text(text)
    assert open_trackers(TrackConfig(to="mlflow"), tmp_path, SETTINGS) == []
    (record,) = caplog.records
    assert "mlflow.json is damaged" in record.message
    assert "the run continues without" in record.message
    assert "\n" not in record.message


def test_a_failing_tracker_does_not_end_a_run(
    tmp_path: Path, kept: Kept, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kept, "fails_at", 4)
    folder = run(tmp_path / "run", track__to="mlflow")
    assert folder.is_finished(6)
    assert folder.records()[-1]["step"] == 6
    assert caplog.text.count("mlflow failed (nobody is there)") == 1
    assert {step for step, _ in kept.sent} == {0, 2}


# --- MLflow


def test_mlflow_has_every_value_once_after_each_continuation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "run"
    for start, steps in (0, [1, 2, 3]), (1, [2, 3, 4]):
        follow_steps(folder, start, steps, "mlflow")
    # As after a kill between sending the records of step 4 and noting that.
    noted = json.loads((folder / "mlflow.json").read_text())
    (folder / "mlflow.json").write_text(json.dumps(noted | {"newest": {"images": 1}}))
    follow_steps(folder, 4, [5], "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    expected = written(folder)
    for key in {key for key, _ in expected}:
        history = sorted((metric.step, metric.value) for metric in client.get_metric_history(noted["id"], key))
        assert history == sorted((step, value) for (other, step), value in expected.items() if other == key)
    run = client.get_run(noted["id"])
    assert run.data.params == {"seed": "3", "task.name": "cgan", "data.classes": "['a', 'b']"}
    assert run.info.status == "FINISHED"
    assert len(client.search_runs([run.info.experiment_id])) == 1
