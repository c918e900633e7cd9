"""The trackers of ``accelerate.tracking``: TensorBoard, MLflow and others."""

import json
import os
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from PIL import Image

from colordist.config import TrackConfig
from colordist.errors import RunError
from colordist.extras import Extra, require_package
from colordist.files.atomic import content, replace_text
from colordist.files.documents import damage_of, parse_json
from colordist.files.opening import open_regular
from colordist.keys import flatten
from colordist.run.folder import Record, RunFolder, numbered, read_records, step_name
from colordist.tracking.attempts import Attempts, open_or_warn

_LATER = "the rest is sent if it is resumed"


class Sent(msgspec.Struct):
    """The content of RUN/NAME.json: what a tracker has got."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[\w-]{1,64}$")]
    """The run's, at the tracker."""
    newest: dict[str, int] = msgspec.field(default_factory=dict)
    """Step of the newest value sent, by key."""
    grid: int = -1
    """Step of the newest sample grid sent."""


@dataclass(frozen=True)
class Place:
    """Where a tracker is to log."""

    folder: Path
    """The run folder."""
    project: str
    id: str
    """The run's, at the tracker."""
    is_new: bool
    """Whether the tracker doesn't know the run yet."""


@dataclass(frozen=True)
class Backend:
    """How one of accelerate's trackers is used."""

    package: str
    """Is imported, and installed by pip, by this name."""
    build: Callable[[Place], Any]
    """Build the tracker of accelerate."""
    clear: Callable[[Path], None] | None = None
    """Remove what the tracker wrote into the run folder: then all is logged again. None: the same run is resumed."""
    id_of: Callable[[Any], str] | None = None
    """The id that the tracker has given to the run. None: it takes ours."""
    newest: Callable[[Any, dict[str, int]], dict[str, int]] | None = None
    """The steps of the newest values that the tracker has, given those that were sent. None: it can't be asked."""
    image: Callable[[np.ndarray], tuple[Any, dict[str, Any]]] = lambda grid: ([grid], {})
    """A sample grid, uint8 [H, W, 3], as a value and keyword arguments for ``log_images``."""


class AccelerateTracker:
    """Mirrors metrics.jsonl and the sample grids to one of accelerate's trackers.

    A tracker whose files are in the run folder is written anew when a run continues. For others, the newest step sent
    of each key is noted, or asked for: a value that a resumed run logs again isn't sent twice.
    """

    def __init__(self, name: str, config: TrackConfig, folder: Path, about: dict[str, Any]) -> None:
        """about: settings and environment info. Raises whatever the tracker raises."""
        self._backend, self._file = BACKENDS[name], folder / f"{name}.json"
        self._attempt = Attempts(name, _LATER)
        known = None if self._backend.clear else _read_sent(self._file)
        self._sent = known or Sent(uuid.uuid4().hex)
        if self._backend.clear:
            self._backend.clear(folder)
        self._tracker = self._backend.build(Place(folder, config.project, self._sent.id, is_new=known is None))
        self._tracker.start()
        if known is None:
            self._tracker.store_init_configuration(_plain(about))
            if self._backend.id_of is not None:
                self._sent.id = self._backend.id_of(self._tracker)
            self._note()
        elif self._backend.newest is not None:
            self._sent.newest = self._backend.newest(self._tracker, self._sent.newest)
        self._send_all(RunFolder(folder))

    def _send_all(self, folder: RunFolder) -> None:
        """Send the records and sample grids of a run so far that weren't sent yet."""
        records = read_records(folder.metrics_file)
        for record in records:
            self.log(record)
        steps = {step_name(int(record["step"])): int(record["step"]) for record in records}
        for file in numbered(folder.samples, r"\.png"):
            if file.stem in steps:  # others will be drawn again
                self.picture(file, steps[file.stem])

    def log(self, record: Record) -> None:
        """Send a record, without the values that were sent. A key that two records of a step share is sent once."""
        step, newest = int(record["step"]), self._sent.newest
        values = {key: value for key, value in record.items() if key != "step" and step > newest.get(key, -1)}
        if values:
            self._attempt(lambda: self._send(values, step))

    def _send(self, values: Record, step: int) -> None:
        self._tracker.log(values, step=step)
        self._sent.newest |= dict.fromkeys(values, step)
        self._note()

    def flush(self) -> None:
        """Do nothing: what a tracker lacks is sent when the run is resumed."""

    def picture(self, file: Path, step: int) -> None:
        """Send a sample grid, if it wasn't sent yet and the tracker takes images."""
        if step > self._sent.grid and hasattr(self._tracker, "log_images"):
            self._attempt(lambda: self._send_grid(file, step))

    def _send_grid(self, file: Path, step: int) -> None:
        with open_regular(file) as opened:
            value, options = self._backend.image(np.asarray(Image.open(opened).convert("RGB")))
        self._tracker.log_images({"samples": value}, step=step, **options)
        self._sent.grid = step
        self._note()

    def _note(self) -> None:
        """Note what was sent, beside metrics.jsonl."""
        if not self._backend.clear:
            replace_text(self._file, json.dumps(msgspec.structs.asdict(self._sent)) + "\n")

    def snapshot(self, folder: Path, step: int) -> None:
        """Do nothing: snapshots are in the run folder."""

    def close(self) -> None:
        """Finish the run."""
        self._attempt(self._tracker.finish)


