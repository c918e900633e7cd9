"""Trackers of runs that are killed by SIGKILL and resumed: each value is there once, as in metrics.jsonl."""

import signal
from collections import Counter
from pathlib import Path

import pytest
from event_files import images, scalars

from colordist.run.folder import RunFolder
from launch import ALONE, TINY, arguments, begin, finish, last_step, wait_for

pytestmark = [pytest.mark.dist, pytest.mark.slow]


def killed_twice(run: Path, tracker: str) -> dict[tuple[str, int], float]:
    """Kill a run twice, each time between two checkpoints, let it end. Returns the values of metrics.jsonl."""
    settings = TINY | {"task.name": "autoencoder", "log.every": 1, "evaluate.every": 8, "checkpoint.every": 5}
    more = arguments(settings, train__steps=24, run__dir=run, track__to=tracker, train__precision="fp32")
    for death in (8, 17, None):
        process = begin([*ALONE, "-m", "colordist.train", *more])
        if death is not None:
            try:
                assert wait_for(lambda death=death: last_step(run) >= death, process)  # type: ignore[misc]
            finally:
                process.kill()
        done = finish(process)
        assert done.returncode == (0 if death is None else -signal.SIGKILL), done.stderr
        assert "failed" not in done.stderr
    records = RunFolder(run).records()
    return {(key, int(each["step"])): value for each in records for key, value in each.items() if key != "step"}


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    written = killed_twice(tmp_path / "run", "tensorboard")
    found = scalars(tmp_path / "run")
    assert {*Counter(each[:2] for each in found).values()} == {1}
    assert {each[:2]: each[2] for each in found} == pytest.approx(written, rel=1e-6)
    assert [step for step, _ in images(tmp_path / "run")] == [0, 8, 16, 24]


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged again after a kill has the same numbers, but for speed and memory."""
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    written = killed_twice(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    found = [(key, each) for key in run.data.metrics for each in client.get_metric_history(run.info.run_id, key)]
    assert {*Counter((key, each.step) for key, each in found).values()} == {1}
    values = {(key, each.step): each.value for key, each in found}
    assert values.keys() == written.keys()
    same = {key for key in written if not key[0].startswith("pace/")}
    assert {key: values[key] for key in same} == {key: written[key] for key in same}
