"""The page: its controls, and what happens when they are used. Imports Gradio."""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from colordist.errors import RunError, UserError, one_line
from colordist.inference.colorizer import MOST_SATURATION
from colordist.inference.hints import Hint
from colordist.inference.upsampling import METHODS
from colordist.serving import panel
from colordist.serving.panel import Panel, Points, Results
from colordist.serving.points import Row, hints_of
from colordist.serving.service import (
    FORMATS,
    LIFETIME,
    MOST_RESOLUTION,
    Choices,
    Picture,
    Service,
    Upload,
    pack,
    safe_name,
)

_FILES = Path(__file__).parent / "assets"
_SWEEP = 600  # seconds between two removals of old uploads
_FONTS = ["system-ui", "sans-serif"]
_INTRODUCTION = (
    "<h1>Colour photographs</h1><p>The network <b>{}</b> guesses the colours of a photograph from its grey values. "
    "They needn't be the true ones.</p>"
)


@dataclass
class Parts:
    """Components of the page that events refer to."""

    photos: gr.File
    settings: list[Any]
    """In the order of the fields of ``Choices``."""
    start: gr.Button
    status: gr.HTML
    shown: gr.Dropdown
    slider: gr.ImageSlider
    divider: gr.Slider
    download: gr.DownloadButton
    download_all: gr.DownloadButton
    results: gr.State
    panel: Panel
    takes_hints: bool

    @property
    def shown_with_a_result(self) -> list[Any]:
        """Components that change with the result that is shown."""
        return [self.slider, self.divider, self.download, *self.panel.changing]


def build(service: Service, model: str, queue: int) -> gr.Blocks:
    """Build the page of a model. queue: number of requests that may wait."""
    takes = service.colorizer.takes_hints
    with gr.Blocks(title=f"colordist: {model}", analytics_enabled=False, delete_cache=(_SWEEP, LIFETIME)) as page:
        gr.HTML(_INTRODUCTION.format(html.escape(model)))
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                photos = _photos(service)
                settings = _settings(service)
                start = gr.Button("Colour", variant="primary", elem_id="start")
            with gr.Column(scale=2, min_width=300):
                results = _results()
                parts = Parts(photos, settings, start, **results, panel=panel.build(takes), takes_hints=takes)
        _connect(service, parts)
    page.queue(max_size=queue, default_concurrency_limit=1)
    return page


def look() -> dict[str, Any]:
    """Theme with the system's fonts, style sheet and script."""
    theme = gr.themes.Default(primary_hue="blue", font=_FONTS, font_mono=["ui-monospace", "monospace"])
    subdued = ("block_info_text_color", "block_title_text_color", "block_label_text_color", "body_text_color_subdued")
    filled = ("button_primary_background_fill", "button_primary_background_fill_dark")
    theme.set(**dict.fromkeys(subdued, "*neutral_600"), **dict.fromkeys(filled, "*primary_600"))  # for contrast
    return {"theme": theme, "css_paths": [_FILES / "page.css"], "head_paths": [_FILES / "head.html"]}


def _photos(service: Service) -> gr.File:
    """Component for uploads, which hands them on as ``Upload``, with the names that their owner gave them."""
    limits = service.limits
    label = f"Photographs (up to {limits.files} of {limits.megabytes} MB)"
    photos = gr.File(label=label, file_count="multiple", height=160, elem_id="photos")
    uploaded, cached = Path(photos.GRADIO_CACHE).resolve(), photos.async_move_resource_to_block_cache

    def uploads(payload: Any) -> list[Upload]:  # noqa: ANN401  a ListFiles of Gradio
        return [Upload(Path(each.path), safe_name(each.orig_name or Path(each.path).name)) for each in payload or ()]

    async def only_uploaded(path: str | Path | None) -> str | None:
        if not Path(str(path)).resolve().is_relative_to(uploaded):
            raise gr.Error("Only uploaded files are coloured.", print_exception=False)
        moved: str | None = await cached(path)
        return moved

    # Not a class of our own: Gradio writes a file beside each module that has one.
    photos.preprocess, photos.async_move_resource_to_block_cache = uploads, only_uploaded
    return photos


