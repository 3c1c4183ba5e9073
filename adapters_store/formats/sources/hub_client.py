"""The calls that a hub source makes, through huggingface_hub; its failures become typed errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from adapters_store.errors import (
    ForbiddenError,
    InvalidArtefactError,
    NotFoundError,
    UnavailableError,
)

COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class RepoAt:
    """A repository ``owner/repo`` at a branch, tag or commit."""

    id: str
    revision: str


@dataclass(frozen=True, slots=True)
class HubFile:
    """What is known of a file: its size in bytes, and a hash of its content where the hub gives it.

    ``sha256`` is of the bytes (large files), ``git_sha1`` of git's blob (others).
    """

    size: int
    sha256: str | None = None
    git_sha1: str | None = None


class HubClient:
    """Reads one hub. ``location`` names the source in messages."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._listed: dict[RepoAt, list[tuple[str, HubFile]]] = {}

    def resolve(self, repo: RepoAt) -> RepoAt:
        """The repository at the commit of its revision; its files are listed by the same call."""
        from huggingface_hub import HfApi

        with self._typed():
            info = HfApi().model_info(
                repo.id, revision=repo.revision, files_metadata=True, timeout=_TIMEOUT_S
            )
        commit = info.sha or ""
        if not COMMIT.fullmatch(commit):
            raise UnavailableError(f"the hub gives no commit for {self._location}")
        found = RepoAt(repo.id, commit)
        files = []
        for one in info.siblings or ():
            sha256 = None if one.lfs is None else one.lfs.sha256
            size = one.size if one.size is not None else -1
            files.append((one.rfilename, HubFile(size, sha256, None if sha256 else one.blob_id)))
        self._listed[found] = files
        return found

    def files(self, at: RepoAt) -> list[tuple[str, HubFile]]:
        """Every file of a commit that ``resolve`` gave."""
        for name, file in self._listed[at]:
            if file.size < 0:
                raise UnavailableError(f"the hub gives no size for {name!r} of {self._location}")
        return self._listed[at]

    def read_range(self, at: RepoAt, name: str, begin: int, end: int) -> bytes:
        """A byte range over HTTP; raises InvalidArtefactError for an answer of another length."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        url = hf_hub_url(at.id, name, revision=at.revision)
        headers = build_hf_headers() | {
            "range": f"bytes={begin}-{end - 1}",
            "accept-encoding": "identity",
        }
        data = b""
        with (
            self._typed(),
            get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as answer,
        ):
            hf_raise_for_status(answer)
            skipped = begin if answer.status_code == 200 else 0
            for chunk in answer.iter_raw(64 * 1024):
                data += chunk
                if len(data) >= skipped + end - begin:
                    break
        data = data[skipped : skipped + end - begin]
        if len(data) != end - begin:
            raise InvalidArtefactError(
                f"{name!r} of {self._location} gave {len(data)} bytes; expected {end - begin}"
            )
        return data

    def download(self, at: RepoAt, name: str) -> None:
        """Bring a file into the cache of the hub."""
        from huggingface_hub import hf_hub_download
        from tqdm.auto import tqdm

        class Silent(tqdm):  # type: ignore[misc]
            """No bar: a library does not talk."""

            def __init__(self, *args: object, **options: object) -> None:
                super().__init__(*args, **{**options, "disable": True})

        with self._typed():
            hf_hub_download(at.id, name, revision=at.revision, tqdm_class=Silent)

    @contextmanager
    def _typed(self) -> Iterator[None]:
        from huggingface_hub import errors

        try:
            yield
        except errors.GatedRepoError as error:
            raise ForbiddenError(
                f"{self._location} is gated", hint="Set HF_TOKEN to a token with access to it."
            ) from error
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
            raise NotFoundError(
                f"{self._location} does not exist on the hub, or is private",
                hint="Check owner, name and revision; HF_TOKEN opens private repositories.",
            ) from error
        except errors.RemoteEntryNotFoundError as error:
            raise NotFoundError(f"a file of {self._location} is gone from the hub") from error
        except (errors.HTTPError, errors.HFValidationError, OSError) as error:
            words = (str(error).splitlines() or [type(error).__name__])[0]
            raise UnavailableError(
                f"cannot read {self._location}: {words[:300]}",
                hint="Check the network and HF_ENDPOINT, or set HF_HUB_OFFLINE to use the cache.",
            ) from error
