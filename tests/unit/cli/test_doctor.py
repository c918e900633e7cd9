"""What the doctor finds: in facts, and between processes that meet over this machine's own network."""

import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import timm
from helpers import ROOT, config_with
from safetensors.torch import save_file

from colordist import doctor, registry
from colordist.config import UserError
from colordist.data.source import ImageSource
from colordist.doctor import unavailable_weights
from colordist.engine import preflight
from colordist.engine.preflight import Facts, Finding, Rendezvous, assess, exchange

RUN = Path("runs/a")
WELL = Facts(
    rank=0, host="a", versions={"python": "3.11.7", "torch": "2.15"}, devices="2 x H200", free=9.0, folder="", data=""
)


def found(*facts: Facts) -> dict[str, Finding]:
    return {finding.name: finding for finding in assess(facts, RUN)}


def test_where_all_is_well_nothing_is_told_but_facts() -> None:
    findings = assess([WELL, replace(WELL, rank=1, host="b", skew=-0.2)], RUN)
    assert {finding.status for finding in findings} == {"ok"}
    assert not any(finding.way_out for finding in findings)
    assert not preflight.failed(findings)


@pytest.mark.parametrize(
    ("change", "name", "status", "words"),
    [
        ({"versions": {"python": "3.11.7", "torch": "2.14"}}, "torch", "failed", "2.15 on a, 2.14 on b"),
        ({"versions": {"python": "3.11.7"}}, "torch", "failed", "2.15 on a, none on b"),
        ({"devices": "no GPU, 2 cores"}, "devices", "warning", "2 x H200 on a, no GPU, 2 cores on b"),
        ({"folder": "runs/a can't be written (Read-only)"}, "run folder", "failed", "(Read-only) on b"),
        ({"shares_folder": False}, "shared disk", "failed", "b sees another run folder"),
        ({"free": 1.5}, "free space", "warning", "1.5 GiB"),
        ({"skew": -3.0}, "clocks", "warning", "b is -3.0 s off"),
        ({"data": "there is no folder photos"}, "images", "failed", "there is no folder photos, on b"),
        ({"weights": "there is no file a: name one"}, "weights", "failed", "unavailable on b"),
    ],
)
def test_what_is_amiss_on_one_machine_is_told_with_its_name(
    change: dict[str, object], name: str, status: str, words: str
) -> None:
    other = replace(WELL, rank=1, host="b", **change)  # type: ignore[arg-type]
    findings = found(WELL, other)
    assert findings[name].status == status
    assert words in findings[name].value
    assert findings[name].way_out
    assert [finding.name for finding in findings.values() if finding.status != "ok"] == [name]


def test_the_table_is_one_line_a_finding() -> None:
    lines = preflight.table([Finding("clocks", "ok", "fine"), Finding("images", "failed", "gone", "fetch them")])
    assert lines.splitlines() == ["ok  clocks  fine", "NO  images  gone: fetch them"]


# --- meeting


