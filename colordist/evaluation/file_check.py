"""Check of all photographs and answers before any is scored: readable, and of the same size."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from colordist.data import decode
from colordist.engine.runtime import Engine
from colordist.errors import RunError, UserError, printable
from colordist.evaluation.pairs import Pairs, count, few, refuse
from colordist.metrics.baselines import NO_COUNTS, ab_counts, median_of
from colordist.metrics.metric import has_color

_UNREADABLE, _SIZE = "can't be read", "of another size than the photograph"
_WAYS_OUT = {_UNREADABLE: "replace them, or take them out of both folders", _SIZE: "scale answers to the photograph"}


@dataclass(frozen=True, order=True)
class Fault:
    """Why a file can't be scored."""

    where: str
    """Option and folder."""
    kind: str
    name: str
    detail: str


def read(path: Path, device: torch.device) -> Tensor:
    """Decode an image file as everywhere in colordist: uint8 [1, 3, H, W]. Raises Undecodable."""
    with warnings.catch_warnings():  # PIL's warnings are harmless, or followed by an error
        warnings.simplefilter("ignore")
        pixels = np.array(decode.decode(path))
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).contiguous().to(device)


def read_again(path: Path, device: torch.device) -> Tensor:
    """The same for a file that was read before. Raises RunError if it can't be any more."""
    try:
        return read(path, device)
    except decode.Undecodable as error:
        why = f"{path} can't be read any more ({error.reason})"
        raise RunError(printable(f"{why}: once it can be, the same command scores the answers")) from None


def check_files(pairs: Pairs, indices: Iterable[int], engine: Engine) -> tuple[tuple[float, float], list[bool]]:
    """Read each file once, on all ranks. Returns the photographs' median a,b, and whether each has any colour.

    indices: this rank's photographs. Raises UserError for files that can't be read, answers of another size than their
    photograph, and photographs none of which has any colour.
    """
    counts, faults = NO_COUNTS.clone(), []
    colored = torch.zeros(len(pairs.names), dtype=torch.int64)
    for index in indices:
        target, found = _examine(pairs, index, engine.device)
        faults += found
        if target is not None:
            counts += ab_counts(target)
            colored[index] = has_color(target).sum().cpu()
        engine.progress()
    _refuse(sorted(fault for each in engine.gather(faults) for fault in each))
    found_colored = engine.sum(colored).bool().tolist()
    if not any(found_colored):
        line = f"no photograph in --truth {pairs.photograph_folder} has any colour, so there is nothing to score"
        raise UserError(printable(line))
    return median_of(engine.sum(counts)), found_colored


def _examine(pairs: Pairs, index: int, device: torch.device) -> tuple[Tensor | None, list[Fault]]:
    """A photograph, None if it can't be read, and what is wrong with it and with its answers."""
    name, faults = pairs.names[index], []

    def read_or_note(path: Path, where: str) -> Tensor | None:
        try:
            return read(path, device)
        except decode.Undecodable as error:
            faults.append(Fault(where, _UNREADABLE, name, error.reason))
            return None

    target = read_or_note(pairs.photographs[index], f"--truth {pairs.photograph_folder}")
    for label, files in pairs.answers.items():
        where = f"--answers {pairs.folders[label]}"
        answer = read_or_note(files[index], where)
        if answer is not None and target is not None and answer.shape != target.shape:
            (height, width), (rows, columns) = answer.shape[2:], target.shape[2:]
            faults.append(Fault(where, _SIZE, name, f"{width}x{height} instead of {columns}x{rows}"))
    return target, faults


def _refuse(faults: Sequence[Fault]) -> None:
    """Raise UserError if there are faults: one line for each kind in each folder."""
    lines = []
    for where, kind in dict.fromkeys((each.where, each.kind) for each in faults):
        alike = [each for each in faults if (each.where, each.kind) == (where, kind)]
        verb = "" if kind == _UNREADABLE else "is " if len(alike) == 1 else "are "
        names = few(f"{each.name}: {each.detail}" for each in alike)
        lines.append(f"{where}: {count(alike, 'image')} {verb}{kind} ({names}): {_WAYS_OUT[kind]}")
    refuse(lines)
