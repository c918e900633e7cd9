"""Export a snapshot as ONNX: ``python -m colordist.export MODEL --onnx FILE``."""

from collections.abc import Sequence
from pathlib import Path

from colordist.cli import IMPORT_HELP, MODEL_HELP, STEPS_HELP, ArgumentParser, model, path, run
from colordist.console import say
from colordist.files.atomic import require_own, require_writable, writing_to
from colordist.files.paths import output_folder
from colordist.registry import load_modules


def main() -> None:
    """Parse, build, run, close."""
    parser = ArgumentParser(
        prog="colordist export",
        description="Export a run's latest snapshot as ONNX, verified with onnxruntime.",
        epilog="Input `grey`: [batch, 1, height, width] in [0, 1]; of a flow also `noise`: standard normal, of the "
        "shape of `color`. Output `color`: Lab a,b, or sRGB in [0, 1].",
    )
    parser.add_argument("model", metavar="MODEL", type=model, help=MODEL_HELP)
    parser.add_argument("--onnx", metavar="FILE", type=path, required=True, help="Output file.")
    parser.add_argument("--solver_steps", type=int, metavar="N", help=STEPS_HELP)
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE", help=IMPORT_HELP)

    def verb() -> None:
        options = parser.parse_args()
        export(options.model, options.onnx, options.modules, options.solver_steps)

    run(verb)


def export(folder: Path, file: Path, modules: Sequence[str] = (), solver_steps: int | None = None) -> None:
    """Load the snapshot, export it, print the difference to torch."""
    from colordist.inference import onnx_file
    from colordist.run import snapshot

    load_modules(modules)
    found = snapshot.find(folder)
    require_own(file, "--onnx", "network", lambda data: onnx_file.MARK in data)
    require_writable(file, "--onnx")
    trained = snapshot.read(found)
    with writing_to(file, "name another file", "--onnx"), output_folder(file.parent):
        difference = onnx_file.write(file, trained)
    say(f"{file}: step {trained.step}; onnxruntime and torch differ by {difference:.1e} of the largest output")


if __name__ == "__main__":
    main()
