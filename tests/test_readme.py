"""README and the pages of docs/: links lead somewhere, commands are understood, and code runs."""

import configparser
import importlib
import importlib.util
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.classifiers import EncoderClassifier

from ser_plugins import configuration
from ser_plugins.commands import COMMANDS, main
from ser_plugins.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
HISTORY = {"ablations.md", "results.md"}  # their commands belong to older commits
MODELS = {"S3/ravdess": "s3", "S5/synthetic": "s5", "S6/ravdess": "s6", "S8/ravdess": "s8"}
WIDE = "wide.yaml"  # of the page on recipes


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text(page), re.DOTALL)


def commands(start: str) -> list[list[str]]:
    """Words of all commands of the pages that start so, without comments; continued lines are joined."""
    lines = [
        line.strip()
        for page in PAGES
        if page.name not in HISTORY
        for line in re.sub(r" \\\n\s*", " ", text(page)).splitlines()
        if line.startswith("    ")
    ]
    found = dict.fromkeys(line for line in lines if re.match(rf"(?:\S+ .* \| )?{start}\b", line))
    words = [shlex.split(re.sub(r"^.*\| ", "", line), comments=True) for line in found]
    assert words, f"no page has a command {start}"
    return words


def joined(words: object) -> str:
    return " ".join(words) if isinstance(words, list) else ""


def links(page: Path) -> list[str]:
    return re.findall(r"\]\((?!https?:|path:)([^)#]+)(?:#[^)]*)?\)", text(page))


