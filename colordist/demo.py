"""A page in the browser that colourizes photographs: ``python -m colordist.demo MODEL``."""

import argparse
import gc
import tempfile
from pathlib import Path

from colordist.cli import IMPORT_HELP, MODEL_HELP, STEPS_HELP, ArgumentParser, model, run
from colordist.colorize import SATURATION_HELP, UPSAMPLE_HELP
from colordist.console import say
from colordist.ranges import at_least
from colordist.registry import load_modules

_HOST_HELP = "Address to listen at. Default: 127.0.0.1, for this machine alone. There is no password."
_PORT_HELP = "Port to listen at; 0: any free one. Default: 7860, or the next free one."


def main() -> None:
    """Serve a page on which photographs are colourized. Ctrl-C ends it, and removes all files of its visitors."""
    parser = ArgumentParser(prog="colordist demo", description=main.__doc__)
    parser.add_argument("model", metavar="MODEL", type=model, help=MODEL_HELP)
    parser.add_argument("--resolution", type=int, help="Shorter side of the network's input. Default: as trained.")
    parser.add_argument("--upsample", choices=("guided", "bilinear"), default="guided", help=UPSAMPLE_HELP)
    parser.add_argument("--saturation", type=float, default=1.0, metavar="X", help=SATURATION_HELP)
    parser.add_argument("--solver_steps", type=int, metavar="N", help=STEPS_HELP)
    parser.add_argument("--host", default="127.0.0.1", help=_HOST_HELP)
    parser.add_argument("--port", type=int, help=_PORT_HELP)
    parser.add_argument("--max_megabytes", type=int, default=50, metavar="N", help="Size of a file. Default: 50.")
    parser.add_argument("--max_files", type=int, default=20, metavar="N", help="Files of a request. Default: 20.")
    parser.add_argument("--queue", type=int, default=16, metavar="N", help="Requests that may wait. Default: 16.")
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE", help=IMPORT_HELP)
    run(lambda: demo(parser.parse_args()))


def demo(options: argparse.Namespace) -> None:
    """Load the model, print the address and serve until Ctrl-C or SIGTERM."""
    at_least("--port", options.port, 0, 65535)
    at_least("--max_megabytes", options.max_megabytes, 1, 10_000)
    at_least("--max_files", options.max_files, 1, 1000)
    at_least("--queue", options.queue, 1, 10_000)
    load_modules(options.modules)
    from colordist.serving import server

    server.require_gradio()
    from colordist.inference.colorizer import load
    from colordist.serving.address import is_local, listen, url
    from colordist.serving.service import Limits, Service

    colorizer = load(options.model, options.resolution, options.upsample, options.solver_steps, options.saturation)
    listener = listen(options.host, options.port)
    with listener, tempfile.TemporaryDirectory(prefix="colordist-demo-", ignore_cleanup_errors=True) as folder:
        server.prepare(Path(folder))
        from colordist.serving import page

        service = Service(colorizer, Path(folder, "results"), Limits(options.max_megabytes, options.max_files))
        blocks = page.build(service, options.model.name, options.queue)
        reach = "" if is_local(listener) else " (and whoever reaches this machine)"
        say(f"serving {options.model} at {url(listener)}{reach}: Ctrl-C ends it")
        server.serve(blocks, listener, page.look(), options.max_megabytes)
        service.close()
    gc.freeze()  # else the interpreter searches all of torch and Gradio for garbage once more, which takes seconds


if __name__ == "__main__":
    main()