def require_trackers(config: TrackConfig) -> None:
    """Raise UserError for a tracker whose package is missing."""
    for name in config.trackers:
        extra: Extra | None = "tensorboard" if name == "tensorboard" else None
        require_package(BACKENDS[name].package, extra, f"track.to {name}")


def open_tracker(name: str, config: TrackConfig, folder: Path, about: dict[str, Any]) -> AccelerateTracker | None:
    """Open a tracker for a run. Logs a failure and returns None."""
    return open_or_warn(lambda: AccelerateTracker(name, config, folder, about), name, _LATER)


def _read_sent(file: Path) -> Sent | None:
    """Read RUN/NAME.json; None if there is no file. Raises DamagedFile for a damaged one."""
    if (text := content(file)) is None:
        return None
    with damage_of(file):
        return parse_json(text, Sent)


def _plain(about: dict[str, Any]) -> dict[str, str | int | float | bool]:
    """Settings as every tracker accepts them: flat, lists as text, none that are unset."""
    return {
        key: value if isinstance(value, str | int | float) else str(value)
        for key, value in flatten(about).items()
        if value is not None
    }


# --- the trackers


def _tensorboard(place: Place) -> Any:  # noqa: ANN401  accelerate has no types
    from accelerate.tracking import TensorBoardTracker

    # A TensorBoard that is watching forgets what it has read from the files that were removed: all steps from 0.
    return TensorBoardTracker("tensorboard", place.folder, filename_suffix=_SUFFIX, purge_step=0)


_SUFFIX = ".colordist"


def _own_folder(logs: Path) -> Path:
    """The folder of a tracker. Raises RunError for a link."""
    if logs.is_symlink():
        raise RunError(f"{logs} is a link, behind which no files are removed")
    return logs


def _clear_dvclive(folder: Path) -> None:
    """DVCLive removes its files by itself, also behind a link."""
    _own_folder(folder / "dvclive")


def _clear_tensorboard(folder: Path) -> None:
    """Remove the event files of a run, and the folders with its settings that accelerate names after the time."""
    logs = _own_folder(folder / "tensorboard")
    for file in logs.glob(f"events.out.tfevents.*{_SUFFIX}"):
        file.unlink()
    for inner in logs.glob("*"):
        if re.fullmatch(r"\d{9,}\.\d+", inner.name) and inner.is_dir() and not inner.is_symlink():
            for file in (*inner.glob("events.out.tfevents.*"), inner / "hparams.yml"):
                file.unlink(missing_ok=True)
            with suppress(OSError):  # it holds other files
                inner.rmdir()


def _mlflow(place: Place) -> Any:  # noqa: ANN401
    import mlflow
    from accelerate.tracking import MLflowTracker

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")  # half a minute; by default four
    given = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(given or f"sqlite:///{(place.folder / 'mlflow.db').absolute()}")
    if not given:
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # mlflow has set it: the next run in this process is elsewhere
    return MLflowTracker(place.project, run_id=None if place.is_new else place.id, run_name=place.folder.name)


