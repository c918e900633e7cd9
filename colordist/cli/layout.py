"""jsonargparse's parser, with the layout of our help and of ``--print_config``."""

from typing import Any

_USAGE = "%(prog)s [--config FILE] [--section.key VALUE ...] [--import MODULE] [--help]"


def new_parser(
    verb: str, description: str, usage: str = _USAGE, epilog: str | None = None, *, documented: bool = True
) -> Any:  # noqa: ANN401
    """Build an argument parser for a verb. documented: whether to read the settings' docstrings, for help."""
    from argparse import RawDescriptionHelpFormatter

    from jsonargparse import ArgumentParser, set_parsing_settings
    from jsonargparse._formatters import DefaultHelpFormatter

    class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
        """Keeps the line breaks of the epilog."""

    class Parser(ArgumentParser):
        """Leaves a verb's options out of ``--print_config``: the output is a file of settings, for any verb."""

        def dump(self, cfg: Any, *arguments: Any, **options: Any) -> str:  # noqa: ANN401  as overridden
            """Settings as YAML."""
            cfg = cfg.clone()
            for name, value in vars(cfg).copy().items():
                if isinstance(value, bool) or (name == "import" and value is None):
                    del cfg[name]
            return str(super().dump(cfg, *arguments, **options))

    set_parsing_settings(docstring_parse_attribute_docstrings=documented)
    parser = Parser(
        prog=f"colordist {verb}",
        description=description,
        usage=usage,
        epilog=epilog,
        formatter_class=Formatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    return parser
