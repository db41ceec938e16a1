"""What the recipes share."""

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ser_plugins.training.recipe import start

HPARAMS = Path(__file__).parents[2] / "hparams"

FAULTS = """
import resource, torch
from ser_plugins.memory import keep_memory
assert not {keep} or keep_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for size in range(40):
    torch.ones(1_000_000 * (40 - size)).add_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_used_again():
    def faults(keep):
        code = FAULTS.format(keep=keep)
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    # Pages of the first and largest tensor, and not of all that follow.
    pages = 40 * 4_000_000 // resource.getpagesize()
    assert faults(True) < 1.2 * pages < 5 * pages < faults(False)


@pytest.mark.slow
def test_the_recipes_do_not_say_that_they_cannot_save_figures():
    code = "import ser_plugins.training.recipe"
    assert not subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr


def test_an_interrupted_recipe_says_how_to_resume(monkeypatch):
    def interrupted(recipe):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["train.py", str(HPARAMS / "s1.yaml")])
    with pytest.raises(SystemExit, match=r"^interrupted; the same command resumes$"):
        start(interrupted)
