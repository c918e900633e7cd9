"""How training scales: a cost model, fitted and checked on this machine's CPU, and what it predicts for clusters.

    python benchmarks/scaling.py --json scaling.json --markdown docs/scaling.md --plot docs/scaling.png
    python benchmarks/scaling.py --measured scaling.json --inter 25 200 --gpus 16 128    # another cluster, in a second
    python benchmarks/scaling.py --measured scaling.json --gpu gpu.json                  # with a GPU that was measured

The model is in cost_model.py. Measured here, each process on a core of its own:

- steps of one process by images and micro-batch, and in them each turn's backward pass, and when gradients come;
- sums over two processes by bytes, over loopback and over links that tc slows down (as benchmarks/sync.py does it).

Fitted to some sizes of each, the model has to predict the others, and then whole steps of two processes, of which it
has seen none. How far off it was is told.

Predictions for GPUs keep what doesn't depend on the hardware: bytes, buckets, when in a backward pass each is ready,
how many operations there are. Links are arguments. Computing comes from a record of benchmarks/gpu.py (``--gpu``);
without one it is an assumption, named as such in all that is printed: so many floating-point operations a second once
they run, and so many microseconds for each operation to start. Three such pairs are shown.
"""

import argparse
import json
import math
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cost_model import (
    Cluster,
    Compute,
    Line,
    Link,
    Model,
    Prediction,
    Turn,
    all_reduce,
    buckets,
    fit_compute,
    fit_line,
    link_of_two,
)
from scaling_tables import tell_checks, tell_predictions

ROOT = Path(__file__).parents[1]
MARKERS = "<!-- {}: written by benchmarks/scaling.py -->", "<!-- end of {} -->"
PLOTTED = [2**power for power in range(10)]  # GPUs
Found = dict[str, Any]


# --- the model of what was measured


def fitted_compute(found: Found) -> Compute:
    """Of one process here."""
    steps = [step for step in found["alone"]["steps"] if not step["held_out"]]
    return fit_compute({(step["images"], step["micro_batch"]): step["median"] for step in steps})


def turns(found: Found) -> tuple[Turn, ...]:
    """What is sent and when."""
    return tuple(Turn(each["name"], each["backward"], buckets(each["gradients"])) for each in found["alone"]["turns"])


def fitted_link(measured: Sequence[Found], of: str) -> Line:
    """Seconds, of the clock (``median``) or of a processor (``busy``), by bytes."""
    fitted = [each for each in measured if not each["held_out"]]
    return fit_line([each["bytes"] for each in fitted], [each[of] for each in fitted])


def model_of_two(found: Found, link: str) -> Model:
    """Two processes here, from what one does alone and from sums over both."""
    measured = found["links"][link]["all_reduce"]
    joined = link_of_two(fitted_link(measured, "median"))
    return Model(
        fitted_compute(found),
        turns(found),
        lambda size, processes: all_reduce(size, processes, joined),
        fitted_link(measured, "busy"),
    )


def predictions(found: Found) -> dict[str, list[Prediction]]:
    """All that the model can be held to."""
    compute = fitted_compute(found)
    checks = {
        "a step of one process, sizes held out": [
            checked(step, _name(step), compute(step["images"], step["micro_batch"]))
            for step in found["alone"]["steps"]
            if step["held_out"]
        ]
    }
    for link, measured in found["links"].items():
        line, model = fitted_link(measured["all_reduce"], "median"), model_of_two(found, link)
        checks[f"a sum over two, {link}, sizes held out"] = [
            checked(each, f"{each['bytes']:,} bytes", line(each["bytes"]))
            for each in measured["all_reduce"]
            if each["held_out"]
        ]
        steps = [(step, model.step(2, step["images"], step["micro_batch"])) for step in measured["steps"]]
        checks[f"a step of two that send nothing, {link}"] = [
            checked(step["silent"], _name(step), predicted.computing) for step, predicted in steps
        ]
        checks[f"a step of two, {link}"] = [
            checked(step["sending"], _name(step), predicted.seconds) for step, predicted in steps
        ]
    return checks


def checked(measured: Found, of: str, predicted: float) -> Prediction:
    """Beside what was measured."""
    return Prediction(of, predicted, measured["median"], measured["min"], measured["max"])


def _name(step: Found) -> str:
    images, micro_batch = step["images"], step["micro_batch"]
    return f"{images} images" if images == micro_batch else f"{images} images, {micro_batch} at once"


# --- GPUs