def _settings(service: Service) -> list[Any]:
    """Controls of ``Choices``, in its order."""
    colorizer = service.colorizer
    saturation = gr.Slider(0, MOST_SATURATION, colorizer.saturation, step=0.05, label="Saturation", render=False)
    resolution = gr.Number(
        colorizer.resolution,
        label="Resolution",
        info="Shorter side of the network's input, in pixels.",
        precision=0,
        minimum=2 * colorizer.multiple,
        maximum=max(MOST_RESOLUTION, colorizer.resolution),
        render=False,
    )
    upsample = gr.Radio([*METHODS], value=colorizer.upsample, label="Upsampling of the colours", render=False)
    form = gr.Radio(list(FORMATS), value=FORMATS[0], label="Format of the download", render=False)
    several = service.most_variants > 1
    variants = gr.Slider(
        1, max(service.most_variants, 2), 1, step=1, label="Answers per photograph", visible=several, render=False
    )
    seed = gr.Number(0, label="Seed", precision=0, visible=colorizer.variants is None, render=False)
    saturation.render()
    variants.render()
    with gr.Accordion("More settings", open=False):
        for each in (seed, resolution, upsample, form):
            each.render()
    return [resolution, upsample, saturation, form, variants, seed]


def _results() -> dict[str, Any]:
    """Components that show results, by their name in ``Parts``."""
    found: dict[str, Any] = {"results": gr.State(None)}
    found["status"] = gr.HTML(_status(), elem_id="status")
    found["shown"] = gr.Dropdown([], label="Result shown", visible="hidden", filterable=False, elem_id="shown")
    found["slider"] = gr.ImageSlider(
        label="Before and after", interactive=False, buttons=["fullscreen"], max_height=640, elem_id="slider"
    )
    found["divider"] = gr.Slider(
        0, 100, 50, step=1, label="Divider (percent)", visible="hidden", elem_id="divider", buttons=[]
    )
    with gr.Row():
        found["download"] = gr.DownloadButton("Download", visible="hidden", elem_id="download")
        found["download_all"] = gr.DownloadButton("Download all (zip)", visible="hidden", elem_id="download_all")
    return found


