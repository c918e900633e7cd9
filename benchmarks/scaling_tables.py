"""What benchmarks/scaling.py found, for people: tables in Markdown."""

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

from cost_model import Prediction, Turn

Found = dict[str, Any]

ERROR_HEADINGS = ("predicted, never fitted", "n", "median error", "worst", "spread of the measurement")
STEP_HEADINGS = ("link", "step", "predicted", "measured (range)", "error", "of it for gradients", "measured")
STRONG_HEADINGS = ("between machines", "GPUs", "images a GPU", "best micro-batch", "step", "images/s", "efficiency")


def table(spec: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [spec, ["---"] * len(spec), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tell_checks(found: Found, checks: dict[str, list[Prediction]], turns: Sequence[Turn]) -> str:
    """What was measured, and how far off the model was."""
    alone = found["alone"]
    sent = "; ".join(f"{turn.name} {_buckets(turn)}" for turn in turns)
    return "\n\n".join(
        [
            f"Measured: `configs/{found['config']}.yaml`, {found['hardware']}, one core and one thread a"
            f" process, medians of {alone['steps'][0]['n']} rounds (load {alone['load']:.1f} at the end).",
            *(["**Two processes had to share a core: their times tell nothing.**"] if found["cores"] < 2 else []),
            *(f"Not measured: {link}, {why}." for link, why in found["skipped"].items()),
            table(ERROR_HEADINGS, _errors(checks)),
            "Steps of two processes, one by one:",
            table(STEP_HEADINGS, _steps(found, checks)),
            f"Sent in a step: {sent}. Buckets as DistributedDataParallel cut them: {_agreed(found, turns)}.",
        ]
    )


def tell_predictions(rows: Sequence[Found], options: argparse.Namespace) -> str:
    """What is predicted, of the first GPU in full."""
    names = list(dict.fromkeys(row["gpu"] for row in rows))
    shown = [row for row in rows if row["gpu"] == names[0] and row["gpus"] in options.gpus]
    waits = [f"waits for {name}" for name in shown[0]["weak"]["waits"]]
    warning = "" if options.gpu else "**Computing is an assumption: no GPU was measured.** "
    return "\n\n".join(
        [
            f"{warning}GPU {names[0]}. {options.machine} GPUs a machine, {options.intra:g} GB/s from each inside it,"
            f" {options.latency[0]:g} µs a hop; {options.latency[1]:g} µs a hop between machines.",
            f"Weak scaling, {options.images} images a GPU:",
            table(
                ["between machines", "GPUs", "step", "computing", *waits, "images/s", "efficiency"]
                + ["with nothing hidden", "images a GPU for 90 %"],
                [_weak(row, options) for row in shown],
            ),
            f"Strong scaling, {options.global_batch} images between them, at most {options.most} at once:",
            table(STRONG_HEADINGS, [_strong(row, options) for row in shown]),
            f"Efficiency, weak and strong, {_middle(options):g} Gbit/s between machines:",
            table(["GPU", *(f"{count} GPUs" for count in options.gpus)], _others(rows, names, options)),
        ]
    )


def _errors(checks: dict[str, list[Prediction]]) -> list[list[str]]:
    rows = []
    for name, made in checks.items():
        errors = [abs(each.error) for each in made]
        spread = statistics.median((each.most - each.least) / each.measured for each in made)
        rows.append([name, str(len(made)), *map(_percent, (statistics.median(errors), max(errors), spread))])
    return rows


def _steps(found: Found, checks: dict[str, list[Prediction]]) -> list[list[str]]:
    """What gradients cost was measured as the difference to a step that sends none."""
    return [
        [
            *(link, each.of, _ms(each.predicted), f"{_ms(each.measured)} ({_ms(each.least)} to {_ms(each.most)})"),
            f"{100 * each.error:+.0f} %",
            *(_ms(each.predicted - silent.predicted), _ms(each.measured - silent.measured)),
        ]
        for link in found["links"]
        for each, silent in zip(
            checks[f"a step of two, {link}"], checks[f"a step of two that send nothing, {link}"], strict=True
        )
    ]


def _buckets(turn: Turn) -> str:
    sizes = " + ".join(f"{bucket.size:,}" for bucket in turn.buckets)
    ready = ", ".join(_percent(bucket.ready) for bucket in turn.buckets)
    return f"{sizes} bytes (ready after {ready} of its backward pass)"


def _agreed(found: Found, turns: Sequence[Turn]) -> str:
    ours = [bucket.size for turn in turns for bucket in turn.buckets]
    seen = [link["buckets"] for link in found["links"].values()]
    return "the same" if all(each == ours for each in seen) else f"others, {seen}"


def _weak(row: Found, options: argparse.Namespace) -> list[str]:
    weak, count = row["weak"], row["gpus"]
    enough = weak["images_for_90_percent"]
    return [
        *(f"{row['gigabits']:g} Gbit/s", str(count), _ms(weak["seconds"]), _ms(weak["computing"])),
        *(_ms(seconds) for seconds in weak["waits"].values()),
        *(f"{count * options.images / weak['seconds']:,.0f}", _percent(weak["efficiency"])),
        _percent(weak["with_nothing_hidden"]),
        f"more than {options.most}" if enough is None else str(enough),
    ]


def _strong(row: Found, options: argparse.Namespace) -> list[str]:
    strong, count = row["strong"], row["gpus"]
    return [
        *(f"{row['gigabits']:g} Gbit/s", str(count), str(strong["images"]), str(strong["micro_batch"])),
        *(_ms(strong["seconds"]), f"{options.global_batch / strong['seconds']:,.0f}", _percent(strong["efficiency"])),
    ]


def _others(rows: Sequence[Found], names: Sequence[str], options: argparse.Namespace) -> list[list[str]]:
    cells = {
        (row["gpu"], row["gpus"]): f"{_percent(row['weak']['efficiency'])}, {_percent(row['strong']['efficiency'])}"
        for row in rows
        if row["gigabits"] == _middle(options)
    }
    return [[name, *(cells[name, count] for count in options.gpus)] for name in names]


def _middle(options: argparse.Namespace) -> float:
    speeds = sorted(options.inter)
    return float(speeds[len(speeds) // 2])


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.{0 if seconds >= 0.1 else 2}f} ms"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
