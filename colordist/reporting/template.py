"""Templates of the pages, in ``page/``. Names that users chose are escaped."""

from collections.abc import Mapping
from datetime import datetime

from jinja2 import Environment, PackageLoader

DASHES = {"solid": "none", "dashed": "5 3", "dotted": "2 3", "dashdot": "6 2 2 2"}
"""Line styles as SVG writes them."""


def environment() -> Environment:
    """Jinja environment of the templates; also of the style sheets and scripts that they include."""
    loader = PackageLoader("colordist.reporting", "page")
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def render(name: str, context: Mapping[str, object]) -> str:
    """Render a template by its file name. Its context, too: when it was made, and the dashes of line styles."""
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return environment().get_template(name).render({"made": made, "dashes": DASHES, **context})