def assumed_compute(counts: Sequence[Found], tflops: float, microseconds: float) -> Compute:
    """A GPU that computes so many 1e12 operations a second and takes so long to start each operation.

    counts: of steps in 1, 2 and 3 micro-batches of 2 images.
    """
    one, two, three = counts
    again, update = _beyond_the_first(counts)
    return Compute(
        Line(1e-6 * microseconds * one["operations"], one["flops"] / 2 / (1e12 * tflops)),
        Line(1e-6 * microseconds * again, (three["flops"] - two["flops"]) / 2 / (1e12 * tflops)),
        1e-6 * microseconds * update,
    )


def recorded_compute(counts: Sequence[Found], images_per_second: dict[int, float]) -> Compute:
    """A GPU whose speed was measured by batch; what several micro-batches cost it is told from what they compute."""
    one, two, three = counts
    batches = list(images_per_second)
    once = fit_line(batches, [batch / images_per_second[batch] for batch in batches])
    again, update = _beyond_the_first(counts)
    flops = (three["flops"] - two["flops"]) / one["flops"]
    each = once.fixed / one["operations"]
    return Compute(once, Line(each * again, once.each * flops), each * update)


def _beyond_the_first(counts: Sequence[Found]) -> tuple[int, int]:
    """Operations of each of several micro-batches, and of an update."""
    _, two, three = (step["operations"] for step in counts)
    return three - two, max(0, two - 2 * (three - two))


def gpus(found: Found, options: argparse.Namespace) -> dict[str, Compute]:
    """By what they are called: the GPU of a record, or assumed ones."""
    counts = found["alone"]["counts"]
    if options.gpu is not None:
        paces = recorded_paces(json.loads(options.gpu.read_text()), found["config"])
        return {name: recorded_compute(counts, pace) for name, pace in paces.items()}
    return {
        f"assumed: {tflops:g} TFLOP/s, {microseconds:g} µs an operation": assumed_compute(counts, tflops, microseconds)
        for tflops, microseconds in options.assume
    }


def recorded_paces(record: Found, config: str) -> dict[str, dict[int, float]]:
    """Images a second by batch, of a config in bf16, as benchmarks/gpu.py found them."""
    if record["rehearsal"]:
        raise SystemExit("the GPU's record is a rehearsal without a GPU: run benchmarks/gpu.py on one")
    batches = record["parts"].get(f"speed/{config}/bf16/off", {}).get("batches", [])
    pace = {each["batch"]: each["images_per_second"]["median"] for each in batches if "failed" not in each}
    if len(pace) < 2:
        raise SystemExit(f"the GPU's record has no images a second of {config} in bf16: use --config of another")
    return {f"measured: {record['parts']['hardware']['gpu']}, bf16": pace}


def cluster(options: argparse.Namespace, gigabits: float) -> Cluster:
    """Machines whose network has this speed."""
    inside, between = (1e-6 * each for each in options.latency)
    return Cluster(Link(inside, 1e9 * options.intra), Link(between, 1e9 / 8 * gigabits), options.machine)


def scaled(model: Model, count: int, options: argparse.Namespace) -> Found:
    """What is predicted for so many GPUs: with so many images each, and with so many images between them."""
    weak = model.step(count, options.images, options.images)
    share = math.ceil(options.global_batch / count)
    micro_batch = model.best_micro_batch(count, share, options.most)
    strong = model.step(count, share, micro_batch)
    return {
        "gpus": count,
        "weak": {
            "computing": weak.computing,
            "waits": weak.exposed,
            "seconds": weak.seconds,
            "efficiency": model.weak_efficiency(count, options.images),
            "with_nothing_hidden": weak.computing / (weak.computing + weak.sending),
            "images_for_90_percent": model.images_for(0.9, count, options.most),
        },
        "strong": {
            "images": share,
            "micro_batch": micro_batch,
            "seconds": strong.seconds,
            "efficiency": model.strong_efficiency(count, options.global_batch, options.most),
        },
    }


def scaling(found: Found, options: argparse.Namespace) -> list[Found]:
    """All predictions: each GPU on each network."""
    return [
        {"gpu": name, "gigabits": gigabits, **scaled(model, count, options)}
        for name, compute in gpus(found, options).items()
        for gigabits in options.inter
        for model in [Model(compute, turns(found), cluster(options, gigabits).all_reduce)]
        for count in sorted({*options.gpus, *PLOTTED})
    ]


# --- the script


