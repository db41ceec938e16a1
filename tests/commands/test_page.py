"""The page, in a real browser."""

import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile

from ser_plugins import load
from ser_plugins.commands.page import analyse
from ser_plugins.errors import InputError
from ser_plugins.inference import predict, speaker_statistics
from ser_plugins.model_folder.embedding_map import EmbeddingMap

CHROMIUM = shutil.which("chromium")
LABELS = ["neutral", "happy", "sad"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_model):
    """A model folder of a tiny network, with a map."""
    folder = write_model(tmp_path_factory.mktemp("page") / "model")
    embeddings = np.random.default_rng(0).normal(size=(30, 12)).astype(np.float32)
    EmbeddingMap.fit(embeddings, LABELS * 10).save(folder)
    return folder


@pytest.fixture
def clip(tmp_path):
    samples = np.random.default_rng(0).normal(size=(48000, 2)).astype(np.float32) / 10
    soundfile.write(tmp_path / "clip.wav", samples, 48000)
    return tmp_path / "clip.wav"


def test_the_map_projects_training_embeddings_onto_their_points(folder):
    """Against principal components by the singular value decomposition."""
    embeddings = np.random.default_rng(0).normal(size=(30, 12)).astype(np.float32)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    centred = units - units.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    found = EmbeddingMap.read(folder)
    np.testing.assert_allclose(np.abs(found.points), np.abs(centred @ directions[:2].T), atol=1e-5)
    np.testing.assert_allclose(found.project(7 * embeddings[3]), found.points[3], atol=1e-5)
    assert found.emotions.tolist() == LABELS * 10


def test_probabilities_are_those_of_the_model(folder, clip, tmp_path):
    model = load(folder)
    probabilities, *figures = analyse(model, EmbeddingMap.read(folder), clip)
    log_probabilities, _, _, [best] = model.classify_file(str(clip))
    assert list(probabilities) == LABELS and max(probabilities, key=probabilities.get) == best
    assert list(probabilities.values()) == pytest.approx(log_probabilities.exp().flatten().tolist(), abs=1e-6)
    assert len(figures) == 3
    assert len(analyse(model, None, clip)) == 3  # without a map, one figure less
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    with pytest.raises(InputError, match=r"silent\.wav: it is silent; record it again"):
        analyse(model, None, tmp_path / "silent.wav")


def test_without_gradio_it_says_what_to_install(folder, monkeypatch):
    from ser_plugins.commands.page import make_app

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=re.escape('pip install "ser-plugins[demo]"')):
        make_app(folder)


@contextmanager
def serve(folder):
    """The address of the page, served as a user does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "ser_plugins", "demo", str(folder), "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if "Running on local URL" in line:
                break
        assert process.poll() is None, "".join(printed)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextmanager
def browse(folder):
    """The page in a browser."""
    from playwright.sync_api import sync_playwright

    with serve(folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        yield page
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_browser_shows_a_dropped_clip(folder, clip, tmp_path):
    """And the error of a file that is not audio."""
    from playwright.sync_api import expect

    _, _, _, [best] = load(folder).classify_file(str(clip))
    with browse(folder) as page:
        page.set_input_files("input[type=file]", clip)
        expect(page.get_by_test_id("label-output-value")).to_have_text(best, timeout=60_000)
        expect(page.get_by_test_id("matplotlib")).to_have_count(3, timeout=60_000)
        bad = tmp_path / "bad.wav"
        bad.write_bytes(b"no sound at all")
        page.get_by_label("Clear").click()
        page.set_input_files("input[type=file]", bad)
        expect(page.get_by_text("not readable as audio")).to_be_visible(timeout=60_000)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_browser_sets_the_threshold_of_unknown(folder, clip):
    """The answers are those of ``predict --unknown``; the probabilities stay."""
    from playwright.sync_api import expect

    model = load(folder)
    [likely] = predict(model, [clip])["probability"]
    lower, higher = (round(np.floor(20 * likely) / 20 + step, 2) for step in (0, 0.05))  # steps of the slider
    answers = {value: predict(model, [clip], unknown=value)["emotion"][0] for value in (0, lower, higher)}
    assert answers[0] == answers[lower] != answers[higher] == "unknown"

    with browse(folder) as page:
        threshold = page.get_by_label("number input for Answer unknown below this probability")
        shown = page.get_by_test_id("label-output-value")
        expect(threshold).to_have_value("0", timeout=60_000)
        page.set_input_files("input[type=file]", clip)
        for value in (0, higher, lower, higher):
            threshold.fill(str(value))
            threshold.blur()
            expect(shown).to_have_text(answers[value], timeout=60_000)
            expect(page.locator(".confidence").first).to_have_text(f"{round(100 * likely)}%")
        page.get_by_label("Clear").click()
        page.set_input_files("input[type=file]", clip)
        expect(shown).to_have_text("unknown", timeout=60_000)  # of another clip, too


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_browser_gives_recordings_of_the_speaker(write_model, clip, tmp_path):
    """And removes them."""
    from playwright.sync_api import expect

    folder = write_model(tmp_path / "model", "s3", speaker_normalization="features")
    recordings = [tmp_path / f"{number}.wav" for number in range(2)]
    for number, path in enumerate(recordings):
        soundfile.write(path, np.random.default_rng(number).normal(size=16000).cumsum() / 500, 16000)

    model = load(folder)
    alone = analyse(model, None, clip)[0]
    known = analyse(model, None, clip, speaker_statistics(model, recordings))[0]

    def percents(probabilities):
        return [f"{round(100 * one)}%" for one in sorted(probabilities.values(), reverse=True)]

    def shows(probabilities):
        expect(page.locator(".confidence")).to_have_text(percents(probabilities), timeout=60_000)

    assert percents(alone) != percents(known)

    with browse(folder) as page:
        files = page.locator("input[type=file]")  # of the clip and of the speaker; they go once a file is there
        expect(files).to_have_count(2, timeout=60_000)
        files.first.set_input_files(clip)
        shows(alone)
        files.set_input_files(recordings)
        shows(known)
        page.get_by_label("Clear").last.click()
        shows(alone)
