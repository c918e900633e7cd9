"""benchmarks/scaling.py: the cost model, by hand and by its properties, and what is made of measurements."""

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers import ROOT, config_with
from hypothesis import given, settings
from hypothesis import strategies as st

MODULES = ("cost_model", "scaling", "scaling_tables", "scaling_measure", "chart", "sync", "measuring")

seconds = st.floats(1e-6, 10)
sizes = st.integers(1, 10**9)
processes = st.sampled_from([2**power for power in range(10)])


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """The modules by name, as a script beside them sees them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
        for name in MODULES:
            sys.modules.pop(name, None)


# --- the fit


@given(fixed=seconds, each=seconds)
def test_a_line_is_recovered(scripts: SimpleNamespace, fixed: float, each: float) -> None:
    amounts = [1, 2, 4, 8, 16, 32]
    line = scripts.cost_model.fit_line(amounts, [fixed + each * amount for amount in amounts])
    assert line(3) == pytest.approx(fixed + 3 * each, rel=1e-9)
    assert line(1000) == pytest.approx(fixed + 1000 * each, rel=1e-6)


@given(st.lists(st.floats(0.5, 2), min_size=5, max_size=5), seconds, seconds)
def test_noise_is_fitted_with_the_least_relative_squares(
    scripts: SimpleNamespace, noise: list[float], fixed: float, each: float
) -> None:
    amounts = [1, 2, 4, 8, 16]
    took = [(fixed + each * amount) * factor for amount, factor in zip(amounts, noise, strict=True)]

    def squares(line: Any) -> float:  # noqa: ANN401
        return float(sum((line(amount) / second - 1) ** 2 for amount, second in zip(amounts, took, strict=True)))

    line = scripts.cost_model.fit_line(amounts, took)
    assert line.fixed >= 0
    assert line.each >= 0
    best = squares(line)
    for change in (0.9, 1.1):
        assert best <= squares(scripts.cost_model.Line(line.fixed * change, line.each)) + 1e-9
        assert best <= squares(scripts.cost_model.Line(line.fixed, line.each * change)) + 1e-9


def test_no_coefficient_is_negative(scripts: SimpleNamespace) -> None:
    line = scripts.cost_model.fit_line([1, 2, 4], [0.5, 1.5, 3.5])  # on the line through -0.5
    assert line.fixed == 0
    assert line.each == pytest.approx(sum(r for r in (2, 4 / 3, 8 / 7)) / sum(r * r for r in (2, 4 / 3, 8 / 7)))


def test_steps_in_several_micro_batches_have_a_line_of_their_own(scripts: SimpleNamespace) -> None:
    model = scripts.cost_model
    target = model.Compute(model.Line(3.0, 2.0), model.Line(4.0, 2.5), 0.5)
    steps = [(1, 1), (4, 4), (16, 16), (4, 2), (16, 8), (8, 2), (32, 8)]
    found = model.fit_compute({step: target(*step) for step in steps})
    assert target(6, 6) == 15
    assert target(6, 4) == 0.5 + 2 * 4 + 6 * 2.5
    assert found(6, 6) == pytest.approx(15)
    assert found(7, 3) == pytest.approx(0.5 + 3 * 4 + 7 * 2.5)


# --- communication


def test_all_reduces_by_hand(scripts: SimpleNamespace) -> None:
    model = scripts.cost_model
    link = model.Link(latency=1e-3, bandwidth=1e9)
    assert model.ring(8e6, 2, link) == pytest.approx(2 * 1e-3 + 8e-3)
    assert model.ring(8e6, 8, link) == pytest.approx(14 * 1e-3 + 14e-3)
    assert model.tree(8e6, 8, link) == pytest.approx(6 * 1e-3 + 16e-3)
    assert model.all_reduce(8e6, 1, link) == 0
    assert model.all_reduce(8e6, 2, link) == model.ring(8e6, 2, link)
    assert model.all_reduce(8e6, 8, link) == model.tree(8e6, 8, link)  # hops count more here
    assert model.all_reduce(8e9, 8, link) == model.ring(8e9, 8, link)  # and bytes here


def test_a_link_is_told_from_sums_over_two(scripts: SimpleNamespace) -> None:
    model = scripts.cost_model
    line = model.Line(3e-4, 2e-9)
    assert model.all_reduce(5e6, 2, model.link_of_two(line)) == pytest.approx(line(5e6))


def test_machines_add_their_network_to_what_is_inside(scripts: SimpleNamespace) -> None:
    model = scripts.cost_model
    cluster = model.Cluster(model.Link(1e-6, 1e11), model.Link(1e-5, 1e10), machine=8)
    inside = model.all_reduce(1e7, 8, cluster.inside)
    assert cluster.all_reduce(1e7, 4) == model.all_reduce(1e7, 4, cluster.inside)
    assert cluster.all_reduce(1e7, 8) == inside
    assert cluster.all_reduce(1e7, 16) == pytest.approx(inside + 2 * 1e-5 + 1e-3)


@given(size=sizes, count=processes, latency=seconds, rate=st.floats(1e6, 1e12))
def test_more_members_or_a_slower_link_never_help(
    scripts: SimpleNamespace, size: int, count: int, latency: float, rate: float
) -> None:
    model = scripts.cost_model
    took = model.all_reduce(size, count, model.Link(latency, rate))
    assert took <= model.all_reduce(size, 2 * count, model.Link(latency, rate))
    assert took <= model.all_reduce(size, count, model.Link(2 * latency, rate))
    assert took <= model.all_reduce(size, count, model.Link(latency, rate / 2))


@settings(max_examples=30)
@given(st.lists(st.sampled_from([1, 1000, 2**18, 2**18 - 1, 400_000, 3_000_000]), min_size=1, max_size=12))
def test_buckets_are_those_of_torch(scripts: SimpleNamespace, counts: list[int]) -> None:
    tensors = [torch.empty(count) for count in counts]
    theirs, _ = dist._compute_bucket_assignment_by_size(tensors, [dist._DEFAULT_FIRST_BUCKET_BYTES, 25 * 2**20])  # type: ignore[attr-defined]
    ours = scripts.cost_model.buckets([(4 * count, float(number)) for number, count in enumerate(counts)])
    assert [bucket.size for bucket in ours] == [4 * sum(counts[index] for index in bucket) for bucket in theirs]
    assert [bucket.ready for bucket in ours] == [max(bucket) for bucket in theirs]


# --- a step


def test_what_backward_hides_by_hand(scripts: SimpleNamespace) -> None:
    model = scripts.cost_model
    turn = model.Turn("generator", 0.5, (model.Bucket(2, 0.5), model.Bucket(3, 1.0)))

    def send(size: float) -> float:
        return size  # a second a byte

    # 5 to 7, then 10 to 13.
    assert model.exposed(turn, 10.0, send, model.nothing) == pytest.approx(3)
    # 5 to 7, of which the processor works for 1; so backward ends at 11, and the second travels until 14.
    assert model.exposed(turn, 10.0, send, lambda _: 1.0) == pytest.approx(4)
    # 1 to 3, then 3 to 6.
    assert model.exposed(turn, 2.0, send, model.nothing) == pytest.approx(4)
    # 1 to 3: hidden, but for the processor's work.
    early = model.Turn("generator", 0.5, (model.Bucket(2, 0.1),))
    assert model.exposed(early, 10.0, send, lambda _: 1.0) == pytest.approx(1)


def test_gradients_travel_behind_the_last_micro_batch(scripts: SimpleNamespace) -> None:
    model = made(scripts)
    assert model.step(8, 64, 16).exposed == model.step(8, 16, 16).exposed
    assert model.step(8, 64, 64).exposed["generator"] < model.step(8, 64, 16).exposed["generator"]


def made(scripts: SimpleNamespace, rate: float = 1e9) -> Any:  # noqa: ANN401
    """A model with two turns on a ring."""
    model = scripts.cost_model
    turns = (
        model.Turn("discriminator", 0.2, (model.Bucket(2_000_000, 0.4), model.Bucket(700_000, 1.0))),
        model.Turn("generator", 0.4, (model.Bucket(1_500_000, 0.5), model.Bucket(5_000_000, 1.0))),
    )
    compute = model.Compute(model.Line(2e-3, 1e-4), model.Line(2e-3, 1.2e-4), 2e-4)
    link = model.Link(1e-5, rate)
    return model.Model(compute, turns, lambda size, count: model.all_reduce(size, count, link))


@given(count=processes, images=st.integers(1, 300), rate=st.floats(1e6, 1e12))
def test_steps_grow_with_images_and_processes_and_shrink_with_speed(
    scripts: SimpleNamespace, count: int, images: int, rate: float
) -> None:
    model = made(scripts, rate)
    step = model.step(count, images, images)
    assert step.computing <= step.seconds <= (step.computing + step.sending) * (1 + 1e-12)
    close = 1 - 1e-12
    assert model.step(2 * count, images, images).seconds >= step.seconds * close
    assert model.step(count, images + 1, images + 1).seconds >= step.seconds * close
    assert made(scripts, 2 * rate).step(count, images, images).seconds <= step.seconds / close
    assert model.weak_efficiency(2 * count, images) <= model.weak_efficiency(count, images) / close <= 1 / close**2


@settings(max_examples=40)
@given(count=processes, images=st.integers(1, 60), most=st.integers(1, 60))
def test_the_best_micro_batch_is_the_best_of_all(scripts: SimpleNamespace, count: int, images: int, most: int) -> None:
    model = made(scripts)
    best = model.best_micro_batch(count, images, most)
    assert best <= most
    fastest = min(model.step(count, images, size).seconds for size in range(1, min(images, most) + 1))
    assert model.step(count, images, best).seconds == pytest.approx(fastest, rel=1e-12)


def test_strong_scaling_by_hand(scripts: SimpleNamespace) -> None:
    model = made(scripts)
    alone, shared = model.step(1, 64, 64).seconds, model.step(4, 16, 16).seconds
    assert alone == pytest.approx(2e-3 + 64e-4)
    assert model.strong_efficiency(4, 64, 100) == pytest.approx(alone / 4 / shared)


def test_enough_images_are_enough(scripts: SimpleNamespace) -> None:
    model = made(scripts)
    enough = model.images_for(0.9, 8, 4096)
    assert model.weak_efficiency(8, enough) >= 0.9 > model.weak_efficiency(8, enough // 2)
    assert model.images_for(0.9, 8, enough - 1) is None


# --- what is made of measurements

COUNTS = [
    {"micro_batches": 1, "operations": 400, "flops": 2_000_000},
    {"micro_batches": 2, "operations": 850, "flops": 5_000_000},
    {"micro_batches": 3, "operations": 1250, "flops": 7_500_000},
]


def measured(scripts: SimpleNamespace) -> dict[str, Any]:
    """What a machine would measure that is just as the model says."""
    model = scripts.cost_model
    compute = model.Compute(model.Line(0.02, 0.01), model.Line(0.02, 0.012), 0.005)
    line, stall_exempt = model.Line(4e-4, 1e-8), model.Line(1e-4, 1e-9)
    gradients = {"discriminator": [(2_000_000, 0.4), (700_000, 1.0)], "generator": [(1_500_000, 0.5), (5_000_000, 1.0)]}
    turns = [{"name": name, "backward": 0.3, "gradients": each} for name, each in gradients.items()]
    found: dict[str, Any] = {"alone": {"turns": turns}}
    target = model.Model(
        compute,
        scripts.scaling.turns(found),
        lambda size, count: model.all_reduce(size, count, model.link_of_two(line)),
        stall_exempt,
    )

    def spread(median: float) -> dict[str, float]:
        return {"median": median, "min": median, "max": median, "n": 3}

    measure = scripts.scaling_measure
    single = [(images, images) for images in measure.SINGLE]
    steps = [
        {"images": step[0], "micro_batch": step[1], "held_out": step in measure.HELD_OUT, **spread(compute(*step))}
        for step in [*single, *measure.SEVERAL, *measure.HELD_OUT]
    ]
    sums = [
        {"bytes": size, "held_out": size in measure.HELD_OUT_SIZES, "busy": stall_exempt(size), **spread(line(size))}
        for size in [*measure.SIZES, *measure.HELD_OUT_SIZES]
    ]
    pairs = [(step, target.step(2, *step)) for step in measure.CHECKED]
    two = [
        {"images": step[0], "micro_batch": step[1], "sending": spread(each.seconds), "silent": spread(each.computing)}
        for step, each in pairs
    ]
    alone = {"steps": steps, "turns": turns, "counts": COUNTS, "load": 0.0}
    buckets = [2_000_000, 700_000, 1_500_000, 5_000_000]
    links = {"loopback": {"all_reduce": sums, "steps": two, "buckets": buckets}}
    machine = {"config": "cgan", "hardware": "a machine", "cores": 2}
    return machine | {"alone": alone, "links": links, "skipped": {"1gbit": "no root"}}


def test_what_was_held_out_is_predicted(scripts: SimpleNamespace) -> None:
    predictions = scripts.scaling.predictions(measured(scripts))
    assert {name: len(made) for name, made in predictions.items()} == {
        "a step of one process, sizes held out": len(scripts.scaling_measure.HELD_OUT),
        "a sum over two, loopback, sizes held out": len(scripts.scaling_measure.HELD_OUT_SIZES),
        "a step of two that send nothing, loopback": len(scripts.scaling_measure.CHECKED),
        "a step of two, loopback": len(scripts.scaling_measure.CHECKED),
    }
    assert max(abs(each.error) for made in predictions.values() for each in made) < 1e-9


def test_what_is_held_out_is_not_fitted(scripts: SimpleNamespace) -> None:
    measure = scripts.scaling_measure
    fitted = {*((images, images) for images in measure.SINGLE), *measure.SEVERAL}
    assert not fitted & {*measure.HELD_OUT}
    assert not {*measure.SIZES} & {*measure.HELD_OUT_SIZES}
    found = measured(scripts)
    for each in found["alone"]["steps"] + found["links"]["loopback"]["all_reduce"]:
        each["median"] *= 2 if each["held_out"] else 1
    predictions = scripts.scaling.predictions(found)
    for name in ("a step of one process, sizes held out", "a sum over two, loopback, sizes held out"):
        errors = [each.error for each in predictions[name]]
        assert errors == pytest.approx([-0.5] * len(errors))


def test_an_assumed_gpu_by_hand(scripts: SimpleNamespace) -> None:
    compute = scripts.scaling.assumed_compute(COUNTS, tflops=2, microseconds=10)
    assert compute(100, 100) == pytest.approx(400e-5 + 100 * 1e6 / 2e12)
    assert compute(100, 50) == pytest.approx(50e-5 + 2 * 400e-5 + 100 * 1.25e6 / 2e12)


def record(**parts: Any) -> dict[str, Any]:  # noqa: ANN401
    """As benchmarks/gpu.py writes it."""
    hardware: dict[str, Any] = {"hardware": {"gpu": "A100"}}
    return {"rehearsal": False, "parts": hardware | {f"speed/cgan/bf16/{way}": part for way, part in parts.items()}}


def test_a_recorded_gpu_by_hand(scripts: SimpleNamespace) -> None:
    batches = [{"batch": batch, "images_per_second": {"median": batch / (4e-3 + batch * 1e-5)}} for batch in (64, 256)]
    found = record(off={"batches": [*batches, {"batch": 9999, "failed": "out of memory"}]}, default={"skipped": "time"})
    paces = scripts.scaling.recorded_paces(found, "cgan")
    assert list(paces) == ["measured: A100, bf16"]
    compute = scripts.scaling.recorded_compute(COUNTS, *paces.values())
    assert compute(1000, 1000) == pytest.approx(4e-3 + 1000e-5)
    # 10 µs an operation, 50 of them to update; 1.25 times the arithmetic
    assert compute(1000, 500) == pytest.approx(50e-5 + 2 * 4e-3 + 1.25 * 1000e-5)


def test_a_record_that_tells_nothing_is_refused(scripts: SimpleNamespace) -> None:
    with pytest.raises(SystemExit, match="rehearsal"):
        scripts.scaling.recorded_paces(record() | {"rehearsal": True}, "cgan")
    with pytest.raises(SystemExit, match="no images a second of ae"):
        scripts.scaling.recorded_paces(record(off={"batches": []}), "ae")


def run(scripts: SimpleNamespace, folder: Path, patch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The script with what was measured; returns its page."""
    file, page = folder / "measured.json", folder / "page.md"
    file.write_text(json.dumps({"measured": measured(scripts)}))
    page.write_text((ROOT / "docs" / "scaling.md").read_text())
    patch.setattr(sys, "argv", ["scaling.py", "--measured", str(file), "--markdown", str(page), *arguments])
    scripts.scaling.main()
    return page.read_text()


