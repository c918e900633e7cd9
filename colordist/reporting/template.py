"""Templates of the pages, in ``page/``. Names that users chose are escaped."""

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader


def environment() -> Environment:
    """Jinja environment of the templates; also of the style sheets and scripts that they include."""
    loader = PackageLoader("colordist.reporting", "page")
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def render(name: str, context: Mapping[str, object]) -> str:
    """Render a template by its file name."""
    return environment().get_template(name).render(context)
