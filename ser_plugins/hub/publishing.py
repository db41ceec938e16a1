"""Publish a model folder on the Hugging Face Hub: check it, write its card, upload it in one commit."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, SpaceCardData, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError  # type: ignore[attr-defined]
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ser_plugins.errors import InputError
from ser_plugins.evaluation.results import METRICS, Run, read_metrics
from ser_plugins.hub.card import FIGURE, model_card
from ser_plugins.inference.onnx_model import open_graph
from ser_plugins.model_folder.checks import FILES, check_model_folder
from ser_plugins.model_folder.embedding_map import MAP
from ser_plugins.model_folder.layout import GRAPH
from ser_plugins.model_folder.lineage import LINEAGE
from ser_plugins.model_folder.reference import REFERENCE

CARD = "README.md"
CARD_LINES = 40  # that a dry run shows
LOG_IN = "make one with write access at https://huggingface.co/settings/tokens, and run hf auth login"
Files = Mapping[str, bytes | Path]


def model_files(folder: Path, repo_id: str, revision: str | None = None) -> dict[str, bytes | Path]:
    """Check a model folder and collect the files to publish.

    Parameters
    ----------
    folder : pathlib.Path
        ``model/`` or ``encoder/`` folder of a run. Its ``README.md`` is published as it is; if there is none,
        `model_card` writes one.
    repo_id : str
        USER/NAME.
    revision : str, optional
        Branch on the Hub.

    Returns
    -------
    dict
        Name of each file to its content or path.

    Raises
    ------
    InputError
        If a check fails; see `check_model_folder` and `check_graph`.
    """
    reference = check_model_folder(folder)
    check_split(folder)
    check_graph(folder)
    files: dict[str, bytes | Path] = {name: folder / name for name in FILES}
    files |= {name: folder / name for name in (MAP, LINEAGE, GRAPH) if (folder / name).is_file()}
    files[REFERENCE] = (json.dumps(reference) + "\n").encode()
    own, figure = folder / CARD, folder.resolve().parent / FIGURE
    card = own.read_bytes() if own.is_file() else None
    files[CARD] = card or model_card(folder, repo_id, len(reference["embedding"]), revision).encode()
    if figure.is_file():
        files[FIGURE] = figure
    return files


def check_split(folder: Path) -> None:
    """Raise an `InputError` if the training part of a model has utterances of its test speakers."""
    run = folder.resolve().parent
    if (run / METRICS).is_file() and Run(run, read_metrics(run)).overlaps:
        raise InputError(
            f"{folder} was trained with --split utterance, so its figures are not of unheard speakers; publish a model "
            "of --split speaker"
        )


def check_graph(folder: Path) -> None:
    """Raise an `InputError` if a folder has a ``model.onnx`` that is not its model for any speaker."""
    if not (folder / GRAPH).is_file():
        return
    if find_spec("onnxruntime") is None:
        raise InputError(f"{folder / GRAPH} cannot be checked; pip install onnxruntime, or delete it")
    if open_graph(str(folder)) is None:
        raise InputError(f"{folder / GRAPH} is of other weights or of one speaker; export it again, or delete it")


def space_files(repo_id: str, revision: str | None = None) -> dict[str, bytes | Path]:
    """Write the files of a Space that serves the page of ``ser-plugins demo`` for a model on the Hub.

    Example
    -------
    >>> sorted(space_files("user/name"))
    ['README.md', 'app.py', 'requirements.txt']
    """
    pin = "" if revision is None else f', revision="{revision}"'
    app = f"""from ser_plugins.commands.page import make_app

make_app("{repo_id}"{pin}).launch()
"""
    front = SpaceCardData(title=repo_id.split("/")[1], sdk="gradio", app_file="app.py", models=[repo_id])
    card = f"""---
{front.to_yaml()}
---

