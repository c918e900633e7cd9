"""Communication as seen by the profiler: each gradient is all-reduced once per phase, and nothing else is sent."""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from helpers import fitting

from launch import work

pytestmark = [pytest.mark.dist, pytest.mark.slow]

# The generator's gradients exceed DDP's first bucket, of 1 MiB.
COMMON: dict[str, Any] = {
    **{"task.warmup_steps": 4, "data.train_images": 16, "data.test_images": 4, "data.image_size": 16},
    **{"train.global_batch_size": 8, "train.steps": 12, "train.precision": "fp32"},
    **{"log.every": 4, "evaluate.every": 12, "checkpoint.every": 12},
}
CASES: dict[str, dict[str, Any]] = {
    "whole": {},
    "accumulated": {"train.micro_batch_size": 2},
    "fp64": {"train.precision": "fp64", "model.width": 4, "discriminator.width": 4},
    "autoencoder": {"task.name": "autoencoder", "train.micro_batch_size": 2},
    "cyclegan": {"task.name": "cyclegan", "model.width": 8},
    "frozen": {"train.freeze": ["encoder"], "optimizer.generator.lr_scales": {"decoder": 0.5}},
}
ITEMSIZE = {case: 8 if "fp64" in settings.values() else 4 for case, settings in CASES.items()}
# In a network's second phase DDP rebuilds its buckets, and broadcasts their order.
SETTLED = dict.fromkeys(["generator", "decolorizer"], 2)
SETTLED |= dict.fromkeys(["discriminator", "grey_discriminator"], COMMON["task.warmup_steps"] + 2)
PHASES = {
    "autoencoder": ["generator"],
    "cgan": ["discriminator", "generator"],
    "cyclegan": ["discriminator", "grey_discriminator", "generator", "decolorizer"],
}

Event = dict[str, Any]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all runs, on two processes."""
    root = tmp_path_factory.mktemp("traffic")
    jobs = [
        {"run": str(root / case), "settings": fitting(COMMON, settings), "trace": min(SETTLED.values())}
        for case, settings in CASES.items()
    ]
    work(jobs, root, processes=2)
    return root


def sections(run: Path, rank: int = 0) -> Iterator[tuple[str, int, list[Event]]]:
    """Events of each phase, as (network, step, events), and after each step, as ("after", step, events)."""
    events = json.loads((run / f"trace-{rank}.json").read_text())
    mark = ""
    marked = []
    for event in events:
        if event["name"].startswith(("phase ", "after ")):
            mark = event["name"]
        marked.append((mark, event))
    for name, group in groupby(marked, key=lambda pair: pair[0]):
        kind, step, *network = name.split()
        yield network[0] if network else kind, int(step), [event for _, event in group]


def collectives(events: list[Event]) -> list[Event]:
    """Collectives of gloo."""
    return [event for event in events if event["name"].startswith("gloo:")]


def parameters(run: Path) -> dict[str, int]:
    """Number of trainable parameters, by network."""
    counts: dict[str, int] = json.loads((run / "seen-0.json").read_text())["parameters"]
    return counts


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_in_its_phase_a_networks_gradients_travel_once_and_nothing_else(case: str, rank: int, runs: Path) -> None:
    sizes = parameters(runs / case)
    phases = []
    for name, step, events in sections(runs / case, rank):
        if name == "after" or step < SETTLED[name]:
            continue
        phases.append((step, name))
        travelled = collectives(events)
        assert {event["name"] for event in travelled} == {"gloo:all_reduce"}
        assert sum(event["bytes"] for event in travelled) == sizes[name] * ITEMSIZE[case], (step, name)
        assert len(travelled) == sum(event["name"].startswith("c10d::") for event in events)
    expected = PHASES[CASES[case].get("task.name", "cgan")]
    late = range(SETTLED["discriminator"], COMMON["train.steps"])
    assert [phase for phase in phases if phase[0] in late] == [(step, name) for step in late for name in expected]


def test_what_is_frozen_has_no_share_in_that(runs: Path) -> None:
    whole, frozen = parameters(runs / "whole"), parameters(runs / "frozen")
    assert 0 < frozen["generator"] < whole["generator"]
    assert frozen["discriminator"] == whole["discriminator"]


@pytest.mark.parametrize("case", ["whole", "accumulated", "fp64", "frozen"])
def test_in_the_warm_up_only_the_generators_gradients_travel(case: str, runs: Path) -> None:
    warm_up = [(name, step) for name, step, _ in sections(runs / case) if step < COMMON["task.warmup_steps"]]
    assert warm_up == [("generator", 2), ("after", 2), ("generator", 3), ("after", 3)]


@pytest.mark.parametrize("case", CASES)
def test_between_steps_nothing_travels_but_one_sum_a_line_of_the_log(case: str, runs: Path) -> None:
    between = {step: collectives(events) for name, step, events in sections(runs / case) if name == "after"}
    for step in range(2, COMMON["train.steps"] - 1):  # after the last one, scores and a checkpoint follow
        logged = (step + 1) % COMMON["log.every"] == 0
        assert [event["name"] for event in between[step]] == ["gloo:all_reduce"] * logged, step


@pytest.mark.parametrize("case", CASES)
def test_the_log_tells_what_travelled(case: str, runs: Path) -> None:
    lines = [json.loads(line) for line in (runs / case / "metrics.jsonl").read_text().splitlines()]
    logged = {line["step"]: line["pace/sync_bytes"] for line in lines if "pace/sync_bytes" in line}
    sizes = parameters(runs / case)
    everything = sum(sizes.values()) * ITEMSIZE[case]
    at_first = sum(sizes[name] for name in sizes if "discriminator" not in name) * ITEMSIZE[case]
    assert logged == {4: at_first, 8: everything, 12: everything}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("case", ["whole", "accumulated", "autoencoder"])
def test_gradients_travel_while_backward_still_runs(case: str, rank: int, runs: Path) -> None:
    """The first bucket is sent before the gradients of the last convolution are computed."""
    for name, step, events in sections(runs / case, rank):
        if name != "generator" or step < SETTLED["discriminator"]:
            continue
        sent = [event["start"] for event in events if event["name"].startswith("c10d::")]
        computed = [event["start"] for event in events if event["name"].endswith("ConvolutionBackward0")]
        assert len(sent) > 1
        assert sent[0] < computed[-1], step
