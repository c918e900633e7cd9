"""Publication of a snapshot on the Hugging Face Hub: its files, and the repository that they go to."""

from dataclasses import dataclass
from pathlib import Path

from colordist.errors import UserError
from colordist.files import hub, weights
from colordist.files.atomic import content
from colordist.files.hub import HubModel, Repository
from colordist.metrics import SPECS
from colordist.run.folder import RunFolder, step_name
from colordist.run.hub_card import hub_card
from colordist.run.score_specs import load_specs
from colordist.run.snapshot import Snapshot

CARD, PICTURE = "README.md", "samples.png"
_NEUTRAL = (".gitattributes", CARD, "LICENSE", PICTURE)
"""Files that don't make a repository another model's."""
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Publication:
    """What is uploaded."""

    model: HubModel
    """Where it goes."""
    files: dict[str, bytes | Path]
    """By name there."""
    step: int

    @property
    def card(self) -> str:
        """The model card."""
        card = self.files[CARD]
        assert isinstance(card, bytes)
        return card.decode()

    @property
    def license(self) -> str | None:
        """Licence in the card, as the Hub names it."""
        from huggingface_hub import ModelCard

        found: str | None = ModelCard(self.card).data.get("license")
        return found

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes, by file."""
        return {name: each.stat().st_size if isinstance(each, Path) else len(each) for name, each in self.files.items()}


def prepare(trained: Snapshot, model: HubModel, license: str | None = None, *, samples: bool = True) -> Publication:
    """Collect a snapshot's files, the card for the Hub and, if wanted, the run's sample grid. Without a network.

    Raises UserError for a card with damaged front matter, or a snapshot without a step.
    """
    hub.check_endpoint()
    folder, run = trained.folder, _run_of(trained.folder)
    picture = run.samples / f"{step_name(trained.step)}.png" if run and samples else None
    picture = picture if picture and picture.is_file() else None
    text = (content(folder / CARD) or f"# {model.repository}\n\nA snapshot of colordist.\n".encode()).decode(
        errors="replace"
    )
    card = hub_card(
        text,
        trained.about,
        model,
        load_specs(run) if run else SPECS,
        license=license,
        picture=PICTURE if picture else None,
    )
    files: dict[str, bytes | Path] = {name: folder / name for name in ("model.safetensors", "model.json")}
    files |= {CARD: card.encode()} | ({PICTURE: picture} if picture else {})
    return Publication(model, files, trained.step)


def publish(publication: Publication, message: str, *, public: bool, overwrite: bool) -> str:
    """Upload in one commit, to a new repository or to one that holds a snapshot already. Returns the commit's address.

    overwrite: allow a repository that holds something else. Raises UserError.
    """
    model = publication.model
    if (there := hub.repository(model)) is None:
        hub.create(model, private=not public)
        there = Repository(None, frozenset(), private=not public)
    _require_visibility(model, there, public=public)
    if not overwrite:
        _require_snapshot(model, there)
    outdated = {PICTURE} & there.files - publication.files.keys()
    return hub.commit(model, publication.files, outdated, message)


def _run_of(snapshot: Path) -> RunFolder | None:
    """The run that a snapshot's folder lies in, if it does."""
    folder = snapshot.resolve().parent
    run = RunFolder(folder.parent)
    return run if folder.name == "snapshots" and run.config_file.is_file() else None


def _require_visibility(model: HubModel, there: Repository, *, public: bool) -> None:
    """Raise UserError where a repository is public and that isn't asked for, or the other way round."""
    if public and there.private:
        raise UserError(
            f"--public: the Hub's {model.repository} is private: leave that out, or change it at "
            f"https://huggingface.co/{model.repository}/settings"
        )
    if not public and not there.private:
        raise UserError(f"the Hub's {model.repository} is public: add --public, or name another")


def _require_snapshot(model: HubModel, there: Repository) -> None:
    """Raise UserError if a repository holds something else than a snapshot."""
    others = sorted(there.files - {*_NEUTRAL})
    if not others:
        return
    if "model.json" in others:
        file = hub.download(model.at(there.commit or "main"), ["model.json"]) / "model.json"
        if weights.is_description(content(file) or b""):
            return
    names = ", ".join(others[:_NAMES_SHOWN]) + (", ..." if len(others) > _NAMES_SHOWN else "")
    raise UserError(
        f"the Hub's {model.repository} holds no snapshot but {names}: name another, or add --overwrite "
        "(its history keeps what is replaced)"
    )
