"""Layers of YAML merged, written, resolved and built."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ser_plugins import GhostVLAD, configuration
from ser_plugins.errors import InputError

NETWORK = """\
clusters: 3
size: 4
rows: [1, !ref <size>]
pooling: !new:ser_plugins.GhostVLAD
    input_size: !ref <size>
    clusters: !ref <clusters>
    ghost_clusters: 0
optimizer: !name:torch.optim.Adam
    lr: 1e-3
"""


@pytest.fixture
def write(tmp_path):
    def file(name, text):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return file


def test_a_file_changes_the_file_it_extends(write):
    write("base.yaml", "a: 1\nb: {c: 2, d: 3}\ne: !ref <a>")
    write("middle.yaml", "extends: base.yaml\nstrategy: middle\na: 10")
    tree = configuration.read(write("top.yaml", "extends: middle.yaml\nb: {c: 20}"))
    assert list(tree) == ["a", "b", "e", "strategy"]
    assert configuration.build(tree) == {"a": 10, "b": {"c": 20}, "e": 10, "strategy": "middle"}


def test_an_empty_file_has_no_keys(write):
    assert configuration.read(write("empty.yaml", "# nothing\n")) == {}


@pytest.mark.parametrize(("typo", "nearest"), [("ghost_cluster", "ghost_clusters"), ("lr_decay", "lr_decay_epochs")])
def test_a_typo_is_an_error_that_names_the_nearest_key(write, typo, nearest):
    write("base.yaml", "lr: 1\nlr_decay_epochs: 20\nclusters: 8\nghost_clusters: 2")
    with pytest.raises(InputError, match=rf"own\.yaml: unknown key '{typo}'; did you mean {nearest}"):
        configuration.read(write("own.yaml", f"extends: base.yaml\nstrategy: own\n{typo}: 3"))


def test_a_strategy_adds_a_key_that_it_refers_to(write):
    write("base.yaml", "a: 1")
    tree = configuration.read(write("own.yaml", "extends: base.yaml\nstrategy: own\nmargin: 2\na: !ref <margin>"))
    assert configuration.build(tree)["a"] == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "extends: a.yaml"}, "a.yaml extends a.yaml, which extends it in turn"),
        ({"a": "extends: b.yaml", "b": "extends: a.yaml"}, "which extends it in turn"),
        ({"a": "extends: [b, c]"}, r"a.yaml: extends takes the name of one YAML file, not \['b', 'c'\]"),
        ({"a": "include: b.yaml"}, "a.yaml: 'include' is no longer read; write extends"),
        ({"a": "extends: none.yaml"}, r"cannot read none.yaml \(no such file\); give a YAML file or a preset: .*s5"),
    ],
)
def test_wrong_extends_is_one_line(write, files, message):
    paths = [write(f"{name}.yaml", text) for name, text in files.items()]
    with pytest.raises(InputError, match=message):
        configuration.read(paths[0])


def test_each_layer_is_over_the_one_before(write, tmp_path):
    """Base, corpus, strategy, command line."""
    write("base.yaml", "a: base\nb: base\nc: base\nd: base\ncorpus: one")
    write("middle.yaml", "extends: base.yaml\nd: base of a base")
    (tmp_path / "corpora").mkdir()
    write("corpora/one.yaml", "b: corpus\nc: corpus\nd: corpus\nreader: null")
    own = write("own.yaml", "extends: middle.yaml\nstrategy: own\nc: strategy\nd: strategy")
    tree = configuration.compose(own, None, {"d": "command line"})
    assert [tree[key] for key in "abcd"] == ["base", "corpus", "strategy", "command line"]
    with pytest.raises(InputError, match="command line: unknown key 'z'; known keys: a, b"):
        configuration.compose(own, None, {"z": 1})
    with pytest.raises(InputError, match=r"unknown corpus 'two'; the corpora are .*one"):
        configuration.compose(own, "two")


def test_a_strategy_of_ones_own_is_over_the_built_in_corpus(write, monkeypatch, tmp_path):
    own = write("my.yaml", "extends: s5.yaml\nstrategy: my\nnumber_of_epochs: 50")
    monkeypatch.chdir(tmp_path)
    tree = configuration.compose("my.yaml", "synthetic")
    assert (tree["number_of_epochs"], tree["crop_seconds"]) == (50, 1.0)
    assert configuration.compose("s5", "synthetic")["number_of_epochs"] == 12
    assert configuration.find_preset("my") != own and configuration.find_preset("my").resolve() == own


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "not valid YAML"),
        ("a: 1\na: 2", 'not valid YAML.*duplicate key "a"'),
        ("a: 1\n\tb: 2", "not valid YAML"),
        ("- 1\n- 2", "holds no keys"),
        ("just words", "holds no keys"),
        ("7", "holds no keys"),
        (b"a: \xff\xfe", "not UTF-8"),
    ],
)
def test_what_is_no_yaml_of_keys_is_refused_in_one_line(write, text, message):
    with pytest.raises(InputError, match=rf"broken\.yaml .*{message}") as caught:
        configuration.read(write("broken.yaml", text))
    assert "\n" not in str(caught.value)


def test_dump_keeps_tags_references_and_the_tree(write):
    tree = configuration.read(write("network.yaml", NETWORK))
    text = configuration.dump(tree)
    for part in ("!new:ser_plugins.GhostVLAD", "!name:torch.optim.Adam", "!ref <clusters>", "[1, !ref <size>]"):
        assert part in text
    assert configuration.dump(YAML().load(text)) == configuration.dump(tree) == text


def test_resolve_puts_values_for_references_and_builds_nothing(write):
    tree = configuration.read(write("network.yaml", NETWORK.replace("ser_plugins.GhostVLAD", "no.such.Thing")))
    before = configuration.dump(tree)
    resolved = configuration.resolve(tree)
    text = configuration.dump(resolved)
    assert "!ref" not in text and "!new:no.such.Thing" in text and "!name:torch.optim.Adam" in text
    assert dict(resolved["pooling"]) == {"input_size": 4, "clusters": 3, "ghost_clusters": 0}
    assert list(resolved["rows"]) == [1, 4]
    assert configuration.dump(configuration.resolve(resolved)) == text
    assert configuration.dump(tree) == before


def test_a_resolved_tree_builds_the_same(write):
    tree = configuration.read(write("network.yaml", NETWORK))
    for built in (configuration.build(tree), configuration.build(configuration.resolve(tree))):
        assert isinstance(built["pooling"], GhostVLAD) and built["pooling"].centres.shape == (3, 4)
        assert built["optimizer"].keywords == {"lr": 0.001}
    other = {**tree, "clusters": 5}
    assert configuration.build(other)["pooling"].clusters == 5


names = st.text(string.ascii_letters + string.digits + " _-+.:,#'\"!&*?|>%@`~=éß語", max_size=8)
words = names | st.sampled_from(["no", "On", "null", "1e3", "01", "1_0", "0x1f", "12:30:45", "2021-01-01", "~", "<<"])
numbers = st.integers() | st.floats(1e-3, 1e3) | st.sampled_from([1e-5, 1e-10, 1e20, float("inf"), -0.5])
values = st.none() | st.booleans() | numbers | words


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from("abcd"), st.lists(values, max_size=4) | values, min_size=1))
def test_any_values_come_out_as_they_went_in(tree):
    built = configuration.build(configuration.resolve(tree))
    assert built == tree
    assert {key: type(value) for key, value in built.items()} == {key: type(value) for key, value in tree.items()}


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ("!new:ser_plugins.Nothing", r"ser_plugins\.Nothing"),
        ("!new:no_module.Nothing", r"no_module\.Nothing"),
        ("!new:ser_plugins.GhostVLAD {input: 8}", r"ser_plugins\.GhostVLAD: .*unexpected keyword argument 'input'"),
        ("!new:ser_plugins.GhostVLAD {input_size: 8, clusters: 0}", "clusters >= 1"),
        ("!new:ser_plugins.GhostVLAD {input_size: -1}", "negative dimension"),
        ("!new:ser_plugins.EmotionConstrainedTripletLoss {labels: [zzz]}", "emotion 'zzz'"),
        ("!ref <nowhere>", "nowhere"),
        ("!ref <thing>", "!ref"),
        ("!unknown 3", "!unknown"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(thing, message):
    tree = YAML().load(f"thing: {thing}")
    with pytest.raises(InputError, match=message) as caught:
        configuration.build(tree)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["no", "off", None, 0])
def test_a_switch_is_true_or_false(value):
    with pytest.raises(InputError, match=r"exclude_faults is .*; give true or false"):
        configuration.compose("s1", "ravdess", {"exclude_faults": value})
    assert configuration.compose("s1", "ravdess", {"exclude_faults": True})["exclude_faults"] is True
