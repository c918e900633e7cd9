"""Upload a snapshot to the Hugging Face Hub: ``python -m colordist.push RUN user/name``."""

import argparse

from colordist.cli import IMPORT_HELP, ArgumentParser, path, run
from colordist.console import say
from colordist.errors import UserError
from colordist.registry import load_modules


def main() -> None:
    """Parse, build, run, close."""
    parser = ArgumentParser(
        prog="colordist push",
        description="Upload a run's newest snapshot to the Hugging Face Hub, with a model card, in one commit. The "
        "repository is created where it is missing, and is private.",
        epilog="A token that may write: `hf auth login`, or HF_TOKEN.",
    )
    parser.add_argument("run", metavar="RUN", type=path, help="Run folder or snapshot folder.")
    parser.add_argument("name", metavar="user/name[@branch]", help="Model on the Hub. Default branch: main.")
    parser.add_argument("--public", action="store_true", help="Everybody may see it.")
    parser.add_argument("--license", metavar="ID", help="Licence of the weights, as apache-2.0. Default: the card's.")
    parser.add_argument("--message", metavar="TEXT", help="Commit message.")
    parser.add_argument("--no_samples", action="store_true", help="Leave out the sample grid: it shows test images.")
    parser.add_argument("--overwrite", action="store_true", help="Even if the repository holds no snapshot.")
    parser.add_argument("--dry_run", action="store_true", help="Print files, sizes and card; no network.")
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE", help=IMPORT_HELP)
    run(lambda: push(parser.parse_args()))


def push(options: argparse.Namespace) -> None:
    """Check the snapshot, collect its files, upload them or print what would be."""
    from colordist.files.hub import HubModel
    from colordist.run import publication, snapshot

    load_modules(options.modules)
    if (model := HubModel.parse(options.name)) is None:
        raise UserError(f"{options.name!r} is no name on the Hub: give user/name")
    if (folder := snapshot.find_local(options.run)) is None:
        raise UserError(f"{options.run} is neither a run nor a snapshot: give the folder of one")
    found = publication.prepare(snapshot.read(folder), model, options.license, samples=not options.no_samples)
    visibility = "public" if options.public else "private"
    if found.license is None:
        say("no licence: --license ID names one, as apache-2.0", error=True)
    if options.dry_run:
        say(f"{model}, {visibility}: step {found.step} of {options.run}, one commit")
        say(*(f"  {name:<18}{size:>14,} bytes" for name, size in found.sizes.items()))
        say(f"\n{found.card}")
        return
    message = options.message or f"Upload step {found.step}"
    address = publication.publish(found, message, public=options.public, overwrite=options.overwrite)
    say(f"{address}: step {found.step}, {visibility}\ncolordist colorize {model} PHOTOS -o OUT")


if __name__ == "__main__":
    main()
