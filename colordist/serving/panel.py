"""The page's panel of colour hints: a photo to click on, fields for the keyboard, and a table. Imports Gradio."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from colordist.serving.points import Row, full_size, hex_color, marked
from colordist.serving.service import Picture

_EXPLANATION = (
    "<h2>Colour hints</h2>"
    "<p>Once a photograph is coloured, click on a point of it, or enter its place in pixels. <b>Colour</b> applies the "
    "points.</p>"
)
Points = dict[str, list[Row]]
"""Rows of each photo's table, by its path."""


@dataclass
class Results:
    """Of the last request of a visitor."""

    folder: Path
    pictures: list[Picture]

    def picture(self, index: int | None) -> Picture | None:
        """The picture that is shown: None in the list of one means the first."""
        index = index or 0
        return self.pictures[index] if 0 <= index < len(self.pictures) else None


@dataclass
class Panel:
    """Components of the panel, and the points of all photos of a visitor."""

    photo: gr.Image
    color: gr.ColorPicker
    x: gr.Number
    y: gr.Number
    add: gr.Button
    table: gr.Dataframe
    last: gr.Button
    all: gr.Button
    points: gr.State

    @property
    def changing(self) -> list[Any]:
        """Components that change with the photo that is shown."""
        return [self.photo, self.table]


def build(used: bool) -> Panel:
    """Build the panel. used: else it is no part of the page."""
    with gr.Column(visible=used):
        gr.HTML(_EXPLANATION)
        photo = gr.Image(
            label="Photograph with its points", interactive=False, buttons=[], type="filepath", elem_id="hint_photo"
        )
        with gr.Row():
            color = gr.ColorPicker("#2e6da4", label="Colour of the point", elem_id="hint_color")
            x = gr.Number(0, label="x, from the left", minimum=0, min_width=100, elem_id="hint_x")
            y = gr.Number(0, label="y, from the top", minimum=0, min_width=100, elem_id="hint_y")
        add = gr.Button("Add point", elem_id="hint_add")
        table = gr.Dataframe(
            headers=["x", "y", "colour"],
            datatype=["number", "number", "str"],
            column_count=3,
            row_count=0,
            type="array",
            interactive=True,
            buttons=[],
            label="Points of this photograph",
            elem_id="hint_table",
        )
        with gr.Row():
            last = gr.Button("Remove the last point", elem_id="hint_last")
            every = gr.Button("Remove all points", elem_id="hint_all")
    return Panel(photo, color, x, y, add, table, last, every, gr.State({}))


def shown(panel: Panel, picture: Picture, points: Mapping[str, Sequence[Row]]) -> dict[Any, Any]:
    """The panel with a photo and its points."""
    rows = [list(row) for row in points.get(str(picture.photo), [])]
    return {panel.photo: str(marked(picture, rows)), panel.table: rows}


def connect(panel: Panel, index: gr.Dropdown, results: gr.State) -> None:
    """Say what happens when points are added, changed or removed. index, results: which photo is shown."""

    def changed(rows: list[Row], found: Results | None, number: int | None, points: Points) -> dict[Any, Any]:
        if not (found and (picture := found.picture(number))):
            return {}
        points = points | {str(picture.photo): rows}
        return {panel.points: points, **shown(panel, picture, points)}

    def clicked(
        rows: list[Row], found: Results | None, number: int | None, points: Points, color: str, event: gr.SelectData
    ) -> dict[Any, Any]:
        if not (found and (picture := found.picture(number))):
            return {}
        x, y = full_size(picture, *event.index)
        return changed([*rows, [x, y, hex_color(color)]], found, number, points)

    def added(
        rows: list[Row], found: Results | None, number: int | None, points: Points, color: str, x: float, y: float
    ) -> dict[Any, Any]:
        return changed([*rows, [x or 0, y or 0, hex_color(color)]], found, number, points)

    state = [panel.table, results, index, panel.points]
    for listen, function, inputs in (
        (panel.photo.select, clicked, [*state, panel.color]),
        (panel.add.click, added, [*state, panel.color, panel.x, panel.y]),
        (panel.last.click, lambda rows, *rest: changed(rows[:-1], *rest), state),
        (panel.all.click, lambda rows, *rest: changed([], *rest), state),
        (panel.table.input, changed, state),
    ):
        listen(
            function,
            inputs,
            [*panel.changing, panel.points],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
