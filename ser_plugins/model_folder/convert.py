"""Convert published weights of other projects to the folder of a pre-trained encoder.

- Xie et al., ICASSP 2019: ``weights.h5`` of https://github.com/WeidiXie/VGG-Speaker-Recognition, in Keras' format, is a
  speaker encoder trained on VoxCeleb2: a thin ResNet-34 with GhostVLAD. Its embedding is the ReLU of that of
  `UtteranceEncoder`, which leaves the ReLU to the classifier.
- Wang et al., Interspeech 2023: ``campplus_cn_en_common.pt`` of 3D-Speaker is CAM++, trained on 200,000 speakers.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from ser_plugins.errors import InputError
from ser_plugins.files import atomic_write
from ser_plugins.model_folder.lineage import Training, file_sha256, write_lineage
from ser_plugins.model_folder.saving import CHECKPOINT
from ser_plugins.models.batchnorm import MaskedBatchNorm
from ser_plugins.models.campplus import CAMPPlus
from ser_plugins.models.encoder import UtteranceEncoder
from ser_plugins.models.ghostvlad import ProjectedGhostVLAD
from ser_plugins.models.thin_resnet import Bottleneck, ThinResNet34

URL = "https://github.com/WeidiXie/VGG-Speaker-Recognition"
PUBLISHED = "369d34b9d1e1558bcf4894ad89a380747e99eb74"
NOTE = "source.yaml"
CAMPPLUS_URL = "https://github.com/modelscope/3D-Speaker (speech_campplus_sv_zh_en_16k-common_advanced)"
CAMPPLUS_SHA256 = "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199"
CAMPPLUS_REMEDY = "give campplus_cn_en_common.pt of 3D-Speaker"
LINEAGE = "lineage.json"  # as ser_plugins.model_folder.lineage, which imports this package
REMEDY = f"give the weights.h5 of {URL}"
BANDS = 7  # frequency bands at the end of the trunk
BLOCKS = [f"conv{stage}_{letter}" for stage, letters in enumerate(("ab", "abc", "abc", "abc"), 2) for letter in letters]
Arrays = dict[str, np.ndarray[Any, Any]]


def blob_id(content: bytes) -> str:
    r"""Compute git's object id of the content of a file.

    Example
    -------
    >>> blob_id(b"hello\n")
    'ce013625030ba8dba906f756967f9e9ca394464a'
    """
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def convert_vgg(path: Path, folder: Path) -> bool:
    """Convert ``weights.h5`` of Xie et al. to a folder for ``--pretrained_encoder``.

    Parameters
    ----------
    path : pathlib.Path
        Keras' file, of ``save_weights`` or of ``save``.
    folder : pathlib.Path
        The folder to write: ``embedding_model.ckpt``; its origin and licence in ``source.yaml`` and ``lineage.json``.

    Returns
    -------
    bool
        Whether the file is the published one, by its git object id.

    Raises
    ------
    InputError
        If the file cannot be read, or its arrays are not exactly those of the network.
    """
    content = _read(path, REMEDY)
    encoder = vgg_encoder(read_arrays(content, str(path)), str(path))
    blob = blob_id(content)
    genuine = blob == PUBLISHED
    about = {
        "source": URL if genuine else f"not the published file of {URL}; its author is unknown",
        "authors": "W. Xie, A. Nagrani, J. S. Chung, A. Zisserman (ICASSP 2019)" if genuine else "unknown",
        "licence": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/" if genuine else "unknown",
        "changes": "converted from Keras to PyTorch; centres of ghost clusters, which reach no output, left out",
        "file": path.name,
        "git_blob": blob,
        "genuine": genuine,
    }
    _write(folder, encoder.state_dict(), about, f"git-blob-{blob}", "Xie et al., ICASSP 2019", "VoxCeleb2")
    return genuine


def convert_campplus(path: Path, folder: Path) -> bool:
    """Convert the state dict of CAM++ that 3D-Speaker publishes to a folder for ``--pretrained_encoder``.

    Parameters
    ----------
    path : pathlib.Path
        ``campplus_cn_en_common.pt``: PyTorch's file of the 937 arrays.
    folder : pathlib.Path
        The folder to write: ``embedding_model.ckpt``; its origin and licence in ``source.yaml`` and ``lineage.json``.

    Returns
    -------
    bool
        Whether the file is the published one, by its SHA-256.

    Raises
    ------
    InputError
        If the file cannot be read, or its arrays are not exactly those of the network.
    """
    content = _read(path, CAMPPLUS_REMEDY)
    try:
        state = torch.load(io.BytesIO(content), "cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler says of a file that is none
        raise InputError(f"{path} is no PyTorch state dict; {CAMPPLUS_REMEDY}") from error
    if not isinstance(state, dict):
        raise InputError(f"{path} is no PyTorch state dict; {CAMPPLUS_REMEDY}")
    network = CAMPPlus(block=None)
    network.load_public(state)
    digest = hashlib.sha256(content).hexdigest()
    genuine = digest == CAMPPLUS_SHA256
    about = {
        "source": CAMPPLUS_URL if genuine else f"not the published file of {CAMPPLUS_URL}; its author is unknown",
        "authors": "H. Wang, S. Zheng, Y. Chen, L. Cheng, Q. Chen (Interspeech 2023)" if genuine else "unknown",
        "licence": "Apache-2.0" if genuine else "unknown",
        "changes": "none but the names of the arrays",
        "file": path.name,
        "sha256": digest,
        "genuine": genuine,
    }
    weights = {f"backbone.{name}": weight for name, weight in network.state_dict().items()}
    _write(folder, weights, about, f"sha256-{digest}", "Wang et al., Interspeech 2023", "200,000 speakers")
    return genuine


def _read(path: Path, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); {remedy}") from error


def _write(
    folder: Path, state: Mapping[str, Tensor], about: Mapping[str, Any], run_id: str, paper: str, corpus: str
) -> None:
    """Write the weights, their origin and their lineage."""
    weights = io.BytesIO()
    torch.save(dict(state), weights)
    atomic_write(folder / CHECKPOINT, weights.getvalue())
    training = Training(
        run_id=run_id,
        strategy=f"published weights of {paper}" if about["genuine"] else "weights of unknown origin",
        corpus=corpus if about["genuine"] else "unknown",
        fold=None,
        seed=0,
        sha256=file_sha256(folder / CHECKPOINT),
        licence=str(about["licence"]),
    )
    write_lineage(folder, [training])
    atomic_write(folder / NOTE, yaml.safe_dump(dict(about), sort_keys=False, width=120))


def read_arrays(content: bytes, origin: str) -> Arrays:
    """Read the arrays of a Keras file by layer and variable: ``conv2_a_3x3/bn/gamma``."""
    try:
        import h5py  # noqa: PLC0415
    except ImportError as error:
        raise InputError("Keras' files are read with h5py, which is missing; pip install h5py") from error
    arrays: Arrays = {}
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            root = file.get("model_weights", file)  # `save` writes this group, `save_weights` does not
            for layer in map(_text, root.attrs["layer_names"]):
                group = root[layer]
                for name in map(_text, group.attrs["weight_names"]):
                    if name in group:
                        variable = name.rsplit("/", 1)[-1].split(":")[0]
                        arrays[f"{layer}/{variable}"] = np.asarray(group[name])
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{origin} is not a complete file of Keras' weights ({reason}); {REMEDY}") from error
    return arrays


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


@torch.no_grad()
def vgg_encoder(arrays: Mapping[str, np.ndarray[Any, Any]], origin: str) -> UtteranceEncoder:
    """Make the encoder of the arrays of Xie et al.

    Parameters
    ----------
    arrays : mapping
        Arrays as `read_arrays` returns them; each is used.
    origin : str
        Name of the file, for error messages.

    Returns
    -------
    UtteranceEncoder
        In evaluation mode it computes what the original does before its last ReLU.

    Raises
    ------
    InputError
        If an array is missing, unknown, of another shape, or not of floats.
    """
    rest = dict(arrays)

    def take(name: str, *shape: int) -> Tensor:
        if name not in rest:
            raise InputError(f"{origin} lacks the array {name}; {REMEDY}")
        array = rest.pop(name)
        if array.shape != shape or array.dtype.kind != "f":
            raise InputError(
                f"{origin}: array {name} is {array.shape} of {array.dtype}, not {shape} of floats; {REMEDY}"
            )
        return torch.from_numpy(array)

    def fill_convolution(name: str, layer: nn.Conv2d, norm: MaskedBatchNorm) -> None:
        outputs, inputs, frames, bins = layer.weight.shape
        layer.weight.copy_(take(f"{name}/kernel", bins, frames, inputs, outputs).permute(3, 2, 1, 0))
        fill_norm(f"{name}/bn", norm)

    def fill_norm(name: str, norm: MaskedBatchNorm) -> None:
        assert norm.running_mean is not None and norm.running_var is not None
        own = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        for variable, tensor in zip(("gamma", "beta", "moving_mean", "moving_variance"), own, strict=True):
            tensor.copy_(take(f"{name}/{variable}", norm.num_features))
        norm.num_batches_tracked.fill_(1000)  # with a count of 0 the first training batch would replace them

    def fill_bands(name: str, layer: nn.Linear) -> None:
        kernel = take(f"{name}/kernel", BANDS, 1, layer.in_features // BANDS, layer.out_features)
        layer.weight.copy_(kernel.flatten(0, 2).T)
        layer.bias.copy_(take(f"{name}/bias", layer.out_features))

    backbone = ThinResNet34()
    pooling = ProjectedGhostVLAD(backbone.output_size)
    encoder = UtteranceEncoder(backbone, pooling).eval()
    fill_convolution("conv1_1/3x3_s1", backbone.stem, backbone.stem_bn)
    for name, block in zip(BLOCKS, backbone.blocks, strict=True):
        assert isinstance(block, Bottleneck)
        fill_convolution(f"{name}_1x1_reduce", block.conv1, block.bn1)
        fill_convolution(f"{name}_3x3", block.conv2, block.bn2)
        fill_convolution(f"{name}_1x1_increase", block.conv3, block.bn3)
        if block.shortcut is not None:
            fill_convolution(f"{name}_1x1_proj", block.shortcut, block.shortcut_bn)
    fill_bands("x_fc", pooling.projection)
    fill_bands("gvlad_center_assignment", pooling.assignment)
    centres = take("gvlad_pool/centers", pooling.clusters + pooling.ghost_clusters, pooling.projection.out_features)
    pooling.centres.copy_(centres[: pooling.clusters])  # the ghosts are the last ones
    assert encoder.embedding is not None and encoder.norm is not None
    encoder.embedding.weight.copy_(take("fc6/kernel", *encoder.embedding.weight.T.shape).T)
    # With mean 0 and deviation 1 the normalisation only adds its bias, until training changes them.
    assert encoder.norm.running_var is not None
    encoder.norm.running_var.fill_(1 - encoder.norm.eps)
    encoder.norm.bias.copy_(take("fc6/bias", encoder.norm.num_features))
    if rest:
        raise InputError(f"{origin} holds the array {min(rest)}, which the network does not have; {REMEDY}")
    return encoder
