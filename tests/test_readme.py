import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXPERIMENTS = {"strategies", "folds", "results", "jobs"}  # of recipes/experiments.py
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_of_plugins_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(next(block for block in blocks if "GhostVLAD" in block), {})


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_options_of_the_examples_exist():
    known = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "hparams").rglob("*.yaml"))
    for option in set(re.findall(r"--(\w+)", README)) - {"device", "nproc_per_node", *EXPERIMENTS}:
        assert re.search(rf"^{option}:", known, re.MULTILINE), option
