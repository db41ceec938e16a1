"""Windows of a recording against pieces that are cut out of it as files of their own."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ser_plugins import load
from ser_plugins.audio.speaker import SpeakerStatistics
from ser_plugins.audio.speech import load_audio, stream_audio
from ser_plugins.corpora.synthetic import speak
from ser_plugins.errors import InputError
from ser_plugins.evaluation.figures import COLOURS
from ser_plugins.inference import timeline, timeline_figure
from ser_plugins.inference.drawing import draw_timeline
from ser_plugins.inference.windows import slide

LABELS = ["neutral", "happy", "sad"]


def noise(path, seconds, rate=16000, channels=1):
    samples = np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels)).astype(np.float32)
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return samples.mean(1)


@pytest.mark.parametrize(
    ("seconds", "window", "hop"),
    [(25.4, 3, 1), (2, 3, 1), (9, 3, 3), (12.05, 3, 1), (30, 0.5, 13), (21, 2.5, 0.3), (3.13, 1, 2)],
)
@pytest.mark.parametrize("rate", [16000, 11025])
def test_windows_are_where_they_say_they_are(tmp_path, seconds, window, hop, rate):
    samples = noise(tmp_path / "long.wav", seconds, rate, 2)
    found = list(slide(tmp_path / "long.wav", window, hop))
    for index, piece in enumerate(found):
        start, end = round(piece.start * rate), round(piece.end * rate)
        assert start == round(index * hop * rate)
        np.testing.assert_allclose(piece.samples, samples[start:end], atol=1e-6)
    assert all(len(piece.samples) == round(window * rate) for piece in found[:-1])
    if hop <= window:  # all of it, but for less than can be used
        assert found[-1].end * rate == pytest.approx(len(samples), abs=0.1 * rate)
    assert len(found) == 1 or found[-2].end < seconds  # no window is of what was there before


def test_each_window_is_predicted_as_a_file_of_its_own(model, tmp_path):
    samples = noise(tmp_path / "long.wav", 8.3, 22050)
    frame = timeline(model, tmp_path / "long.wav", window=2, hop=0.7)
    assert list(frame.columns) == ["path", "start", "end", "emotion", *LABELS]
    for row in frame.to_dict("records"):
        piece = samples[round(row["start"] * 22050) : round(row["end"] * 22050)]
        soundfile.write(tmp_path / "piece.wav", piece, 22050, subtype="FLOAT")
        scores, _, _, (label,) = model.classify_file(tmp_path / "piece.wav")
        np.testing.assert_allclose([row[name] for name in LABELS], scores[0].exp(), atol=1e-5)
        assert row["emotion"] == label


def test_the_shortest_window_is_long_enough_at_any_rate(model, tmp_path):
    noise(tmp_path / "long.wav", 1, 11025)  # of which a tenth of a second is 1102.5 samples
    assert timeline(model, tmp_path / "long.wav", window=0.1, hop=0.2)["emotion"].isin(LABELS).all()


def test_silence_has_no_emotion(write_model, tmp_path):
    model = load(write_model(tmp_path / "model", "s3", vad="silero"), device="cpu")
    spoken = np.concatenate([speak(0, number, "angry", number) for number in range(3)])
    pause = np.random.default_rng(0).normal(0, 1e-3, 16000 * 6)
    soundfile.write(tmp_path / "talk.wav", np.concatenate([spoken, pause]), 16000)
    frame = timeline(model, tmp_path / "talk.wav", window=2, hop=1, labels=["sad", "happy"])
    quiet = frame["start"] > len(spoken) / 16000
    assert (
        quiet.any() and frame["emotion"][quiet].eq("silence").all() and frame[["sad", "happy"]][quiet].isna().all(None)
    )
    loud = frame[frame["end"] < len(spoken) / 16000]
    assert loud["emotion"].isin(["sad", "happy"]).any()
    np.testing.assert_allclose(loud[["sad", "happy"]].dropna().sum(axis=1), 1)


def test_digital_silence_is_silent_without_a_detector(model, tmp_path):
    soundfile.write(tmp_path / "zeros.wav", np.zeros(80000), 16000)
    assert timeline(model, tmp_path / "zeros.wav")["emotion"].eq("silence").all()


@pytest.mark.parametrize("options", [{"window": 0.01}, {"hop": 0}, {"hop": float("nan")}, {"labels": ["glad"]}])
def test_options_that_cannot_be_used_are_refused(model, tmp_path, options):
    noise(tmp_path / "long.wav", 4)
    with pytest.raises(InputError):
        timeline(model, tmp_path / "long.wav", **options)


@pytest.mark.parametrize("samples", [0, 500])
def test_a_recording_that_is_too_short_is_refused(model, tmp_path, samples):
    soundfile.write(tmp_path / "short.wav", np.ones(samples), 16000)
    with pytest.raises(InputError, match=r"short\.wav: .* too short"):
        timeline(model, tmp_path / "short.wav")


@pytest.mark.parametrize("kind", ["m4a", "flac", "mp3", "ogg"])
def test_a_stream_is_the_whole_file(tmp_path, write_aac, kind):
    path = tmp_path / f"long.{kind}"
    samples = noise(tmp_path / "long.wav", 23, 16000)
    if kind == "m4a":
        write_aac(path, samples)
    else:
        soundfile.write(path, samples, 16000)
    blocks, rates = zip(*stream_audio(path), strict=True)
    whole, rate = load_audio(path)
    assert set(rates) == {rate} and max(map(len, blocks)) <= 10 * rate
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)  # a decoder of MP3 rounds by the block


def test_a_figure_is_drawn_of_any_labels(tmp_path):
    labels = [f"speaker {number}" for number in range(30)]
    rows = np.random.default_rng(0).dirichlet(np.ones(30), 5)
    frame = pd.DataFrame({"path": "a$x_$.wav", "start": range(5), "end": range(3, 8), "emotion": "silence"})
    frame[labels] = rows
    frame.loc[2, labels] = np.nan
    for count in (5, 1):
        timeline_figure(frame.head(count), tmp_path / "talk.png")
        svg = (tmp_path / "talk.svg").read_text()
        assert "a$x_$.wav" in svg
        draw_timeline(figure := Figure(), frame.head(count), "talk")
        silence, *names = [text.get_text() for text in figure.legends[0].get_texts()]
        assert silence == "silence" and len(names) == 8 and set(names) < set(labels)
        assert (tmp_path / "talk.png").stat().st_size > 5000


def test_the_segments_are_drawn_above_the_probabilities(tmp_path):
    happy = np.array([0.9, 0.9, 0.9, np.nan, 0.2, 0.2, 0.2, 0.1])
    frame = pd.DataFrame({"path": "a.wav", "start": np.arange(8.0), "end": np.arange(1.0, 9.0), "emotion": "silence"})
    figure = Figure()
    draw_timeline(figure, frame.assign(happy=happy, sad=1 - happy), "a")
    band, _ = figure.axes
    bars = [(bar.get_x(), bar.get_width(), to_hex(bar.get_facecolor()).upper()) for bar in band.patches]
    assert bars == [(0.0, 3.0, COLOURS[2]), (4.0, 4.0, COLOURS[3])]  # third and fourth emotion of all
    assert [(text.get_text(), text.get_position()[0]) for text in band.texts] == [("happy", 1.5), ("sad", 6.0)]


def test_a_window_whose_output_is_not_finite_is_an_error(model, tmp_path):
    noise(tmp_path / "long.wav", 4)
    with pytest.raises(InputError, match=r"long\.wav, window at 0\.00 s: the output of the model is not finite"):
        timeline(model, tmp_path / "long.wav", speaker=SpeakerStatistics(embedding=torch.full((12,), torch.nan)))
