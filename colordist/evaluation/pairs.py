"""Photographs and the answers of programs to them: two folders or more, matched by file name."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from colordist.data import decode
from colordist.errors import UserError, printable

log = logging.getLogger("colordist")

_FEW = 3  # names in a line


@dataclass(frozen=True)
class Pairs:
    """Photographs, and the answer of each program to each of them."""

    photograph_folder: Path
    folders: dict[str, Path]
    """Of the programs, by name: that of the folder, or its path where several have the same."""
    names: list[str]
    """Of the photographs: path below the folder without suffix, sorted."""
    photographs: list[Path]
    answers: dict[str, list[Path]]
    """Files of each program, in the order of ``names``."""


def find_pairs(photographs: Path, folders: Sequence[Path]) -> Pairs:
    """Find the answer in each folder to each of the ``photographs``: the same path without suffix, or the same stem.

    By the stem alone only where that is unique among the photographs and among the answers. Answers to no photograph
    are named in a warning. Raises UserError for photographs without an answer, and for what can't be matched.
    """
    places = [each.resolve() for each in (photographs, *folders)]
    for folder, place in zip(folders, places[1:], strict=True):
        if places.count(place) > 1:
            raise UserError(f"--answers {folder} is named twice, or is the folder of --truth: name each folder once")
    labels = _labels(folders)
    photos = _images(photographs, "--truth", places)
    answers: dict[str, list[Path]] = {}
    mistakes = []
    for label, folder in labels.items():
        found = _images(folder, "--answers", places)
        matches = _match([*photos], found, folder)
        if extra := found.keys() - set(matches.values()):
            log.warning(
                "colordist: --answers %s has %s without a photograph in --truth, not scored: %s",
                *(folder, count(extra, "image"), few(extra)),
            )
        if missing := [name for name in photos if name not in matches]:
            mistakes.append(
                f"--answers {folder} has no answer to {len(missing)} of {len(photos)} photographs ({few(missing)}): "
                "colour them, too, or take them out of --truth"
            )
        answers[label] = [found[matches[name]] for name in photos if name in matches]
    refuse(mistakes)
    return Pairs(photographs, labels, [*photos], [*photos.values()], answers)


def refuse(mistakes: Sequence[str]) -> None:
    """Raise UserError for the last of some mistakes, after a line for each of the others."""
    for line in mistakes[:-1]:
        log.warning("colordist: %s", printable(line))
    if mistakes:
        raise UserError(printable(mistakes[-1]))


def few(names: Iterable[str]) -> str:
    """The first names in alphabetical order, and an ellipsis if there are more."""
    ordered = sorted(names)
    return printable(", ".join([*ordered[:_FEW], *(["..."] if len(ordered) > _FEW else [])]))


def count(items: Sequence[object] | set[str], noun: str) -> str:
    """A number and its noun, in the plural unless there is one."""
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _labels(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by their name; by their whole path where several have the same name."""
    names = [printable(Path(os.path.abspath(each)).name) for each in folders]
    labels: dict[str, Path] = {}
    for name, folder in zip(names, folders, strict=True):
        label = name if names.count(name) == 1 else printable(str(folder))
        if label in labels:  # their paths differ in characters that can't be printed
            raise UserError(f"two folders of --answers would both be shown as {label}: rename one")
        labels[label] = folder
    return labels


def _images(folder: Path, option: str, others: Sequence[Path]) -> dict[str, Path]:
    """Image files below a folder by their path in it without suffix, sorted; without those of other folders in it."""
    if not folder.is_dir():
        raise UserError(f"{option} {folder} is no folder: name the one with the images")
    place = folder.resolve()
    inner = [each for each in others if each != place and each.is_relative_to(place)]
    found: dict[str, Path] = {}
    for path in decode.image_files(folder):
        if any(path.parent.resolve().is_relative_to(each) for each in inner):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            one, other = found[name].name, path.name
            raise UserError(printable(f"{option} {folder} has two images named {name}, {one} and {other}: keep one"))
        found[name] = path
    if not found:
        raise UserError(f"no image in {option} {folder}: name the folder with the images")
    return dict(sorted(found.items()))


def _match(photos: Sequence[str], answers: dict[str, Path], folder: Path) -> dict[str, str]:
    """The answer to each photograph that has one, both by name. Raises UserError for stems that aren't unique."""
    found = {name: name for name in photos if name in answers}
    of_photos, of_answers = (Counter(map(_stem, names)) for names in (photos, answers))
    by_stem = {_stem(name): name for name in answers if name not in found}
    rest = {name: by_stem[_stem(name)] for name in photos if name not in found and _stem(name) in by_stem}
    if unclear := [name for name in rest if max(of_photos[_stem(name)], of_answers[_stem(name)]) > 1]:
        raise UserError(
            f"--answers {folder}: {count(unclear, 'photograph')} can't be told from others by the file name alone "
            f"({few(unclear)}): keep the folders of --truth in --answers"
        )
    return found | rest


def _stem(name: str) -> str:
    return PurePosixPath(name).name
