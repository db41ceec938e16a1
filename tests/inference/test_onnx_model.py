"""One recording by the ONNX graph of a model folder, against the model itself."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch

from ser_plugins import load
from ser_plugins.commands import main
from ser_plugins.corpora.synthetic import speak
from ser_plugins.errors import InputError
from ser_plugins.inference import predict
from ser_plugins.inference.onnx import export
from ser_plugins.inference.onnx_model import open_graph

COMMAND = "import sys; from ser_plugins.commands import main; main(sys.argv[1:]); print('torch' in sys.modules)"
COPIED = ("config.json", "model.safetensors", "model.onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_model):
    """A model folder with a graph, whose normaliser has Silero VAD."""
    folder = write_model(tmp_path_factory.mktemp("graph") / "model", "s1", vad="silero")
    export(folder, folder / "model.onnx")
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """Parts of the folder that can be changed."""
    for name in COPIED:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """An utterance after a pause, in a file at 16 kHz."""
    path = tmp_path_factory.mktemp("recording") / "clip.wav"
    soundfile.write(path, np.concatenate([np.zeros(12000), speak(0, 1, "angry", 1)]), 16000)
    return path


def test_the_graph_has_the_weights_of_the_folder(folder):
    assert (folder / "model.onnx").stat().st_size < 2_000_000
    model, wavs, lengths = load(folder), torch.randn(2, 9000), torch.tensor([1.0, 0.7])
    wavs[1, 6300:] = 0
    inputs = {"waveforms": wavs.numpy(), "lengths": lengths.numpy()}
    embeddings, scores = onnxruntime.InferenceSession(folder / "model.onnx").run(None, inputs)
    np.testing.assert_allclose(embeddings, model.encode_batch(wavs, lengths), atol=1e-4)
    np.testing.assert_allclose(scores, model.classify_batch(wavs, lengths)[0], atol=1e-4)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_the_answer_is_that_of_the_model(folder, recording, rate, tmp_path):
    samples, own = soundfile.read(recording)
    time = np.arange(int(len(samples) / own * rate)) / rate
    path = tmp_path / "clip.flac"
    stereo = np.stack([np.interp(time, np.arange(len(samples)) / own, samples)] * 2, 1) * [1, 0.5]
    soundfile.write(path, stereo, rate)
    [row] = predict(load(folder), [path]).to_dict("records")
    answer = open_graph(str(folder)).answer(str(path))
    assert answer.seconds == pytest.approx(row["seconds"])
    for label, probability in answer.probabilities.items():
        assert probability == pytest.approx(row[label], abs=2e-3 if rate == 44100 else 1e-4)


def test_the_command_answers_without_pytorch(folder, recording, capsys):
    words = ["predict", str(recording), "--model", str(folder)]
    done = subprocess.run([sys.executable, "-c", COMMAND, *words], capture_output=True, text=True, check=True)
    *table, with_torch = done.stdout.splitlines()
    main([*words, "--device", "cpu"])  # which only PyTorch has
    assert with_torch == "False" and table == capsys.readouterr().out.splitlines()


def test_an_unusable_file_has_the_usual_error(folder, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    (tmp_path / "text.wav").write_text("no sound")
    for name, said in (("silent.wav", "it is silent"), ("text.wav", "not readable as audio")):
        assert open_graph(str(folder)).answer(str(tmp_path / name)) is None
        with pytest.raises(SystemExit, match=said):
            main(["predict", str(tmp_path / name), "--model", str(folder)])


def test_a_long_recording_is_left_to_pytorch(folder, tmp_path):
    for seconds in (29, 31):
        soundfile.write(tmp_path / f"{seconds}.wav", np.resize(speak(0, 1, "angry", 1), seconds * 16000), 16000)
    model = open_graph(str(folder))
    assert model.answer(str(tmp_path / "29.wav")) and model.answer(str(tmp_path / "31.wav")) is None


def test_a_graph_of_other_weights_is_not_used(copy, recording):
    assert open_graph(str(copy)) is not None
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "labels": config["labels"][::-1]}))
    assert open_graph(str(copy)) is None


def test_a_file_that_is_no_graph_is_named(copy):
    (copy / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match=r"model\.onnx is no graph of this folder; export it again, or delete it"):
        open_graph(str(copy))


def test_a_graph_without_our_metadata_is_not_used(copy):
    graph = onnx.load(copy / "model.onnx", load_external_data=False)
    graph.ClearField("metadata_props")
    (copy / "model.onnx").write_bytes(graph.SerializeToString())
    assert open_graph(str(copy)) is None


def test_eight_bits_need_a_file_with_weights(folder, tmp_path):
    with pytest.raises(InputError, match="give --int8 with another --onnx"):
        export(folder, folder / "new.onnx", tmp_path / "int8.onnx")


def test_options_of_batches_are_checked_first(folder, recording):
    with pytest.raises(SystemExit, match="give --batch_seconds above 0"):
        main(["predict", str(recording), "--model", str(folder), "--batch_seconds", "0"])


def test_a_model_that_normalises_by_speaker_is_left_to_pytorch(copy):
    config = json.loads((copy / "config.json").read_text())
    config["modules"]["mean_var_norm"]["arguments"]["speaker_normalization"] = "features"
    (copy / "config.json").write_text(json.dumps(config))
    assert open_graph(str(copy)) is None


def test_without_a_graph_or_onnxruntime_there_is_none(copy, monkeypatch):
    monkeypatch.setattr("ser_plugins.inference.onnx_model.find_spec", lambda name: None)
    assert open_graph(str(copy)) is None
    monkeypatch.undo()
    (copy / "model.onnx").unlink()
    assert open_graph(str(copy)) is None and open_graph("user/name") is None
