"""Publishing over HTTP to a Hub on this machine, by the client as it is; loaded back by name."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import types
from pathlib import Path

import huggingface_hub.constants
import pytest
import soundfile
import torch

import ser_plugins
from ser_plugins.errors import InputError
from ser_plugins.hub import publishing
from ser_plugins.hub.publishing import check_name, model_files, push, space_files
from ser_plugins.model_folder.checks import FILES
from ser_plugins.model_folder.source import WEIGHTS_FOLDER

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
CONTENT = {"README.md": b"---\nlicense: mit\n---\n# A\n", "model.safetensors": b"weights" * 1000, "b.ckpt": b"more"}


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def python(*words, folder, **environment):
    variables = {"HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", **environment}
    known = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    words = [sys.executable, *map(str, words)]
    variables = {**known, "PYTHONPATH": path, **variables}
    return subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture
def quick(monkeypatch):
    """The client waits before it tries again; not here."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def publish(*words):
    """Run the recipe in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["publish.py", *map(str, words)])
        runpy.run_path(str(ROOT / "recipes" / "publish.py"), run_name="__main__")


@pytest.mark.slow
def test_a_model_goes_there_and_comes_back(hub, tmp_path, write_run, capsys):
    model = write_run(tmp_path / "fold1")
    publish(model, "--repo_id", "user/name", "--revision", "v1", "--space")
    printed = capsys.readouterr().out
    assert "model user/name published" in printed and "space user/name published" in printed
    assert hub.asked["commit"] == 2
    files = hub.files("user/name", branch="v1")
    assert set(files) == {*FILES, "reference.json", "README.md", "confusion.png", ".gitattributes"}
    assert all(files[name] == (model / name).read_bytes() for name in FILES)
    assert set(hub.files("user/name")) == {".gitattributes"}

    torch.manual_seed(0)
    soundfile.write(tmp_path / "utterance.wav", 0.1 * torch.randn(30000).numpy(), 22050)
    code = "\n".join(
        f"{block}\nprint(label, embedding.flatten().tolist())" for block in blocks(files["README.md"].decode())
    )
    anybody = python("-c", code, folder=tmp_path, HF_ENDPOINT=hub.url)
    assert anybody.returncode == 0, anybody.stderr
    loaded = ser_plugins.load(model)
    expected = loaded.encode_file(tmp_path / "utterance.wav").flatten()
    lines = anybody.stdout.strip().splitlines()
    assert len(lines) == 2
    for line in lines:
        label, values = line.split("] ", 1)
        assert f"{label}]" == str(loaded.classify_file(tmp_path / "utterance.wav")[3])
        torch.testing.assert_close(torch.tensor(json.loads(values)), expected)


def test_the_same_again_makes_no_commit_and_a_change_makes_one(hub):
    address, changed = push(CONTENT, "user/name")
    assert changed and hub.asked["commit"] == 1 and "/commit/" in address
    assert not push(CONTENT, "user/name")[1]
    assert hub.asked["commit"] == 1 and hub.asked["upload"] == 2
    assert push({**CONTENT, "b.ckpt": b"else"}, "user/name")[1]
    assert hub.asked["commit"] == 2 and hub.asked["upload"] == 3
    assert hub.files("user/name") == {**CONTENT, "b.ckpt": b"else", ".gitattributes": b""}


def test_private_is_private_from_the_start(hub):
    push(CONTENT, "user/mine", private=True)
    assert hub.repos["model", "user/mine"].private
    push(CONTENT, "user/open")
    assert not hub.repos["model", "user/open"].private
    before = hub.files("user/open")
    with pytest.raises(InputError, match="model user/open is public already; make it private in its settings"):
        push({**CONTENT, "secret": b""}, "user/open", private=True)
    assert hub.files("user/open") == before


def test_a_branch_leaves_the_others_alone(hub):
    push(CONTENT, "user/name")
    push({**CONTENT, "b.ckpt": b"else"}, "user/name", revision="v2")
    assert hub.files("user/name")["b.ckpt"] == b"more" and hub.files("user/name", branch="v2")["b.ckpt"] == b"else"


@pytest.mark.parametrize("route", ["whoami", "create", "info", "validate", "preupload", "batch", "upload", "commit"])
def test_a_connection_that_breaks_off_changes_nothing_and_the_next_try_succeeds(hub, quick, route):
    push({"README.md": b"# Old\n"}, "user/name")
    before = hub.files("user/name")
    hub.drop = route
    with pytest.raises(InputError, match=r"^model user/name: http.* cannot be reached \(.*; run the command again; no"):
        push(CONTENT, "user/name")
    assert hub.files("user/name") == before
    hub.drop = ""
    assert push(CONTENT, "user/name")[1]
    assert hub.files("user/name") == {**before, **CONTENT}


@pytest.mark.parametrize(
    ("route", "status"), [("whoami", 401), ("preupload", 403), ("batch", 413), ("upload", 503), ("commit", 401)]
)
def test_a_refusal_is_one_line(hub, quick, route, status):
    hub.status = {route: status}
    with pytest.raises(InputError) as caught:
        push(CONTENT, "user/name")
    known = {401: "does not accept the token", 403: "has no write access"}
    assert known.get(status, f"the Hub refused ({status}, ") in str(caught.value)
    assert "\n" not in str(caught.value) and str(caught.value).endswith("; no file there was changed")
    if route != "whoami":
        assert set(hub.files("user/name")) == {".gitattributes"}


def test_a_wrong_token_and_a_stranger_s_name_are_refused(hub, monkeypatch):
    with pytest.raises(InputError, match="model other/name: the token has no write access"):
        push(CONTENT, "other/name")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(InputError, match="the Hub does not accept the token; make one"):
        push(CONTENT, "user/name")
    monkeypatch.delenv("HF_TOKEN")
    asked = sum(hub.asked.values())
    with pytest.raises(InputError, match="publishing needs a token of the Hub; make one with write access"):
        push(CONTENT, "user/name")
    assert not hub.repos and sum(hub.asked.values()) == asked


def test_a_hub_that_is_not_there_is_one_line(hub, quick, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9 cannot be reached \(.*refused"):
        push(CONTENT, "user/name")


@pytest.mark.parametrize("name", ["name", "user/name/more", "user/", "a b/c", "../x", "user/a--b"])
def test_other_names_than_those_of_repositories_are_refused(name):
    with pytest.raises(InputError, match="is not USER/NAME"):
        check_name(name)


def test_a_dry_run_shows_all_and_asks_for_nothing(hub, tmp_path, write_run, monkeypatch, capsys):
    model = write_run(tmp_path / "fold1")
    reference = json.loads((model / "reference.json").read_text())
    monkeypatch.setattr(publishing, "check_model_folder", lambda folder: reference)  # in a separate process, elsewhere
    monkeypatch.delenv("HF_TOKEN")
    publish(model, "--repo_id", "user/name", "--dry_run", "--space", "--card", tmp_path / "card.md")
    printed = capsys.readouterr().out
    assert (tmp_path / "card.md").read_bytes() == model_files(model, "user/name")["README.md"]
    with pytest.raises(SystemExit, match="--card writes a file here; give --dry_run as well"):
        publish(model, "--repo_id", "user/name", "--card", tmp_path / "card.md")
    assert not hub.asked and not hub.repos
    sizes = {name: size.replace(",", "") for size, name in re.findall(r"^ *([\d,]+)  (\S+)$", printed, re.MULTILINE)}
    assert all(sizes[name] == str((model / name).stat().st_size) for name in FILES)
    assert {"reference.json", "confusion.png", "app.py", "requirements.txt"} <= set(sizes)
    assert "license: cc-by-nc-sa-4.0" in printed and "nothing was published" in printed


def test_a_card_of_ones_own_and_a_map_are_published_as_they_are(model, monkeypatch):
    (model / "README.md").write_text("# My own\n")
    (model / "map.npz").write_bytes(b"points")
    (model / "lineage.json").write_text("[]")
    reference = json.loads((model / "reference.json").read_text())
    monkeypatch.setattr(publishing, "check_model_folder", lambda folder: reference)
    files = model_files(model, "user/name")
    assert files["README.md"] == b"# My own\n" and files["map.npz"] == model / "map.npz"
    assert files["lineage.json"] == model / "lineage.json"


def test_a_graph_is_published_if_it_is_of_this_model(model, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    own = shutil.copytree(WEIGHTS_FOLDER / "emotions", tmp_path / "emotions")
    monkeypatch.setattr(publishing, "check_model_folder", lambda folder: {})
    assert model_files(own, "user/name")["model.onnx"] == own / "model.onnx"
    shutil.copy(own / "model.onnx", model)
    with pytest.raises(InputError, match=r"model\.onnx is .*; export it again, or delete it"):
        model_files(model, "user/name")
    monkeypatch.setattr(publishing, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"model\.onnx cannot be checked; pip install onnxruntime, or delete it"):
        model_files(model, "user/name")


def test_the_space_shows_the_model(monkeypatch):
    done = []
    app = types.SimpleNamespace(launch=lambda: done.append("launched"))
    demo = types.SimpleNamespace(make_app=lambda *names, **options: done.append((*names, options)) or app)
    monkeypatch.setitem(sys.modules, "ser_plugins.commands.page", demo)
    exec(space_files("user/name", "v1")["app.py"], {})
    assert done == [("user/name", {"revision": "v1"}), "launched"]


def test_a_folder_of_before_is_written_again_as_the_docs_say(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.rename("encoder")
    for name in ("model.safetensors", "reference.json"):
        Path("encoder", name).unlink()
    Path("encoder", "config.json").write_text('{"speechbrain_interface": "EncoderClassifier"}')
    before = Path("encoder", "embedding_model.ckpt").read_bytes()
    exec(next(block for block in blocks(DOCS) if "save_model_folder" in block), {})
    assert ser_plugins.load("new/encoder").hparams.label_encoder.decode_torch(torch.arange(3)) == [
        "neutral",
        "happy",
        "sad",
    ]
    assert torch.load("new/encoder/embedding_model.ckpt").keys() == torch.load("encoder/embedding_model.ckpt").keys()
    assert Path("new/encoder/reference.json").is_file() and Path("encoder/embedding_model.ckpt").read_bytes() == before


def test_a_model_whose_test_speakers_are_in_training_is_refused(tmp_path, write_run):
    with pytest.raises(InputError, match="--split utterance, so its figures are not of unheard speakers"):
        model_files(write_run(tmp_path / "one" / "fold1", split="utterance"), "user/name")
    assert "README.md" in model_files(write_run(tmp_path / "other" / "fold1", split="speaker"), "user/name")
