"""Which checkpoint a user means: a folder, a model card's id, or a repository of the Hugging Face Hub.

What is not here yet is got by `hub`; a repository without a card gets one made up for the purpose.
This module knows where a checkpoint lies and what it is called, not what is in it.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from medlocal.catalog import HubSource, ModelCard, model_cards
from medlocal.errors import MissingError, UsageError, unknown_name
from medlocal.files import Progress
from medlocal.hub import HubClient, PulledModel, pull_model, pulled_model
from medlocal.settings import Settings

_FILES = ("*.safetensors", "*.json", "tokenizer*", "*.jinja", "*.md")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SNAPSHOT = re.compile(r"models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{40})")
"""Where huggingface_hub's own cache keeps a repository at a commit."""


@dataclass(frozen=True, slots=True)
class CheckpointSource:
    """A checkpoint on this machine."""

    folder: Path
    name: str
    """What the model is called where nothing in the folder says so."""
    label: str
    """Where it comes from: a repository's id, or the folder's name."""
    revision: str = ""
    """The repository's commit; "" = not known."""
    card: ModelCard | None = None
    """None = it has no card."""


def find_checkpoint(
    text: str, settings: Settings, progress: Progress, client: HubClient | None = None
) -> CheckpointSource:
    """Find what a user's word means, and get it where it is not here.

    Args:
        text: a folder, the id of a model card, or "owner/name".
        settings: the folders, and whether the network may be used.
        progress: told what is being fetched.
        client: the Hub; None = the real one.

    Raises:
        UsageError: it means nothing, or the model's card names a GGUF.
        MissingError: it is not here and cannot be got.
        RefusedError: what came is not what the Hub says it is.
    """
    folder = Path(text).expanduser()
    if folder.is_dir():
        return _local(folder)
    cards = model_cards()
    card = cards.get(text) or next((c for c in cards.values() if _is_of(c, text)), None)
    if card is not None:
        return _described(card, pull_model(card, settings, progress, client))
    if folder.exists():
        raise UsageError(f"{folder} is a file", hint="name the folder that config.json lies in")
    if _REPOSITORY.fullmatch(text):
        card = _made_up(text)
        pulled = _pull_uncarded(card, settings, progress, client)
        return CheckpointSource(pulled.path, _last(text), text, pulled.revision)
    if os.sep in text:
        raise MissingError(f"there is no folder {folder}", hint="check the path")
    raise unknown_name("model (and no folder)", text, cards)


def _local(folder: Path) -> CheckpointSource:
    # Not resolved: a link is named by whoever made it, what it leads to may be a cache's.
    folder = Path(os.path.abspath(folder))
    if found := _SNAPSHOT.search(folder.as_posix()):
        owner, name, commit = found.groups()
        return CheckpointSource(folder, name, f"{owner}/{name}", commit)
    return CheckpointSource(folder, folder.name, folder.name)


def _is_of(card: ModelCard, repo: str) -> bool:
    """Whether a card's files are a repository's, whatever else it is known by."""
    return isinstance(card.source, HubSource) and card.source.repo.lower() == repo.lower()


def _described(card: ModelCard, pulled: PulledModel) -> CheckpointSource:
    if not pulled.path.is_dir():
        raise UsageError(
            f"{card.id} is a GGUF already: {pulled.path}",
            hint=f"medlocal quantize {pulled.path} TYPE makes other types of it",
        )
    repo = card.source.repo if isinstance(card.source, HubSource) else card.repo or card.id
    return CheckpointSource(pulled.path, _last(repo), repo, pulled.revision, card)


def _made_up(repo: str) -> ModelCard:
    return ModelCard(
        id=repo.replace("/", "--"),
        name=_last(repo),
        repo=repo,
        base="",
        role="general",
        languages=(),
        licence="unknown",
        licence_read="",
        source=HubSource(repo, "", _FILES),
    )


def _pull_uncarded(
    card: ModelCard, settings: Settings, progress: Progress, client: HubClient | None
) -> PulledModel:
    if settings.offline and pulled_model(card, settings) is None:
        raise MissingError(
            f"offline, and {card.repo} is not on this machine: neither a folder"
            f" {Path(card.repo).absolute()} nor a repository that was got before",
            hint="get its folder where there is a network, copy it here, and name the folder",
        )
    try:
        pulled = pull_model(card, settings, progress, client)
    except MissingError as error:
        # The hint names a command for cards, and this one is made up.
        hint = (error.hint or "").replace(f"medlocal models pull {card.id}", "do the same again")
        # "a/b" can be a path too, and a mistyped one comes here.
        no_folder = f"where a folder is meant: there is no {Path(card.repo).absolute()}"
        hint = "; ".join(filter(None, [hint, no_folder]))
        raise MissingError(error.message, hint=hint) from error
    if not pulled.path.is_dir():
        raise UsageError(f"{card.repo} holds a GGUF already: {pulled.path}")
    return pulled


def _last(repo: str) -> str:
    return repo.rsplit("/", 1)[-1]
