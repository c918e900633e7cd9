"""The Hugging Face Hub: names of its models, downloads of named files, uploads in one commit; errors as one line.

huggingface_hub is imported when the Hub is used, not before.
"""

import os
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tqdm import tqdm

from colordist.errors import UserError, one_line
from colordist.files.download import quiet

_NAME = re.compile(r"([A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)
_LOGIN = "`hf auth login`, or HF_TOKEN"
_LENGTH = 160  # of a reason, in characters


@dataclass(frozen=True)
class HubModel:
    """A model of the Hub: ``user/name`` or ``user/name@revision``."""

    repository: str
    """``user/name``."""
    revision: str | None = None
    """Branch, tag or commit. Default: the branch main."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse a name; None for text that is none."""
        match = _NAME.fullmatch(text)
        return cls(match[1], match[2]) if match and ".." not in text else None

    def at(self, commit: str) -> Self:
        """The same model at a commit."""
        return type(self)(self.repository, commit)

    def __str__(self) -> str:
        return self.repository + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Repository:
    """What a repository of the Hub holds."""

    commit: str | None
    """None for a new one."""
    files: frozenset[str]
    private: bool


def download(model: HubModel, names: Collection[str], *, progress: bool = False) -> Path:
    """Fetch files of these names into the Hub's cache, unless they are there. Nothing else is fetched.

    Returns their folder, which is named after the commit; files that the model doesn't have are missing there. Without
    a network, or with HF_HUB_OFFLINE, a model in the cache will do. progress: show bars, on a terminal. Raises
    UserError, which begins with "the Hub".
    """
    check_endpoint()
    from huggingface_hub import snapshot_download

    with _failing(model, "fetched"), quiet("huggingface_hub"):
        found = snapshot_download(
            model.repository, revision=model.revision, allow_patterns=[*names], tqdm_class=_bar(progress)
        )
    return Path(found)


def repository(model: HubModel) -> Repository | None:
    """What a repository holds, at the model's revision if it has that, else at the branch main; None without one.

    Raises UserError without a token, or if the Hub can't be asked.
    """
    check_endpoint()
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    with _failing(model, "written to"):
        _require_token()
        try:
            try:
                info = HfApi().model_info(model.repository, revision=model.revision)
            except RevisionNotFoundError:
                info = HfApi().model_info(model.repository)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return None
    return Repository(info.sha, frozenset(each.rfilename for each in info.siblings or ()), bool(info.private))


def create(model: HubModel, *, private: bool) -> None:
    """Create a model's repository. Raises UserError."""
    from huggingface_hub import HfApi

    with _failing(model, "created"):
        HfApi().create_repo(model.repository, private=private, exist_ok=True)


def commit(model: HubModel, files: Mapping[str, bytes | Path], removed: Collection[str], message: str) -> str:
    """Upload files, by their name there, and remove others, in one commit: before it, none of them can be seen.

    model: its revision is a branch, which is created where it is missing. Files that the repository has already aren't
    sent again. Returns the commit's address. Raises UserError.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    with _failing(model, "written to"), _quiet_in_logs():
        if model.revision is not None:
            HfApi().create_branch(model.repository, branch=model.revision, exist_ok=True)
        added = [CommitOperationAdd(name, content) for name, content in files.items()]
        done = HfApi().create_commit(
            model.repository,
            [*added, *map(CommitOperationDelete, removed)],
            commit_message=message,
            revision=model.revision,
        )
    return str(done.commit_url)


def dataset_commit(name: str, revision: str) -> str | None:
    """The commit of a branch or tag of a dataset. Raises what huggingface_hub does where the Hub can't be asked."""
    from huggingface_hub import HfApi

    return HfApi().dataset_info(name, revision=revision).sha


def check_endpoint() -> None:
    """Raise UserError if HF_ENDPOINT is no address: huggingface_hub can't be imported then."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        parts = urlsplit(endpoint)
        valid = not endpoint or (parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0)
    except ValueError:
        valid = False
    if not valid:
        raise UserError(
            "HF_ENDPOINT is no address like https://huggingface.co: unset it, or correct it"
        )  # may hold a password


@contextmanager
def _quiet_in_logs() -> Iterator[None]:
    """Context without the Hub's warnings, and with its progress bars on terminals only."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    with quiet("huggingface_hub"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if sys.stderr.isatty() or are_progress_bars_disabled():
            yield
            return
        disable_progress_bars()
        try:
            yield
        finally:
            enable_progress_bars()


def _bar(shown: bool) -> type:
    """A class of progress bars that are shown on terminals only, or not at all; the Hub's own are shown in logs."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled

    disable = None if shown and not are_progress_bars_disabled() else True

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  tqdm's
            super().__init__(*arguments, **options | {"disable": disable, "leave": False})

    return Bar


def _require_token() -> None:
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError(f"the Hub needs a token that may write: {_LOGIN} (https://huggingface.co/settings/tokens)")


@contextmanager
def _failing(model: HubModel, how: str) -> Iterator[None]:
    """Translate whatever goes wrong into a UserError of one line. how: "can't be HOW"."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of several HTTP clients, of the Hub, of the file system
        raise UserError(_told(error, model, how)) from None


def _told(error: Exception, model: HubModel, how: str) -> str:
    """What went wrong and the way out, in one line that begins with "the Hub"."""
    from huggingface_hub import constants, errors

    chain = [*_causes(error)]
    answer = next((each for each in chain if isinstance(each, errors.HfHubHTTPError)), None)
    status = getattr(answer.response, "status_code", None) if answer is not None else None
    if isinstance(answer, errors.GatedRepoError):
        return (
            f"the Hub gates {model}: accept its conditions at https://huggingface.co/{model.repository}, then {_LOGIN}"
        )
    if isinstance(answer, errors.RevisionNotFoundError):
        return f"the Hub's {model.repository} has no revision {model.revision}: name a branch, a tag or a commit"
    if isinstance(answer, errors.RepositoryNotFoundError):
        return (
            f"the Hub shows no model {model.repository}: correct the name, or, if it is private, give a token, {_LOGIN}"
        )
    if isinstance(error, errors.HFValidationError):
        return f"the Hub takes no name like {model.repository} ({_reason(error)}): name another"
    if status == 400:
        return f"the Hub refuses it ({_reason(error)}): correct what it names"
    reason = _reason(getattr(answer, "server_message", None) or chain[-1])
    if status == 401:
        return f"the Hub refuses the token ({reason}): renew it, {_LOGIN} (https://huggingface.co/settings/tokens)"
    if status == 403:
        return (
            f"the Hub denies it: {model.repository} can't be {how} ({reason}): use a token that may, {_LOGIN} "
            "(https://huggingface.co/settings/tokens), or another name"
        )
    if constants.HF_HUB_OFFLINE:
        lacking = " and the cache lacks it" if how == "fetched" else ""
        return f"the Hub's {model} can't be {how}, as HF_HUB_OFFLINE is set{lacking}: unset that once"
    return f"the Hub's {model} can't be {how} now ({reason}): the same command tries again, and complete files are kept"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it, the first cause last."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _reason(error: object) -> str:
    """An error's message in one line, without tokens."""
    return one_line(_without_token(str(error) or type(error).__name__), _LENGTH)


def _without_token(text: str) -> str:
    from huggingface_hub import get_token

    try:
        token = get_token()
    except Exception:  # the reason may be the token itself
        token = None
    return text.replace(token, "***") if token else text
