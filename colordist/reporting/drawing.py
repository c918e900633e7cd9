"""Bokeh charts. The page's script sets colours, axis, readout and visible runs.

A figure knows runs by their number alone (``run-0``), so no text of a user gets into its script.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from bokeh.embed import components
from bokeh.models import BasicTicker, BoxZoomTool, ColumnDataSource, DataRange1d, NumeralTickFormatter
from bokeh.models.annotations import Label, Span
from bokeh.models.nodes import Node
from bokeh.plotting import figure
from bokeh.resources import Resources
from numpy.typing import NDArray

from colordist.reporting.curves import Curve

CURVES = "curves"
"""Tag of the figures whose axis is steps or images."""

_HEIGHT = 230  # pixels
_FEW = 25  # points up to which each is marked


Dash = Literal["solid", "dashed", "dotted", "dashdot"]


@dataclass(frozen=True)
class Style:
    """Line style of a run in all charts."""

    color: int
    """Index into the page's colours, the same for all runs of a group."""
    dash: Dash


Styled = tuple[int, Style]
"""A run's number and line style."""


def library() -> str:
    """Return Bokeh's script."""
    return "\n".join(Resources(mode="inline", components=["bokeh"], log_level="warn").js_raw)


def embed(figures: Sequence[figure]) -> tuple[str, list[str]]:
    """Return the figures' script, and the HTML element of each figure."""
    script, elements = components(list(figures), wrap_script=False)
    return script, list(elements)


def step_range() -> DataRange1d:
    """Build the x axis that all curves share."""
    return DataRange1d(range_padding=0.02, only_visible=True)


def lines(
    curves: Mapping[Styled, Curve], steps: DataRange1d, *, marks: bool = False, from_zero: bool = False
) -> figure:
    """Plot curves over steps. marks: mark each point, for curves with few points."""
    shown = _empty(steps)
    shown.y_range = DataRange1d(only_visible=True, range_padding=0.08)
    if from_zero:
        shown.y_range.start = 0
    shown.xaxis.formatter = NumeralTickFormatter(format="0,0")
    shown.tags = [CURVES]
    for (number, style), curve in curves.items():
        source = ColumnDataSource({"step": curve.steps, "images": curve.images, "y": curve.values})
        shown.line("step", "y", source=source, **_look(number, style))
        if marks and len(curve.steps) <= _FEW:
            shown.scatter("step", "y", source=source, name=_name(number), size=5)
    return shown


def stairs(
    centers: NDArray[np.float64], runs: Mapping[Styled, NDArray[np.float64]], target: NDArray[np.float64], lowest: float
) -> figure:
    """Plot histograms on a logarithmic axis, the target's filled. lowest: value at which empty bins are drawn."""
    shown = _empty(DataRange1d(only_visible=True, range_padding=0), "log")
    shown.y_range = DataRange1d(only_visible=True)
    shown.yaxis.formatter = NumeralTickFormatter(format="0.[00]")
    bottom = np.full(len(centers), lowest)
    shown.varea_step(x=centers, y1=bottom, y2=np.maximum(target, lowest), step_mode="center", name="target")
    for (number, style), shares in runs.items():
        source = ColumnDataSource({"x": centers, "y": np.maximum(shares, lowest)})
        shown.step("x", "y", source=source, mode="center", **_look(number, style))
    return shown


def mark(shown: figure, label: str, score: float, side: Literal["left", "right"], *, below: bool) -> None:
    """Draw a horizontal line across a figure, with its label at one side, below or above it."""
    shown.hspan(y=[score], name="reference", line_width=1, line_dash=[2, 3])
    offset = 6 if side == "left" else -6
    place = Node(target="frame", symbol=side, offset=offset)
    look: dict[str, Any] = {"text_font_size": "11px", "text_baseline": "top" if below else "bottom", "text_align": side}
    shown.add_layout(Label(x=place, y=score, text=label, name="label", **look))


def _look(number: int, style: Style) -> dict[str, Any]:
    return {"name": _name(number), "line_dash": style.dash, "line_join": "round", "line_width": 1.8}


def _name(number: int) -> str:
    return f"run-{number}"


def _empty(x_range: DataRange1d, y_axis_type: Literal["linear", "log"] = "linear") -> figure:
    shown = figure(
        height=_HEIGHT,
        sizing_mode="stretch_width",
        x_range=x_range,
        y_axis_type=y_axis_type,
        toolbar_location=None,
        tools=[BoxZoomTool(dimensions="width")],
        min_border_left=44,
        min_border_right=14,
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
    )
    shown.xgrid.grid_line_color = None
    shown.xaxis.ticker = BasicTicker(desired_num_ticks=5)
    if y_axis_type == "linear":
        shown.yaxis.ticker = shown.ygrid.ticker = BasicTicker(desired_num_ticks=5)
    for axis in (shown.xaxis, shown.yaxis):
        axis.minor_tick_line_color = None
        axis.axis_line_color = None
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
    shown.add_layout(Span(dimension="height", name="cursor", visible=False, line_alpha=0.6))
    return shown
