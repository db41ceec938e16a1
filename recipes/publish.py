#!/usr/bin/env python3
"""Publish a model on the Hugging Face Hub: python recipes/publish.py MODEL_FOLDER --repo_id USER/NAME [--dry_run]."""

import argparse
import logging
import sys
from pathlib import Path

from ser_plugins.errors import InputError
from ser_plugins.files import atomic_write
from ser_plugins.hub.publishing import CARD, check_name, check_token, listing, model_files, push, space_files


def main() -> None:
    parser = argparse.ArgumentParser(description="Publish a model folder on the Hugging Face Hub.", allow_abbrev=False)
    parser.add_argument("folder", type=Path, metavar="MODEL_FOLDER", help="model/ or encoder/ of a run")
    parser.add_argument("--repo_id", required=True, metavar="USER/NAME", help="repository, created if missing")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--revision", metavar="BRANCH", help="branch, created if missing (default: main)")
    parser.add_argument("--dry_run", action="store_true", help="check and list the files without using the network")
    parser.add_argument("--card", type=Path, metavar="FILE", help="with --dry_run: where to write the whole card")
    parser.add_argument("--space", action="store_true", help="also publish a Space that shows the model")
    given = parser.parse_args()
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("ser_plugins").setLevel(logging.INFO)
    try:
        run(given)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted; a commit is made last and whole, so run the same command again")


def run(given: argparse.Namespace) -> None:
    check_name(given.repo_id)
    if given.card is not None and not given.dry_run:
        raise InputError("--card writes a file here; give --dry_run as well")
    if not given.dry_run:
        check_token()
    repositories = [("model", model_files(given.folder, given.repo_id, given.revision))]
    if given.space:
        repositories.append(("space", space_files(given.repo_id, given.revision)))
    for kind, files in repositories:
        if given.dry_run:
            print(f"{kind} {given.repo_id}, {given.revision or 'main'}:\n{listing(files)}\n")
            continue
        # A Space has one branch that it shows; which one of the model's, its app.py says.
        revision = None if kind == "space" else given.revision
        address, changed = push(files, given.repo_id, given.private, revision, space=kind == "space")
        print(f"{kind} {given.repo_id} {'published' if changed else 'is up to date'}: {address}")
    if given.card is not None:
        card = repositories[0][1][CARD]
        atomic_write(given.card, card.decode() if isinstance(card, bytes) else card.read_text(encoding="utf-8"))
        print(f"card: {given.card}")
    if given.dry_run:
        print("This was a dry run: nothing was published.")


if __name__ == "__main__":
    main()
