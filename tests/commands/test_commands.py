"""The command line as a whole."""

import subprocess
import sys

import pytest

from ser_plugins.commands import COMMANDS, main


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_text(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"ser-plugins {name}" in capsys.readouterr().out


def test_wrong_input_is_one_line(tmp_path):
    """As the user sees it."""
    words = [sys.executable, "-m", "ser_plugins", "report", str(tmp_path / "nothing")]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.startswith("error: ") and len(found.stderr.splitlines()) == 1
