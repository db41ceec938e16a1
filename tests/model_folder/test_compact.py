"""A compact model folder embeds as the original does, and is a pre-trained encoder with the same lineage."""

import torch

from ser_plugins import load
from ser_plugins.model_folder.compact import compact_model_folder
from ser_plugins.model_folder.lineage import Training, file_sha256, read_lineage, write_lineage
from ser_plugins.model_folder.saving import CHECKPOINT, WEIGHTS
from ser_plugins.training.transfer import find_weights, transfer


def test_a_compact_folder_is_the_same_model_at_half_the_size(model, tmp_path):
    own = Training("1" * 32, "distil", "voices", None, 1, sha256=file_sha256(model / CHECKPOINT), speakers=("a", "b"))
    write_lineage(model, [own])
    compact_model_folder(model, tmp_path / "compact")
    assert (tmp_path / "compact" / WEIGHTS).stat().st_size < 0.75 * (model / WEIGHTS).stat().st_size
    wavs = torch.randn(3, 8000, generator=torch.Generator().manual_seed(0))
    one, other = load(model, device="cpu"), load(tmp_path / "compact", device="cpu")
    similar = torch.cosine_similarity(one.encode_batch(wavs), other.encode_batch(wavs), dim=-1)
    assert similar.min() > 0.9999
    [found] = read_lineage(find_weights(str(tmp_path / "compact")))
    assert found.run_id == own.run_id and found.speakers == own.speakers
    report = transfer(one.mods.embedding_model, str(tmp_path / "compact"))
    assert not report["missing"] + report["unexpected"] + report["shape"]