def _connect(service: Service, parts: Parts) -> None:
    """Say what happens when the controls are used."""

    def color(
        uploads: list[Upload],
        results: Results | None,
        index: int | None,
        points: Points,
        rows: list[Row],
        resolution: int | None,
        upsample: str,
        saturation: float,
        form: str,
        variants: int,
        seed: int,
    ) -> Iterator[dict[Any, Any]]:
        choices = Choices(resolution, upsample, saturation, form, variants, seed or 0)
        if results and (picture := results.picture(index)):
            points = points | {str(picture.photo): rows}  # also what was typed a moment ago
        yield from _color(service, parts, uploads, results, index, points, choices)

    def show(index: int, results: Results | None, points: Points) -> dict[Any, Any]:
        picture = results and results.picture(index)
        return _shown(parts, picture, points) if picture else {}

    gr.on(
        [parts.photos.upload, parts.start.click],
        color,
        [parts.photos, parts.results, parts.shown, parts.panel.points, parts.panel.table, *parts.settings],
        [parts.status, parts.shown, parts.download_all, parts.results, parts.panel.points, *parts.shown_with_a_result],
        show_progress_on=[parts.slider],
        api_visibility="private",
        concurrency_limit=1,
    )
    parts.divider.input(
        lambda position: gr.ImageSlider(slider_position=position),
        parts.divider,
        parts.slider,
        queue=False,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
    parts.shown.input(
        show,
        [parts.shown, parts.results, parts.panel.points],
        parts.shown_with_a_result,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    panel.connect(parts.panel, parts.shown, parts.results)


def _color(
    service: Service,
    parts: Parts,
    uploads: Sequence[Upload],
    before: Results | None,
    index: int | None,
    points: Points,
    choices: Choices,
) -> Iterator[dict[Any, Any]]:
    """Colourize uploads, and update the page after each.

    Every update is complete: of several in short succession a browser may show the last alone.
    """
    if not uploads:
        yield {parts.status: _status("Choose a photograph first.")}
        return
    results, total = Results(service.new_request(before.folder if before else None), []), len(uploads)
    problems: list[str] = []
    colored = 0
    page = _emptied(parts, results, _status(f"Colouring {uploads[0].name}", progress=(0, total)))
    page[parts.panel.points] = points
    yield page
    try:
        hints = {each.file: _hints(each, points) for each in uploads} if parts.takes_hints else {}
        for number, outcome in enumerate(service.color(uploads, choices, results.folder, hints), 1):
            line = f"{outcome.name}: {outcome.problem}" if outcome.problem else f"{outcome.name} is coloured."
            problems += [line] if outcome.problem else []
            colored += not outcome.problem
            first = outcome.pictures and not results.pictures
            results.pictures += outcome.pictures
            page[parts.status] = _status(line, progress=(number, total))
            page |= _shown(parts, results.pictures[0], points) if first else {}
            yield page
    except (UserError, RunError) as error:
        problems.append(one_line(error, 300))
    summary = f"{colored} of {total} photographs {'is' if colored == 1 else 'are'} coloured."
    yield page | {parts.status: _status(*problems, summary)} | _listed(parts, results, index or 0, points)


def _hints(upload: Upload, points: Points) -> tuple[Hint, ...]:
    """Hints of a photo. Raises UserError, with its name, for a row of its table that is no point."""
    try:
        return hints_of(points.get(str(upload.file), []))
    except UserError as error:
        raise UserError(f"{upload.name}, {error}") from None


def _emptied(parts: Parts, results: Results, status: str) -> dict[Any, Any]:
    """The page at the start of a request."""
    return {
        parts.status: status,
        parts.shown: gr.Dropdown(choices=[], value=None, visible="hidden"),
        parts.slider: None,
        parts.divider: gr.Slider(visible="hidden"),
        parts.download: gr.DownloadButton(value=None, visible="hidden"),
        parts.download_all: gr.DownloadButton(value=None, visible="hidden"),
        parts.results: results,
    }


def _shown(parts: Parts, picture: Picture, points: Points) -> dict[Any, Any]:
    """The page with one of the results."""
    hints = panel.shown(parts.panel, picture, points) if parts.takes_hints else {}
    return hints | {
        parts.slider: (str(picture.before), str(picture.after)),
        parts.divider: gr.Slider(visible=True),
        parts.download: gr.DownloadButton(f"Download {picture.file.name}", value=str(picture.file), visible=True),
    }


def _listed(parts: Parts, results: Results, index: int, points: Points) -> dict[Any, Any]:
    """The page at the end of a request: a list of several results, and all of them in a file.

    index: of the result that was shown before.
    """
    pictures = results.pictures
    if len(pictures) < 2:
        return {}
    index = index if index < len(pictures) else 0
    names = [(picture.file.name, index) for index, picture in enumerate(pictures)]
    packed = pack(pictures, results.folder / "previews" / "coloured.zip")
    return _shown(parts, pictures[index], points) | {
        parts.shown: gr.Dropdown(choices=names, value=index, visible=True),
        parts.download_all: gr.DownloadButton(value=str(packed), visible=True),
    }


def _status(*lines: str, progress: tuple[int, int] | None = None) -> str:
    """Lines for the live region. progress: how many of how many photographs are done."""
    texts = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    if progress is None:
        return texts
    done, total = progress
    return f'{texts}<label>{done} of {total} done <progress max="{total}" value="{done}"></progress></label>'