@pytest.fixture
def rendezvous() -> Rendezvous:
    """Two processes, and a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return Rendezvous(0, 2, "127.0.0.1", server.getsockname()[1])


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_TIMEOUT", 10.0)


class Other:
    """The second of two processes, in a thread."""

    def __init__(self, rendezvous: Rendezvous, facts: Facts, run: Path) -> None:
        self.passed: bool | None = None
        self._thread = threading.Thread(target=self._meet, args=(rendezvous, facts, run))
        self._thread.start()

    def _meet(self, rendezvous: Rendezvous, facts: Facts, run: Path) -> None:
        findings, self.passed = exchange(replace(rendezvous, rank=1), facts, run)
        assert findings == []

    def join(self) -> bool | None:
        self._thread.join()
        return self.passed


def test_two_processes_meet(rendezvous: Rendezvous, tmp_path: Path) -> None:
    other = Other(rendezvous, replace(WELL, rank=1, host="b"), tmp_path / "run")
    findings, passed = exchange(rendezvous, WELL, tmp_path / "run")
    assert passed
    assert other.join() is True
    assert findings[0].value == "2 on 2 machines: a, b"
    assert {finding.status for finding in findings} == {"ok"}
    assert not (tmp_path / "run").exists()  # nothing is left behind


def test_both_learn_that_something_failed(rendezvous: Rendezvous, tmp_path: Path) -> None:
    other = Other(rendezvous, replace(WELL, rank=1, host="b", data="no images"), tmp_path / "run")
    _, passed = exchange(rendezvous, WELL, tmp_path / "run")
    assert not passed
    assert other.join() is False


def test_another_folder_by_the_same_name_is_found(rendezvous: Rendezvous, tmp_path: Path) -> None:
    other = Other(rendezvous, replace(WELL, rank=1, host="b"), tmp_path / "elsewhere")
    findings, passed = exchange(rendezvous, WELL, tmp_path / "run")
    other.join()
    assert not passed
    assert [finding.name for finding in findings if finding.status == "failed"] == ["shared disk"]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_taken_port_is_told(world_size: int, rendezvous: Rendezvous, tmp_path: Path) -> None:
    with (
        socket.create_server(("", rendezvous.port or 0)),
        pytest.raises(UserError, match="set another MASTER_PORT") as told,
    ):
        exchange(replace(rendezvous, world_size=world_size), WELL, tmp_path / "run")
    assert f"port {rendezvous.port} on {socket.gethostname()} is taken" in str(told.value)


def test_who_does_not_come_is_named(rendezvous: Rendezvous, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_TIMEOUT", 0.2)
    with pytest.raises(UserError, match="process 1 didn't connect"):
        exchange(rendezvous, WELL, tmp_path / "run")


def test_a_first_process_that_is_not_there_is_named(
    rendezvous: Rendezvous, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_TIMEOUT", 0.2)
    with pytest.raises(UserError, match=f"can't reach 127.0.0.1:{rendezvous.port}"):
        exchange(replace(rendezvous, rank=1), WELL, tmp_path / "run")


def test_where_several_processes_meet_must_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(UserError, match="set both"):
        Rendezvous.from_environment()
    monkeypatch.setenv("MASTER_ADDR", "a")
    monkeypatch.setenv("MASTER_PORT", "4711")
    assert Rendezvous.from_environment() == Rendezvous(1, 2, "a", 4711)


# --- facts


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told, _ = preflight._try_folder(tmp_path / "file" / "run")
    assert "can't be written" in told
    assert "Not a directory" in told


def test_looking_leaves_no_folder_behind(tmp_path: Path) -> None:
    told, free = preflight._try_folder(tmp_path / "a" / "b")
    assert told == ""
    assert free > 0
    assert list(tmp_path.iterdir()) == []


def test_images_that_would_have_to_be_fetched_are_told(tmp_path: Path) -> None:
    def missing(**data: str) -> str:
        settings = config_with({f"data.{key}": value for key, value in data.items()}).data
        source: ImageSource = registry.component("source", settings.source)(settings)
        return source.missing()

    assert "compute nodes may have no internet" in missing(source="cifar10", root=str(tmp_path))
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    assert missing(source="cifar10", root=str(tmp_path)) == ""
    assert "there is no folder" in missing(source="folder", root=str(tmp_path / "nowhere"))
    assert missing() == ""


# --- the verb


@pytest.fixture
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("SLURM") or name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("_no_launcher")
def test_the_quick_checks_do_without_accelerate(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "colordist.doctor", "--quick", "--json"]
    command += ["--run.dir", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["processes"]["value"] == f"1 on 1 machines: {socket.gethostname()}"
    assert rows["run folder"]["status"] == "ok"
    assert not [line for line in done.stderr.splitlines() if line.split("|")[-1].strip() == "accelerate"]


@pytest.mark.usefixtures("_no_launcher")
def test_what_failed_is_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images that aren't there, and weights that can't be fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    command = ["doctor", "--quick", "--json", "--data.source", "folder", "--data.root", "nowhere"]
    command += ["--data.image_size", "64", "--model.name", "timm_unet", "--model.encoder", "test_resnet"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as left:
        doctor.main()
    assert left.value.code == 1
    failed = {row["name"]: row for row in json.loads(capsys.readouterr().out) if row["status"] == "failed"}
    assert failed.keys() == {"images", "weights"}
    way_out = failed["weights"]["way_out"]
    assert way_out.startswith("model.weights: the weights of test_resnet can't be fetched (")


def test_all_weights_that_a_run_begins_with_are_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)
    encoder = {"model.name": "timm_unet", "model.encoder": "test_resnet", "data.image_size": 64}

    def reason(**settings: object) -> str:
        given = {key.replace("__", "."): value for key, value in settings.items()}
        return unavailable_weights(config_with(encoder | {"model.weights": str(file)} | given))

    assert reason() == ""
    assert reason(model__sha256="00").endswith("or correct the SHA-256")
    assert reason(train__init_from="nowhere").startswith("there is no folder nowhere: give the folder of a run")
    assert "task.feature_weights: there is no file gone" in reason(
        task__feature_weight=1.0, task__feature_model="test_efficientnet", task__feature_weights="gone"
    )
    features = {"name": "features", "model": "test_efficientnet", "weights": "gone"}
    assert "features.weights: there is no file gone" in reason(evaluate__metrics=[features])
    assert reason(model__weights="none", model__sha256=None) == ""
