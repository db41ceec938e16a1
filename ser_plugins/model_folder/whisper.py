"""Convert a Whisper in CTranslate2's format, as faster-whisper distributes it, to a folder for `SSLBackbone`."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from ser_plugins.errors import InputError
from ser_plugins.files import atomic_write
from ser_plugins.model_folder.lineage import Training, file_sha256, write_lineage
from ser_plugins.models.ssl import library

Arrays = dict[str, NDArray[Any]]
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
REMEDY = "give the model.bin of a faster-whisper that is not quantised"
NOTE = "source.yaml"
WEIGHTS = "model.safetensors"  # of transformers
PARTS = {  # of a layer: CTranslate2's name and that of transformers
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}


def convert_whisper(path: Path, folder: Path) -> None:
    """Convert the encoder of a Whisper to a folder of the library transformers.

    Parameters
    ----------
    path : pathlib.Path
        ``model.bin`` of CTranslate2, in float32 or float16.
    folder : pathlib.Path
        The folder to write, the ``source`` of `SSLBackbone`: weights in half precision, configuration, origin, lineage.

    Raises
    ------
    InputError
        If the file cannot be read, or its arrays are not those of Whisper.
    """
    transformers = library()
    try:
        content = path.read_bytes()
        with path.open("rb") as file:
            arrays = read_arrays(file)
        weights, layers = encoder_weights(arrays)
        heads = int(arrays["encoder/num_heads"])
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); {REMEDY}") from error
    except (KeyError, ValueError, struct.error) as error:
        raise InputError(f"{path} is no Whisper of CTranslate2 ({error}); {REMEDY}") from error
    network = transformers.WhisperModel(_configuration(weights, layers, heads))
    network.get_encoder().load_state_dict(weights)
    network.half().save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=network.config.num_mel_bins).save_pretrained(folder)
    about = {
        "source": "https://github.com/openai/whisper, in the format of CTranslate2, by the name of the file",
        "authors": "A. Radford, J. W. Kim, T. Xu, G. Brockman, C. McLeavey, I. Sutskever (ICML 2023)",
        "licence": "MIT",
        "changes": "the encoder alone; half precision",
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    atomic_write(folder / NOTE, yaml.safe_dump(about, sort_keys=False, width=120))
    training = Training(
        run_id=f"sha256-{about['sha256']}",
        strategy="weights of Whisper (Radford et al., ICML 2023), by the name of their file",
        corpus="680,000 hours of speech",
        fold=None,
        seed=0,
        sha256=file_sha256(folder / WEIGHTS),
        licence=about["licence"],
    )
    write_lineage(folder, [training])


def read_arrays(file: BinaryIO) -> Arrays:
    """Read the arrays of a CTranslate2 model, version 6: a name, a shape, a type and the values of each.

    Raises
    ------
    ValueError
        If it is another kind of file.
    struct.error
        If the file ends too early.
    """

    def number(code: str) -> int:
        return int(struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0])

    def text() -> str:
        return file.read(number("H"))[:-1].decode()

    version = number("I")
    if version != 6 or text() != "WhisperSpec":
        raise ValueError("not version 6 of the format, or another network")
    number("I")  # revision of the network's description
    arrays: Arrays = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind = TYPES.get(number("B"))
        values = file.read(number("I"))
        if kind is None:
            raise ValueError(f"{name} has an unknown type")
        arrays[name] = np.frombuffer(values, kind).reshape(shape)
    return arrays


def encoder_weights(arrays: Arrays) -> tuple[dict[str, Tensor], int]:
    """Name the arrays of the encoder as transformers does; return them and the number of layers.

    Raises
    ------
    KeyError
        If an array is missing.
    ValueError
        If the weights are quantised.
    """
    weights = {
        "embed_positions.weight": arrays["encoder/position_encodings/encodings"],
        **_norm("layer_norm", "encoder/layer_norm", arrays),
    }
    for name in ("conv1", "conv2"):
        weights |= _linear(name, f"encoder/{name}", arrays)
    layers = len({name.split("/")[1] for name in arrays if name.startswith("encoder/layer_") and "/ffn/" in name})
    for i in range(layers):
        for theirs, ours in PARTS.items():
            read = _norm if "norm" in theirs else _linear
            weights |= read(f"layers.{i}.{ours}", f"encoder/layer_{i}/{theirs}", arrays)
        joined = f"encoder/layer_{i}/self_attention/linear_0"
        for kind in ("weight", "bias"):
            query, key, value = np.split(arrays[f"{joined}/{kind}"], 3)
            for part, one in (("q", query), ("k", key), ("v", value)):
                if (part, kind) != ("k", "bias"):  # Whisper's keys have none: zeros
                    weights[f"layers.{i}.self_attn.{part}_proj.{kind}"] = one
    if any(array.dtype not in (np.float16, np.float32) for array in weights.values()):
        raise ValueError("its weights are quantised")
    return {name: torch.tensor(array, dtype=torch.float32) for name, array in weights.items()}, layers


def _configuration(weights: Mapping[str, Tensor], layers: int, heads: int) -> Any:
    """Configure the encoder by the shapes of its weights; the smallest decoder replaces its own."""
    size, bins, _ = weights["conv1.weight"].shape
    return library().WhisperConfig(
        d_model=size,
        num_mel_bins=bins,
        encoder_layers=layers,
        encoder_attention_heads=heads,
        encoder_ffn_dim=len(weights["layers.0.fc1.weight"]),
        max_source_positions=len(weights["embed_positions.weight"]),
        decoder_layers=0,
        decoder_ffn_dim=1,
        decoder_attention_heads=heads,
        max_target_positions=1,
        vocab_size=1,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
    )


def _linear(ours: str, theirs: str, arrays: Arrays) -> Arrays:
    return {f"{ours}.{kind}": arrays[f"{theirs}/{kind}"] for kind in ("weight", "bias")}


def _norm(ours: str, theirs: str, arrays: Arrays) -> Arrays:
    return {f"{ours}.weight": arrays[f"{theirs}/gamma"], f"{ours}.bias": arrays[f"{theirs}/beta"]}
