"""Putting files on the Hugging Face hub, in one commit, and nothing by surprise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from plusx.errors import HubUnreachable, PlusxError, UsageError, WeightsError
from plusx.weights.hub import TIMEOUT_S, is_unreachable, quiet, status_of


@dataclass(frozen=True)
class Remote:
    """A repository as it is: its commit on that branch, and each file's hash.

    Attributes:
        exists: whether it is there (and may be seen).
        branch: whether the branch is.
        private: whether only its owner sees it.
        commit: the branch's newest; None without one.
        files: path -> SHA-256 of a large file, git's SHA-1 of a small one.
    """

    exists: bool
    branch: bool = True
    private: bool = False
    commit: str | None = None
    files: dict[str, str] = field(default_factory=dict)


def look(repo: str, revision: str | None) -> Remote:
    """What is in ``repo`` now.

    Raises:
        UsageError: ``repo`` is no USER/NAME.
        HubUnreachable: the hub cannot be reached.
        WeightsError: it refuses to tell.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    with _translated(repo):
        if repo.count("/") != 1:
            raise UsageError(f"{repo!r} is not a name on the hub; write it as USER/NAME")
        api = HfApi()
        try:
            found = api.model_info(repo, revision=revision, timeout=TIMEOUT_S, files_metadata=True)
        except RevisionNotFoundError:
            whole = api.model_info(repo, timeout=TIMEOUT_S)
            return Remote(exists=True, branch=False, private=bool(whole.private))
        except RepositoryNotFoundError:
            return Remote(exists=False, branch=revision is None)
    files = {}
    for file in found.siblings or []:
        files[file.rfilename] = str(file.lfs.sha256 if file.lfs else file.blob_id)
    return Remote(True, private=bool(found.private), commit=found.sha, files=files)


def check_login() -> None:
    """Whether the hub library has a token: its own login, or HF_TOKEN.

    Raises:
        UsageError: it has none.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise UsageError(
            "not logged in to the hub: run hf auth login, or set HF_TOKEN to a token that may write"
        )


def send(
    repo: str,
    files: Mapping[str, Path | bytes],
    remote: Remote,
    *,
    private: bool,
    revision: str | None,
    message: str,
) -> str:
    """Make the repository and branch where they are missing, and commit the files.

    A commit that someone else made since ``remote`` was looked at is not overwritten: the hub then
    refuses this one.

    Args:
        repo: USER/NAME.
        files: path in the repository -> file, or content.
        remote: what ``look`` found.
        private: of a new repository.
        revision: branch; None for main.
        message: of the commit.

    Returns:
        The commit's URL.

    Raises:
        HubUnreachable: the hub cannot be reached.
        WeightsError: it refuses, or the upload broke off; nothing was committed.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    with _translated(repo):
        api = HfApi()
        if not remote.exists:
            api.create_repo(repo, private=private)
        if not remote.branch and revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        done = api.create_commit(
            repo,
            [CommitOperationAdd(path, content) for path, content in files.items()],
            commit_message=message,
            revision=revision,
            parent_commit=remote.commit,
        )
    return str(done.commit_url)


@contextmanager
def _translated(repo: str) -> Iterator[None]:
    """The hub library's errors as plusx's, one line each."""
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    try:
        with quiet():
            yield
    except PlusxError:
        raise
    except HFValidationError as error:
        raise UsageError(f"{repo!r} is not a name on the hub; write it as USER/NAME") from error
    except Exception as error:  # httpx, requests and hf_xet share no base class
        if is_unreachable(error):
            from huggingface_hub import constants

            why = f"{constants.ENDPOINT} cannot be reached"
            if isinstance(error, OfflineModeIsEnabled):
                why = "HF_HUB_OFFLINE is set"
            elif status := status_of(error):
                why = f"{constants.ENDPOINT} is out of order (status {status})"
            raise HubUnreachable(f"{repo}: {why}; nothing was committed: try again") from error
        raise WeightsError(f"{repo}: {_why(error)}") from error


def _why(error: Exception) -> str:
    status = status_of(error)
    if status == 401:
        return "the hub does not accept the token (status 401); log in again: hf auth login"
    if status == 403:
        return (
            "the token may not write there (status 403); take a token with write access, or your "
            "own USER/NAME"
        )
    if status == 404:
        return "the hub has no such repository or branch (status 404); check the name"
    if status in (409, 412):
        return (
            f"it was changed by someone else meanwhile (status {status}); nothing was committed: "
            "look, and push again"
        )
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"the upload broke off ({first}); nothing was committed: push again"
