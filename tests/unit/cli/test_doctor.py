"""What the doctor finds: in facts, and between processes that meet over this machine's own network."""

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import timm
from helpers import ROOT, config_with
from safetensors.torch import save_file
from torch.distributed import HashStore  # type: ignore[attr-defined]

from colordist import doctor, registry
from colordist.data.source import ImageSource
from colordist.doctor import unavailable_weights
from colordist.engine import rendezvous
from colordist.engine.launch import Launch, adopt_slurm_step
from colordist.engine.preflight import exchange
from colordist.engine.preflight.facts import Facts, _try_folder
from colordist.engine.preflight.findings import Finding, assess, failed, table
from colordist.errors import UserError

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
    assert not failed(findings)


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
    lines = table([Finding("clocks", "ok", "fine"), Finding("images", "failed", "gone", "fetch them")])
    assert lines.splitlines() == ["ok  clocks  fine", "NO  images  gone: fetch them"]


# --- meeting


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A port that was free a moment ago, as the rendezvous of the environment."""
    for name in [*os.environ]:
        if name.startswith(("SLURM", "TORCHELASTIC")) or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name)
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = int(server.getsockname()[1])
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free))
    monkeypatch.setattr(rendezvous, "_store", None)
    return free


@pytest.fixture
def _short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rendezvous, exchange):
        monkeypatch.setattr(module, "PREFLIGHT_TIMEOUT", 0.2)


def meet(facts: Facts, run: Path, other_run: Path) -> tuple[list[Finding], bool, bool]:
    """The findings of rank 0, and whether it and rank 1, which has these facts, passed."""

    def take_part(rank: int) -> tuple[list[Finding], bool]:
        launch = Launch(rank, 2)
        mine, folder = ((WELL, run), (facts, other_run))[rank]
        return exchange.exchange(rendezvous.connect(launch), launch, mine, folder)

    with ThreadPoolExecutor() as pool:
        (findings, passed), (nothing, other_passed) = pool.map(take_part, range(2))
    assert nothing == []
    return findings, passed, other_passed


@pytest.mark.usefixtures("port")
def test_two_processes_meet(tmp_path: Path) -> None:
    findings, *passed = meet(replace(WELL, rank=1, host="b"), tmp_path / "run", tmp_path / "run")
    assert passed == [True, True]
    assert findings[0].value == "2 on 2 machines: a, b"
    assert {finding.status for finding in findings} == {"ok"}
    assert not (tmp_path / "run").exists()  # nothing is left behind


@pytest.mark.usefixtures("port")
def test_both_learn_that_something_failed(tmp_path: Path) -> None:
    _, *passed = meet(replace(WELL, rank=1, host="b", data="no images"), tmp_path / "run", tmp_path / "run")
    assert passed == [False, False]


@pytest.mark.usefixtures("port")
def test_another_folder_by_the_same_name_is_found(tmp_path: Path) -> None:
    findings, *passed = meet(replace(WELL, rank=1, host="b"), tmp_path / "run", tmp_path / "elsewhere")
    assert passed == [False, False]
    assert [finding.name for finding in findings if finding.status == "failed"] == ["shared disk"]


def test_another_clock_is_found(tmp_path: Path) -> None:
    """Readings of a clock that is a minute ahead, with one outlier."""
    store = HashStore()
    ahead = [time.time() + 60] * (exchange._CLOCK_READINGS - 1) + [0.0]
    for key, value in (
        ("connected", ""),
        ("facts", json.dumps([ahead, asdict(replace(WELL, host="b"))])),
        ("left", ""),
    ):
        store.set(f"{key}/1", value)
    for number in range(exchange._CLOCK_READINGS):
        store.add(f"clock/{number}", 1)
    findings, passed = exchange.exchange(store, Launch(0, 2), WELL, tmp_path / "run")
    assert passed
    (clocks,) = [finding for finding in findings if finding.name == "clocks"]
    assert clocks.value.startswith("b is +60.0 s off") or clocks.value.startswith("b is +59.")


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_taken_port_is_told(world_size: int, port: int) -> None:
    with (
        socket.create_server(("", port)),
        pytest.raises(UserError, match="set another MASTER_PORT") as told,
    ):
        rendezvous.connect(Launch(0, world_size))
    assert f"port {port} on {socket.gethostname()} is taken (address already in use)" in str(told.value)


@pytest.mark.usefixtures("_short_timeout")
def test_who_does_not_come_is_named(port: int, tmp_path: Path) -> None:
    launch = Launch(0, 3)
    store = rendezvous.connect(launch)
    store.set("connected/1", "")
    with pytest.raises(UserError, match=f"process 2 didn't connect to 127.0.0.1:{port}"):
        exchange.exchange(store, launch, WELL, tmp_path / "run")


@pytest.mark.usefixtures("_short_timeout")
def test_a_first_process_that_is_not_there_is_named(port: int) -> None:
    with pytest.raises(UserError, match=f"can't reach 127.0.0.1:{port}"):
        rendezvous.connect(Launch(1, 2))


@pytest.mark.usefixtures("port")
def test_a_first_process_that_ends_is_named(tmp_path: Path) -> None:
    serving, launch = [rendezvous.connect(Launch(0, 2))], Launch(1, 2)
    store = rendezvous.connect(launch)
    serving.clear()
    with pytest.raises(UserError, match=r"process 0 at 127.0.0.1:\d+ has ended or doesn't respond"):
        exchange.exchange(store, launch, WELL, tmp_path / "run")


@pytest.mark.usefixtures("port")
def test_where_several_processes_meet_must_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(UserError, match="there are 2 processes, but no MASTER_ADDR and MASTER_PORT: set both"):
        rendezvous.connect(Launch(1, 2))


@pytest.mark.usefixtures("port")
def test_tasks_of_a_step_of_slurm_are_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")  # so that what is set below doesn't outlive the test
        monkeypatch.delenv(name)
    adopt_slurm_step()
    assert Launch.read() == Launch(0, 1)
    for name, value in (("PROCID", "3"), ("LOCALID", "1"), ("STEP_NUM_TASKS", "4")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    adopt_slurm_step()
    assert Launch.read() == Launch(3, 4, 1)
    monkeypatch.setenv("SLURM_PROCID", "0")
    adopt_slurm_step()
    assert Launch.read() == Launch(3, 4, 1)  # a launcher's own variables stay


# --- facts


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told, _ = _try_folder(tmp_path / "file" / "run")
    assert "can't be written" in told
    assert "Not a directory" in told


def test_looking_leaves_no_folder_behind(tmp_path: Path) -> None:
    told, free = _try_folder(tmp_path / "a" / "b")
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