def recipe(name: str):
    """Import a script of recipes/."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", ROOT / "recipes" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory, write_model, clips):
    """A folder with the models and recordings that the pages name."""
    folder = tmp_path_factory.mktemp("files")
    for run, strategy in MODELS.items():
        write_model(folder / "results" / run / "1" / "fold1" / "model", strategy)
    shutil.copytree(folder / "results/S3/ravdess/1/fold1/model", folder / "encoder")
    for name in ("utterance.wav", "interview.wav", "more/one.wav", "ann/1.wav", "ann/2.wav"):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, 0.1 * torch.randn(8000).numpy(), 16000)
    shutil.copytree(clips, folder / "clips")
    return folder


@pytest.fixture
def place(files, monkeypatch):
    """The folder, as the current one."""
    monkeypatch.chdir(files)


@pytest.mark.parametrize(("page", "target"), [(page, target) for page in PAGES for target in links(page)])
def test_links_lead_somewhere(page, target):
    assert (page.parent / target).exists()


@pytest.mark.parametrize(
    "name", ["README.md", "docs/index.md", "docs/recipes.md", "docs/inference.md", "docs/publishing.md"]
)
def test_python_code_runs(name, place):
    code = blocks(ROOT / name, "python")
    assert code
    names: dict[str, object] = {}
    for block in code:
        exec(block, names)


def test_models_are_loaded_one_after_the_other(place):
    call = next(line for line in text(ROOT / "docs/recipes.md").splitlines() if "from_hparams(source=" in line)
    first, second = "results/S5/synthetic/1/fold1/model", "results/S3/ravdess/1/fold1/model"
    models = []
    for source in (first, second):
        names = {"EncoderClassifier": EncoderClassifier}
        exec(call.replace(first, source), names)
        models.append(names["model"])
    kinds = [type(model.mods.classifier).__name__ for model in models]
    assert kinds == ["SVMClassifier", "SoftmaxClassifier"]


def test_the_yaml_of_the_readme_builds_an_encoder():
    (block,) = blocks(README, "yaml")
    built = load_hyperpyyaml(block)
    feats = built["mean_var_norm"](built["compute_features"](torch.randn(2, 8000)), torch.ones(2))
    assert built["embedding_model"].eval()(feats).shape == (2, 1, 512)


def test_the_strategy_of_the_recipes_is_composed(tmp_path):
    own, *_ = blocks(ROOT / "docs/recipes.md", "yaml")
    (tmp_path / WIDE).write_text(own)
    tree = configuration.compose(tmp_path / WIDE, "ravdess")
    assert (tree["strategy"], tree["alpha"], tree["beta"]) == ("WIDE", 0.2, 0.15)
    assert configuration.build(tree)["embedding_model"].backbone.output_size == 256


@pytest.mark.parametrize("block", blocks(ROOT / "docs/recipes.md", "yaml")[1:])
def test_lines_of_yaml_in_the_recipes_replace_those_of_a_strategy(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a logger makes its folder
    (key,) = re.findall(r"^(\w+):", block, re.MULTILINE)
    strategy = "pretrain" if key == "classifier" else "s5"
    if key == "classifier":
        block += "    input_size: !ref <embedding_size>\n    n_classes: !ref <n_classes>\n"
    (tmp_path / "own.yaml").write_text(f"extends: {strategy}.yaml\nstrategy: OWN\n{block}")
    corpus = "speakers" if strategy == "pretrain" else "synthetic"
    assert type(configuration.build(configuration.compose(tmp_path / "own.yaml", corpus))[key]).__name__ in block


@pytest.mark.parametrize("words", commands("python recipes/(?:train|pretrain).py"), ids=joined)
def test_trainings_are_understood(words, tmp_path, monkeypatch):
    for line in text(ROOT / "docs/plugins.md"), text(ROOT / "docs/recipes.md"):
        for block in re.findall(r"```yaml\n(.*?)```", line, re.DOTALL):
            if named := re.search(r"^strategy: (DEVIATION|WIDE)$", block, re.MULTILINE):
                (tmp_path / f"{named[1].lower()}.yaml").write_text(block)
            elif "my_plugins.Underscores" in block:
                (tmp_path / "corpora").mkdir()
                (tmp_path / "corpora" / "underscores.yaml").write_text(block)
    plugins = re.findall(r"```python\n(.*?)```", text(ROOT / "docs/plugins.md"), re.DOTALL)
    (tmp_path / "my_plugins.py").write_text("\n".join(plugins))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_plugins", raising=False)
    script, *rest = words[words.index("python") + 1 :]
    known = Recipe.from_arguments(rest)
    assert ("n_folds" in known.tree) == (script == "recipes/train.py")


@pytest.mark.parametrize("words", commands("python recipes/experiments.py"), ids=joined)
def test_experiments_are_understood(words):
    given, options = recipe("experiments").parse(words[2:])
    if hasattr(given, "strategies"):
        for strategy in given.strategies.split(","):
            Recipe.from_arguments([strategy, *options])
    else:
        assert not options


@pytest.mark.parametrize("words", commands("python recipes/(?:publish|convert).py"), ids=joined)
def test_other_recipes_are_understood(words, monkeypatch):
    name = Path(words[1]).stem
    module, given = recipe(name), []
    if name == "publish":
        monkeypatch.setattr(module, "run", given.append)
    else:
        monkeypatch.setattr(module, f"convert_{words[2]}", lambda *files: given.append(files) or True)
    monkeypatch.setattr(sys, "argv", words[1:])
    module.main()
    assert given


@pytest.mark.parametrize("words", commands("ser-plugins"), ids=joined)
def test_commands_are_understood(words, monkeypatch):
    assert words[1] in COMMANDS
    given = []
    monkeypatch.setattr(importlib.import_module(f"ser_plugins.commands.{words[1]}"), "run", given.append)
    main(words[1:])
    assert given


@pytest.mark.parametrize("words", commands("make"), ids=joined)
def test_make_has_the_targets(words):
    assert re.search(rf"^{words[1]}:", text(ROOT / "Makefile"), re.MULTILINE)


def test_extras_exist():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = {extra for page in PAGES for extra in re.findall(r'pip install ".*?\[(\w+)\]"', text(page))}
    assert named and named <= set(config["options.extras_require"])


@pytest.mark.parametrize("words", commands("python benchmarks/run.py"), ids=joined)
def test_benchmarks_exist(words):
    names = [word for word in words[2:] if not word.startswith("-")]
    options = [i for i, word in enumerate(words[2:]) if word.startswith("--")]
    values = {words[2:][i + 1] for i in options}
    assert all((ROOT / "benchmarks" / "speed" / f"{name}.py").is_file() for name in set(names) - values)
