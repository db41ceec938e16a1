"""The encoder that the package holds: its size, its loading, and fine-tuning from it."""

import pytest
import torch

from ser_plugins import configuration, load
from ser_plugins.errors import InputError
from ser_plugins.model_folder.lineage import read_lineage
from ser_plugins.model_folder.source import builtin_folder
from ser_plugins.training.run import load_pretrained
from ser_plugins.training.transfer import find_weights


def test_it_is_small_and_says_where_it_is_from():
    folder = builtin_folder("builtin:speakers")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 6_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in card and "CC BY 4.0" in card and "Equal error rate" in card
    assert [one.strategy for one in read_lineage(find_weights("builtin"))][-1] == "distil"


def test_it_embeds_without_a_network():
    model = load("builtin:speakers", device="cpu")
    wavs = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    embeddings = model.encode_batch(wavs)
    assert embeddings.shape == (2, 1, 512) and embeddings.isfinite().all()


@pytest.mark.parametrize(("strategy", "partial"), [("s2", 2), ("s3", 0), ("s6", 0)])
def test_a_strategy_starts_from_it_by_default(strategy, partial):
    tree = configuration.compose(strategy, "ravdess")
    encoder = configuration.build({"embedding_model": configuration.resolve(tree)["embedding_model"]})[
        "embedding_model"
    ]
    lineage, report = load_pretrained(encoder, tree)
    assert lineage and len(report["matched"]) > 200 and len(report["partial"]) == partial
    assert not report["missing"] + report["shape"] + report["unexpected"]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"no built-in model 'voices'; the package holds .*speakers"):
        find_weights("builtin:voices")
