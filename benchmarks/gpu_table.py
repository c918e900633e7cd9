"""The table of what gpu.sh found: gpu.json, and tests.xml if it is there, of a folder to Markdown.

python benchmarks/gpu_table.py FOLDER > gpu.md
"""

import json
import math
import sys
import xml.etree.ElementTree as xml
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Found = dict[str, Any]


def table(specs: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """In Markdown."""
    lines = [specs, ["---"] * len(specs), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)


def told(values: Found, digits: int = 0) -> str:
    """A median with its range."""
    return f"{values['median']:,.{digits}f} ({values['min']:,.{digits}f} to {values['max']:,.{digits}f})"


def of(parts: Found, what: str) -> Iterator[tuple[list[str], Found]]:
    """Parts that found something: what their names say besides, and what was found."""
    for name, found in parts.items():
        kind, *rest = name.split("/")
        if kind == what and not found.keys() & {"failed", "skipped"}:
            yield rest, found


def hardware(parts: Found) -> str:
    for _, found in of(parts, "hardware"):
        return "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in found.items() if name != "seconds")
    return "unknown"


def ceilings(parts: Found) -> str:
    for _, found in of(parts, "ceilings"):
        rows = [[name, f"{told(each, 1)} TFLOP/s", each["n"]] for name, each in found["tflops"].items()]
        copy = found["copy_tb_per_second"]
        rows.append(["copy, bytes read and written", f"{told(copy, 2)} TB/s", copy["n"]])
        return table([f"random {found['size']} x {found['size']}", "median (range)", "n"], rows)
    return "not measured"


def speed(parts: Found) -> str:
    rows = []
    for (config, precision, mode), found in of(parts, "speed"):
        for each in found["batches"]:
            if "failed" in each:
                rows.append([config, precision, mode, each["batch"], each["failed"], *[""] * 6])
                continue
            oracle = f"{100 * each['share_of_ceiling']:.1f} %" if "share_of_ceiling" in each else ""
            rows.append(
                [config, precision, mode, each["batch"], told(each["images_per_second"]), told(each["step_ms"], 2)]
                + [f"{each['tflops']:.2f}" if "tflops" in each else "", oracle]
                + [f"{each['peak_memory_mb']:,.0f} / {each.get('expected_memory_mb', math.nan):,.0f}"]
                + [f"{each['host_share']:.2f}", f"{each['waiting_for_data']:.3f}"]
            )
    return table(
        ["config", "numbers", "mode", "batch", "images/s (range)", "ms a step (range)", "TFLOP/s", "of the ceiling"]
        + ["memory, MB: peak / expected", "host's share", "waiting for data"],
        rows,
    )


def losses(parts: Found) -> str:
    rows = []
    for (config, precision, mode), found in of(parts, "speed"):
        waits = found["waits"]
        waiting = f"{waits['a_step']:.1f} {', '.join(waits['where'])}" if isinstance(waits, dict) else waits
        off = found.get("off_fp32")
        rows.append(
            [config, precision, mode, f"{found['losses']['generator/l1']:.5f}"]
            + ["yes" if found["finite"] else "**no**", "" if off is None else f"{100 * off:.2f} %"]
            + [waiting, f"{found['seconds_of_first_step']:.1f}"]
        )
    specs = [
        "config",
        "numbers",
        "mode",
        "L1",
        "finite",
        "losses off fp32's by up to",
        "waits a step, where",
        "first step, s",
    ]
    return table(specs, rows)


def kernels(parts: Found) -> str:
    texts = []
    for (config, precision, mode), found in of(parts, "kernels"):
        rows = [
            [f"`{each['name'][:100]}`", f"{each['us_a_step']:.0f}", f"{each['calls_a_step']:g}"]
            + [f"{100 * each['share']:.1f} %"]
            for each in found["slowest"]
        ]
        texts.append(
            f"{config}, {precision}, {mode}, batch {found['batch']}: a step takes {found['step_us']:,.0f} us, in "
            f"{100 * found['busy_share']:.0f} % of which the device is busy; {found['launches_a_step']:g} launches a "
            f"step.\n\n{table(['kernel', 'us a step', 'calls a step', 'of the busy time'], rows)}"
        )
    return "\n\n".join(texts) or "not measured"


def bare(parts: Found) -> str:
    rows = [
        [config, precision, found["batch"], told(found["ratio"], 3), found["ratio"]["n"]]
        + [told({key: 1e3 * value for key, value in found[name].items()}, 2) for name in ("trainer", "bare")]
        for (config, precision, _), found in of(parts, "bare")
    ]
    specs = ["config", "numbers", "batch", "bare / trainer", "n", "trainer, ms a step", "bare, ms a step"]
    return table(specs, rows)


def tests(file: Path) -> str:
    if not file.exists():
        return "not run to their end"
    suites = xml.parse(file).getroot().iter("testsuite")
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    lines: Counter[str] = Counter()
    for suite in suites:
        for name in counts:
            counts[name] += int(suite.get(name, 0))
        for case in suite.iter("testcase"):
            for kind in ("failure", "error", "skipped"):
                if (found := case.find(kind)) is not None:
                    message = " ".join((found.get("message") or "").split())[:200]
                    where = "" if kind == "skipped" else f"{case.get('name')}: "
                    lines[f"- {kind}: {where}{message}"] += 1
    told_of = [f"{line} ({count} times)" if count > 1 else line for line, count in lines.items()]
    return "\n".join([", ".join(f"{name} {count}" for name, count in counts.items()), "", *told_of])


def missing(parts: Found) -> str:
    lines = [
        f"- {name}: {found.get('failed') or found.get('skipped')}"
        for name, found in parts.items()
        if found.keys() & {"failed", "skipped"}
    ]
    return "\n".join(lines) or "Nothing."


def markdown(found: Found, test_results: Path) -> str:
    """All of it."""
    parts = found["parts"]
    sections = {
        "Hardware": hardware(parts),
        "Ceilings": ceilings(parts),
        "Speed": speed(parts),
        "Losses, and where the host waits": losses(parts),
        "Kernels": kernels(parts),
        "Against a bare loop": bare(parts),
        "Tests": tests(test_results),
        "What failed or was left out": missing(parts),
    }
    title = "# One GPU" + (": a rehearsal, whose numbers mean nothing" if found["rehearsal"] else "")
    return "\n\n".join([title, *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print(markdown(json.loads((folder / "gpu.json").read_text()), folder / "tests.xml"), end="")