Try [{repo_id}](https://huggingface.co/{repo_id}) on a recording. Its card says what it may be used for, and what
not.
"""
    requirements = f"ser-plugins[demo]=={version('ser-plugins')}\n"
    return {name: text.encode() for name, text in ((CARD, card), ("app.py", app), ("requirements.txt", requirements))}


def listing(files: Files) -> str:
    r"""List files and their sizes, and the first lines of the card.

    Example
    -------
    >>> print(listing({"b": b"12", "README.md": b"# A\n"}))
             4  README.md
             2  b
    <BLANKLINE>
    # A
    """
    sizes = {name: len(one) if isinstance(one, bytes) else one.stat().st_size for name, one in sorted(files.items())}
    lines = [f"{size:>10,}  {name}" for name, size in sizes.items()]
    card = bytes(files[CARD]).decode().splitlines()
    more = [f"… {len(card) - CARD_LINES} more lines"] if len(card) > CARD_LINES else []
    return "\n".join([*lines, "", *card[:CARD_LINES], *more])


def check_name(repo_id: str) -> None:
    """Raise an `InputError` unless a repository's name is USER/NAME."""
    try:
        validate_repo_id(repo_id)
        valid = repo_id.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise InputError(
            f"--repo_id {repo_id} is not USER/NAME of letters, digits, -, _ and .; write one as anna/emotions"
        )


def check_token() -> None:
    """Raise an `InputError` unless there is a token of the Hub, valid or not."""
    if get_token() is None:
        raise InputError(f"publishing needs a token of the Hub; {LOG_IN}")


def push(
    files: Files, repo_id: str, private: bool = False, revision: str | None = None, space: bool = False
) -> tuple[str, bool]:
    """Upload files to a repository on the Hub in one commit, all or nothing; no commit if they are there already.

    Parameters
    ----------
    files : mapping
        Name to content.
    repo_id : str
        USER/NAME; it is created if it does not exist.
    private : bool
        Create a private repository; a public one of this name is refused.
    revision : str, optional
        Branch, created if it does not exist; by default ``main``.
    space : bool
        Upload to a Space instead of a model.

    Returns
    -------
    address : str
        Address of the commit with the files.
    changed : bool
        Whether the commit is new.

    Raises
    ------
    InputError
        If there is no token, or the Hub rejects it or does not answer.
    """
    check_token()
    kind, sdk = ("space", "gradio") if space else ("model", None)
    api = HfApi()
    with _one_line_errors(f"{kind} {repo_id}", api.endpoint):
        api.whoami()
        api.create_repo(repo_id, repo_type=kind, private=private or None, exist_ok=True, space_sdk=sdk)
        if private and not api.repo_info(repo_id, repo_type=kind).private:
            raise InputError(f"{kind} {repo_id} is public already; make it private in its settings, or drop --private")
        if revision is not None:
            api.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True)
        before = api.repo_info(repo_id, repo_type=kind, revision=revision).sha
        operations = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        message = f"Published by ser-plugins {version('ser-plugins')}"
        commit = api.create_commit(repo_id, operations, commit_message=message, repo_type=kind, revision=revision)
    return str(commit.commit_url), commit.oid != before


@contextmanager
def _one_line_errors(name: str, endpoint: str) -> Iterator[None]:
    """Turn the Hub's errors into an `InputError` of one line, which says that no file was changed."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # the error after its retries is enough
    try:
        yield
    except InputError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        # A failed upload of a file is a RuntimeError; its cause has the reason.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        raise InputError(f"{name}: {_reason(cause, endpoint)}; no file there was changed") from error


def _reason(error: BaseException, endpoint: str) -> str:
    message = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, HfHubHTTPError):
        return (
            message
            if isinstance(error, ValueError)
            else f"{endpoint} cannot be reached ({message}); run the command again"
        )
    status = error.response.status_code
    if status == 401:
        return f"the Hub does not accept the token; {LOG_IN}"
    if status == 403:
        return f"the token has no write access; give a --repo_id of your own, or {LOG_IN}"
    return f"the Hub refused ({status}, {error.server_message or message}); run the command again later"
