"""``hf://owner/repo[@revision][/subfolder]``: an adapter on a Hugging Face hub.

A revision is resolved to its commit once; every file is read from that commit. Small files and
tensors come through huggingface_hub's cache and are held against the hashes that the hub gives;
the header of a large safetensors file is read by itself. ``HF_ENDPOINT``, ``HF_TOKEN``,
``HF_HUB_CACHE`` and ``HF_HUB_OFFLINE`` mean what they mean there: offline, the cache is all there
is. A slash in a revision is written ``%2F``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from urllib.parse import unquote

from adapters_store.errors import ArtefactTooLargeError, NotFoundError, UsageError
from adapters_store.formats.source import MAX_FILES
from adapters_store.formats.sources.hub_cache import HubCache
from adapters_store.formats.sources.hub_client import HubClient, HubFile, RepoAt
from adapters_store.formats.sources.refusals import checked_name, forbidden, is_hidden
from adapters_store.limits import MIB
from adapters_store.tensor_file import PREFIX_BYTES

SMALL_BYTES = MIB
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")


def open_hub(text: str, roots: Sequence[str] | None) -> HubSource:
    """The files of a repository; roots are ``hf://owner`` or ``hf://owner/repo``."""
    repo, subfolder = _parse(text)
    if roots is not None:
        mine = [root.removeprefix("hf://").strip("/") for root in roots if root.startswith("hf://")]
        if not any(repo.id == root or repo.id.startswith(f"{root}/") for root in mine if root):
            raise forbidden(text)
    return HubSource(repo, subfolder, text)


class HubSource:
    """One commit of a repository. ``revision`` is that commit, 40 hexadecimal digits."""

    def __init__(self, repo: RepoAt, subfolder: str, location: str) -> None:
        from huggingface_hub import constants

        self._location = location
        self._prefix = f"{subfolder}/" if subfolder else ""
        self._cache = HubCache(constants.HF_HUB_CACHE, repo.id, location)
        self._client = None if constants.HF_HUB_OFFLINE else HubClient(location)
        self._repo = repo

    @property
    def location(self) -> str:
        """The address as it was given."""
        return self._location

    @cached_property
    def revision(self) -> str:
        """The commit behind the revision; asked for once."""
        return self._at.revision

    def sizes(self) -> Mapping[str, int]:
        """Every file below the subfolder, three levels deep."""
        return {name: file.size for name, file in self._files.items()}

    def read_range(self, name: str, begin: int, end: int) -> bytes:
        """The bytes ``[begin, end)`` of a file that ``sizes`` lists."""
        file = self._files.get(name)
        if file is None:
            raise NotFoundError(f"{self.location} has no file {name!r}")
        if begin >= end:
            return b""
        full_name = self._prefix + name
        path = self._cache.find(self._at.revision, full_name)
        if path is None and self._client is not None:
            is_header = begin <= PREFIX_BYTES and file.size > SMALL_BYTES
            if is_header:
                return self._client.read_range(self._at, full_name, begin, end)
            self._client.download(self._at, full_name)
            path = self._cache.find(self._at.revision, full_name)
        if path is None:
            raise NotFoundError(f"{name!r} of {self.location} is not in the cache of the hub")
        return self._cache.read_range(path, file, begin, end)

    @cached_property
    def _at(self) -> RepoAt:
        """The repository at its commit."""
        if self._client is not None:
            return self._client.resolve(self._repo)
        return RepoAt(self._repo.id, self._cache.commit_of(self._repo.revision))

    @cached_property
    def _files(self) -> dict[str, HubFile]:
        if self._client is not None:
            listed = self._client.files(self._at)
        else:
            listed = self._cache.files(self._at.revision)
        found: dict[str, HubFile] = {}
        for full_name, file in listed:
            name = full_name.removeprefix(self._prefix)
            if not full_name.startswith(self._prefix):
                continue
            if is_hidden(checked_name(name, self.location)):
                continue
            found[name] = file
            if len(found) > MAX_FILES:
                raise ArtefactTooLargeError(
                    f"{self.location} holds more than {MAX_FILES} files",
                    hint="Name the subfolder of the adapter: hf://owner/repo/subfolder.",
                )
        if not found:
            raise NotFoundError(f"no adapter at {self.location}: no files there")
        return found


def _parse(text: str) -> tuple[RepoAt, str]:
    """The repository with the revision as it was given, and the subfolder."""
    owner, _, rest = text.removeprefix("hf://").partition("/")
    repo_text, _, subfolder = rest.partition("/")
    name, at, revision = repo_text.partition("@")
    revision = unquote(revision)
    is_revision = not at or (_REVISION.fullmatch(revision) and ".." not in revision)
    if not (_SEGMENT.fullmatch(owner) and _SEGMENT.fullmatch(name) and is_revision):
        raise UsageError(
            f"source {text[:200]!r}; expected hf://owner/repo[@revision][/subfolder]",
            param="source",
        )
    subfolder = subfolder.rstrip("/")
    return RepoAt(f"{owner}/{name}", revision or "main"), (
        checked_name(subfolder, text) if subfolder else ""
    )
