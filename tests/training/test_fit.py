"""What a run tells of the code that it ran."""

import re

from ser_plugins.training.fit import commit


def test_commit_is_told_where_git_knows_it_and_nothing_elsewhere(monkeypatch):
    known = commit.__wrapped__()
    assert known is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", known)
    monkeypatch.setenv("PATH", "")
    assert commit.__wrapped__() is None
    assert commit() == commit()


def test_a_copy_of_the_package_in_a_checkout_of_something_else_has_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "no repository"))
    assert commit.__wrapped__() is None