def test_the_page_says_that_computing_is_assumed(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(scripts, tmp_path, monkeypatch, "--json", str(tmp_path / "all.json"))
    assert "Computing is an assumption" in first
    assert "Not measured: 1gbit, no root." in first
    assert "Not measured yet" not in first
    tables = [part.splitlines() for part in first.split("\n\n") if part.startswith("|")]
    assert len(tables) == 5
    assert all(len({line.count("|") for line in lines}) == 1 for lines in tables)
    predicted = json.loads((tmp_path / "all.json").read_text())["predicted"]
    assert {row["gpus"] for row in predicted} >= {8, 64, 512}
    assert all(0 < row["weak"]["efficiency"] <= 1 for row in predicted)
    assert run(scripts, tmp_path, monkeypatch) == first  # written over, not below


def test_a_record_takes_the_place_of_the_assumption(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [{"batch": batch, "images_per_second": {"median": 1000.0 * math.log(batch)}} for batch in (64, 256)]
    (tmp_path / "gpu.json").write_text(json.dumps(record(off={"batches": batches})))
    page = run(scripts, tmp_path, monkeypatch, "--gpu", str(tmp_path / "gpu.json"))
    assert "measured: A100, bf16" in page
    assert "assumed" not in page.split("## What is predicted")[1].split("## What is assumed")[0]


def test_a_page_without_a_place_for_tables_is_left_alone(scripts: SimpleNamespace, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Something else\n")
    with pytest.raises(SystemExit, match="no place"):
        scripts.scaling.write_tables(page, {"checked": "| a |"})
    assert page.read_text() == "# Something else\n"


def test_lines_are_drawn_where_their_numbers_are(scripts: SimpleNamespace) -> None:
    chart = scripts.chart
    line = [(1, 1.0), (8, 1.2), (64, 0.4)]
    picture = np.asarray(chart.draw([chart.Panel("one", {"a": line}), chart.Panel("other", {"a": line})]))
    assert picture.shape == (chart.SCALE * chart.HEIGHT, 2 * chart.SCALE * chart.WIDTH, 3)
    color = [int(chart.COLORS[0][place : place + 2], 16) for place in (1, 3, 5)]
    rows = np.nonzero((picture[:, chart.SCALE * chart.WIDTH :] == color).all(-1))[0]  # without the legend
    top, bottom = chart.SCALE * chart.TOP, chart.SCALE * (chart.HEIGHT - chart.BOTTOM)
    radius = 3 * chart.SCALE + 1
    assert rows.min() == pytest.approx(top, abs=radius)  # 1.2, the chart's upper end
    assert rows.max() == pytest.approx(bottom - (bottom - top) / 3, abs=radius)


# --- measuring


@pytest.fixture
def measuring(scripts: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """The measurements, and a training small enough for them."""
    small = {"task": "cgan", "model.width": 4, "discriminator.width": 4, "discriminator.spectral_norm": True}
    measure = scripts.scaling_measure
    yield SimpleNamespace(measure=measure, training=measure.Training(config_with(small)))
    dist.destroy_process_group()


def test_every_gradient_is_seen_in_its_turn(measuring: SimpleNamespace) -> None:
    turns = measuring.measure.time_turns(measuring.training, 2, 2)
    assert [turn["name"] for turn in turns] == ["discriminator", "generator"]
    for turn in turns:
        sizes, ready = zip(*turn["gradients"], strict=True)
        assert sum(sizes) == 4 * measuring.training.task.networks[turn["name"]].parameter_count()
        assert all(0 < each <= 1 for each in ready)
        assert list(ready) == sorted(ready)
    assert 0 < sum(turn["backward"] for turn in turns) < 1


def test_what_is_counted_grows_by_the_same_with_each_micro_batch(measuring: SimpleNamespace) -> None:
    one, two, three = measuring.measure.count(measuring.training)
    assert 0 < one["flops"] < two["flops"] - one["flops"]  # generators run anew for each turn
    assert two["flops"] * 3 == three["flops"] * 2
    assert 0 < three["operations"] - two["operations"] < two["operations"]


def test_a_step_trains_with_the_images_that_were_asked_for(measuring: SimpleNamespace) -> None:
    training, seen = measuring.training, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.engine, "step", lambda task, parts, step: seen.append([len(part) for part in parts]))
        measuring.measure.time_steps(training, [(1, 1), (5, 2)], 1)
    assert seen == [[1], [2, 2, 1]] * (measuring.measure.WARM_UP + 1)


def test_options(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--global-batch", "256"])
    with pytest.raises(SystemExit):
        scripts.scaling.read_options()
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--assume", "30:5", "10:2.5"])
    assert scripts.scaling.read_options().assume == [(30, 5), (10, 2.5)]
