"""What the records of a training say: images repeated and lost, times of steps, lines of code."""

import io
import statistics
import tokenize
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from rivals.jobs import Record

_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lasting(records: Sequence[Record], *, survives: bool) -> dict[int, list[Record]]:
    """The records of the steps that the final weights come from, by step.

    A training that starts again repeats the steps since its checkpoint: of each step the last attempt counts.
    survives: each process starts again on its own, so of each process's step the last time counts.
    """
    found: dict[int, dict[int, Record]] = {}
    for record in sorted(records, key=lambda record: (record.attempt, record.time)):
        step = found.setdefault(record.step, {})
        if not survives and step and next(iter(step.values())).attempt < record.attempt:
            step.clear()
        step[record.rank] = record
    return {step: list(found[step].values()) for step in sorted(found)}


def repeated_and_lost(steps: dict[int, list[Record]], images: int, window: int) -> tuple[int, int]:
    """Images that were seen too often, and too rarely, in all windows of steps that are complete.

    images: how many there are. window: steps in which each should be seen equally often, as an epoch's.
    """
    batch = sum(len(record.images) for record in steps[max(steps)])
    repeated = lost = 0
    for first in range(1, max(steps) + 2 - window, window):
        batches = [record.images for step in range(first, first + window) for record in steps.get(step, [])]
        counts = Counter(image for batch in batches for image in batch)
        expected = window * batch // images
        repeated += sum(max(0, counts[image] - expected) for image in range(images))
        lost += sum(max(0, expected - counts[image]) for image in range(images))
    return repeated, lost


def after_gap(records: Sequence[Record], killed: float) -> float:
    """When a training that goes on took its next step: the end of the longest gap after a moment.

    The step that was under way may still have been finished.
    """
    times = [killed, *sorted(record.time for record in records if record.time > killed)]
    return max(pairwise(times), key=lambda pair: pair[1] - pair[0])[1]


def step_seconds(records: Sequence[Record], warm_up: int = 5) -> list[float]:
    """Seconds of each step of an unbroken training, by the first process; without the first ones."""
    times = [record.time for record in records if record.rank == 0]
    return [after - before for before, after in zip(times[warm_up:], times[warm_up + 1 :], strict=False)]


def stalls(records: Sequence[Record], every: int) -> list[float]:
    """What each checkpoint took from the training, in steps: the time of the steps around it, less so many others.

    every: steps between checkpoints. A step's record may come before its checkpoint or after it, and writing may slow
    the steps that follow, so all of a period is counted, from the record before.
    """
    times = {record.step: record.time for record in records if record.rank == 0}
    seconds = {step: times[step] - times[step - 1] for step in times if step - 1 in times}
    usual = statistics.median(value for step, value in seconds.items() if every / 2 <= step % every < every)
    saves = range(every, max(times) - every, every)
    return [sum(seconds[step] - usual for step in range(save, save + every)) / usual for save in saves]


def wire_bytes(records: Sequence[Record], first: int, last: int, processes: int) -> float:
    """Bytes that a process has sent in a step, between two of them."""
    carried = {record.step: record.bytes for record in records if record.rank == 0}
    return (carried[last] - carried[first]) / (last - first) / processes


def lines(file: Path) -> int:
    """Lines of code or settings that the user of a rival writes: no comments, docstrings, or lines that record."""
    text = file.read_text()
    if file.suffix != ".py":
        return sum(bool(line.partition("#")[0].strip()) for line in text.splitlines())
    numbers: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NEWLINE:
            if not all(each.type == tokenize.STRING for each in statement):  # a docstring is a statement alone
                numbers.update(number for each in statement for number in range(each.start[0], each.end[0] + 1))
            statement = []
        elif token.type not in _NO_CODE:
            statement.append(token)
    source = text.splitlines()
    return sum("recorder" not in source[number - 1].lower() for number in numbers)