def _newest_of_mlflow(tracker: Any, sent: dict[str, int]) -> dict[str, int]:  # noqa: ANN401
    import mlflow

    client, run = mlflow.MlflowClient(), tracker.tracker.info.run_id
    keys = client.get_run(run).data.metrics
    return {key: max(metric.step for metric in client.get_metric_history(run, key)) for key in keys}


def _trackio(place: Place) -> Any:  # noqa: ANN401
    from accelerate.tracking import TrackioTracker

    # What it measures by itself would be at steps of its own.
    options = {"resume": "allow", "embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
    return TrackioTracker(place.project, name=f"{place.folder.name}-{place.id[:8]}", **options)


def _newest_of_trackio(tracker: Any, sent: dict[str, int]) -> dict[str, int]:  # noqa: ANN401
    """Trackio stores values with a delay, in order, and knows the newest step that it has stored."""
    return {key: min(step, tracker.tracker._next_step - 1) for key, step in sent.items()}


def _aim(place: Place) -> Any:  # noqa: ANN401
    from accelerate.tracking import AimTracker

    options = {"system_tracking_interval": None, "capture_terminal_logs": False, "experiment": place.project}
    return AimTracker(place.folder.name, place.folder, run_hash=None if place.is_new else place.id, **options)


def _comet_ml(place: Place) -> Any:  # noqa: ANN401
    import comet_ml
    from accelerate.tracking import CometMLTracker

    names = ("log_code", "parse_args", "auto_metric_logging", "auto_param_logging", "auto_output_logging")
    quiet = comet_ml.ExperimentConfig(name=place.folder.name, **dict.fromkeys(names, False))
    return CometMLTracker(place.project, experiment_key=place.id, experiment_config=quiet)


def _clearml(place: Place) -> Any:  # noqa: ANN401
    from accelerate.tracking import ClearMLTracker

    names = ("arg_parser", "frameworks", "streams")
    options: dict[str, Any] = {f"auto_connect_{name}": False for name in names} | {"auto_resource_monitoring": False}
    # A task that is continued counts on from its last iteration, unless it is told to begin at 0.
    options |= (
        {"reuse_last_task_id": False} if place.is_new else {"reuse_last_task_id": place.id, "continue_last_task": 0}
    )
    return ClearMLTracker(place.project, task_name=place.folder.name, **options)


def _dvclive(place: Place) -> Any:  # noqa: ANN401
    from accelerate.tracking import DVCLiveTracker

    return DVCLiveTracker(dir=str(place.folder / "dvclive"), save_dvc_exp=False, dvcyaml=False)


def _swanlab(place: Place) -> Any:  # noqa: ANN401
    import swanlab
    from accelerate.tracking import SwanLabTracker

    options = {"id": place.id, "resume": "allow", "log_dir": str(place.folder / "swanlab")}
    return SwanLabTracker(
        place.project, name=place.folder.name, settings=swanlab.Settings(interactive=False), **options
    )


BACKENDS = {
    "tensorboard": Backend(
        "tensorboard",
        _tensorboard,
        clear=_clear_tensorboard,
        image=lambda grid: (grid[None], {"dataformats": "NHWC"}),
    ),
    "mlflow": Backend(
        "mlflow", _mlflow, id_of=lambda tracker: str(tracker.tracker.info.run_id), newest=_newest_of_mlflow
    ),
    "trackio": Backend("trackio", _trackio, newest=_newest_of_trackio),
    "aim": Backend(
        "aim", _aim, id_of=lambda tracker: str(tracker.tracker.hash), image=lambda grid: (Image.fromarray(grid), {})
    ),
    "comet_ml": Backend("comet_ml", _comet_ml),
    "clearml": Backend(
        "clearml", _clearml, id_of=lambda tracker: str(tracker.tracker.id), image=lambda grid: (grid, {})
    ),
    "dvclive": Backend("dvclive", _dvclive, clear=_clear_dvclive),
    "swanlab": Backend("swanlab", _swanlab),
}
"""The names are those of ``config.TRACKERS``."""