def plot(rows: Sequence[Found], options: argparse.Namespace) -> None:
    """Efficiency over GPUs, a line for each network."""
    from chart import Panel, draw

    first = [row for row in rows if row["gpu"] == rows[0]["gpu"]]
    titles = {"weak": f"{options.images} images a GPU", "strong": f"{options.global_batch} images between them"}
    panels = [
        Panel(
            f"efficiency, {title}",
            {
                f"{gigabits:g} Gbit/s between machines": [
                    (row["gpus"], row[kind]["efficiency"]) for row in first if row["gigabits"] == gigabits
                ]
                for gigabits in options.inter
            },
        )
        for kind, title in titles.items()
    ]
    spec = f"GPU {rows[0]['gpu']}".replace("µ", "u")  # Pillow's font has no µ
    draw(panels, spec).save(options.plot, optimize=True)


def write_tables(file: Path, tables: dict[str, str]) -> None:
    """Put tables between the markers of a Markdown file. Raises SystemExit where there are none."""
    page = file.read_text()
    for name, table in tables.items():
        begin, end = MARKERS[0].format(name), MARKERS[1].format(name)
        if begin not in page or end not in page:
            raise SystemExit(f"{file} has no place for what is {name}: it needs the lines {begin} and {end}")
        head, tail = page.split(begin)[0], page.split(end)[1]
        page = f"{head}{begin}\n\n{table}\n\n{end}{tail}"
    file.write_text(page)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "configs" / "cgan.yaml"), help="what is trained")
    parser.add_argument("--rounds", type=int, default=7, help="times that everything is measured")
    parser.add_argument("--rates", nargs="*", default=["1gbit", "200mbit"], help="of slowed links, as tc writes them")
    parser.add_argument("--quick", action="store_true", help="few and small sizes: a trial")
    parser.add_argument("--measured", type=Path, metavar="FILE", help="what --json wrote, instead of measuring")
    cluster = parser.add_argument_group("what is predicted")
    cluster.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    cluster.add_argument("--machine", type=int, default=8, help="GPUs in each machine")
    cluster.add_argument("--intra", type=float, default=300, help="GB/s from each GPU inside a machine")
    cluster.add_argument("--inter", type=float, nargs="+", default=[25, 100, 400], help="Gbit/s from each machine")
    cluster.add_argument("--latency", type=float, nargs=2, default=[4, 14], help="µs a hop, inside and between")
    cluster.add_argument("--gpu", type=Path, metavar="FILE", help="what benchmarks/gpu.py wrote")
    cluster.add_argument(
        "--assume",
        type=assumption,
        nargs="+",
        metavar="TFLOPS:US",
        default=[(30, 5), (10, 10), (100, 1)],
        help="of a GPU where none was measured: 1e12 operations a second, µs to start one; the first has all tables",
    )
    cluster.add_argument("--images", type=int, default=64, help="a GPU, for weak scaling")
    cluster.add_argument("--global-batch", type=int, default=4096, help="images for strong scaling")
    cluster.add_argument("--most", type=int, default=4096, help="images that a GPU's memory holds at once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all numbers")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="a page to write the tables into")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where to draw efficiencies")
    options = parser.parse_args()
    if options.global_batch < max(*options.gpus, *PLOTTED):
        parser.error(f"--global-batch {options.global_batch} is less than an image a GPU")
    return options


def assumption(text: str) -> tuple[float, float]:
    """A pair of numbers above 0, such as 30:5."""
    tflops, microseconds = (float(part) for part in text.split(":"))
    if tflops <= 0 or microseconds <= 0:
        raise ValueError
    return tflops, microseconds


def main() -> None:
    options = read_options()
    if options.measured is not None:
        found = json.loads(options.measured.read_text())["measured"]
    else:
        from scaling_measure import measure

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are ended
        found = measure(options.config, options.rates, options.rounds, quick=options.quick)
    rows = scaling(found, options)
    checks = predictions(found)
    tables = {"checked": tell_checks(found, checks, turns(found)), "predicted": tell_predictions(rows, options)}
    print("\n\n".join(tables.values()))
    if options.json:
        errors = {name: [asdict(each) | {"error": each.error} for each in made] for name, made in checks.items()}
        whole = {"measured": found, "checks": errors, "predicted": rows}
        options.json.write_text(json.dumps(whole, indent=2) + "\n")
    if options.markdown:
        write_tables(options.markdown, tables)
    if options.plot:
        plot(rows, options)


if __name__ == "__main__":
    main()
