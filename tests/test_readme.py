"""README and the pages of docs/: examples that run, links that lead somewhere, options that exist."""

import re
from pathlib import Path

import pytest

from ser_plugins.commands import main

ROOT = Path(__file__).parents[1]
EXPERIMENTS = {"strategies", "folds", "results", "jobs"}  # of recipes/experiments.py
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def links(page: Path) -> list[str]:
    return re.findall(r"\]\((?!https?:|path:)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))


def test_the_example_of_plugins_runs():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(next(block for block in blocks if "GhostVLAD" in block), {})


@pytest.mark.parametrize(("page", "target"), [(page, target) for page in PAGES for target in links(page)])
def test_links_lead_somewhere(page, target):
    assert (page.parent / target).exists()


@pytest.mark.parametrize("name", ["README.md", "docs/corpora.md", "docs/recipes.md", "docs/reproducibility.md"])
def test_options_of_the_recipes_exist(name):
    known = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "hparams").rglob("*.yaml"))
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if "ser-plugins " not in line and "publish.py" not in line)
    for option in set(re.findall(r"--(\w+)", text)) - {"device", "nproc_per_node", "overrides", *EXPERIMENTS}:
        assert re.search(rf"^{option}:", known, re.MULTILINE), option


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_of_the_commands_exist(page, capsys):
    for command, rest in re.findall(
        r"^    (?:.*\| )?ser-plugins (\w+)(.*)", page.read_text(encoding="utf-8"), re.MULTILINE
    ):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        known = capsys.readouterr().out
        for option in re.findall(r"--\w+", rest):
            assert re.search(rf"{option}\b", known), f"{command} {option}"
