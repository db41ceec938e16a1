"""What a run records of the code that it runs."""

import re
import subprocess
from pathlib import Path

from ser_plugins.training.run import commit


def test_the_commit_is_that_of_the_checkout(monkeypatch):
    words = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    head = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    found = commit.__wrapped__()
    assert (found or "").removesuffix("-dirty") == head and (
        found is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", found)
    )
    monkeypatch.setenv("PATH", "")
    assert commit.__wrapped__() is None


def test_a_package_outside_of_a_repository_has_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "no repository"))
    assert commit.__wrapped__() is None
