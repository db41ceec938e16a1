"""The report as a reader has it: links lead somewhere, numbers are those of the files, columns sort."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser
from urllib.parse import unquote

import pandas as pd
import pytest
from scipy.stats import wilcoxon

from ser_plugins.experiments.page import write_report

CHROMIUM = shutil.which("chromium")
NAMES = ["accuracy", "uar", "macro_f1", "valid_accuracy"]


class Reader(HTMLParser):
    """Tables as rows of (text, link), and what the page refers to."""

    def __init__(self):
        super().__init__()
        self.tables, self.tags, self.links, self.sources, self.titles = [], set(), [], [], []
        self.cell = self.title = None

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        self.sources += [attrs[name] for name in ("src", "srcset") if name in attrs]
        if tag == "a":
            self.links.append(attrs["href"])
        if tag == "h2":
            self.title = ""
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in {"td", "th"}:
            self.cell = ["", None]
        if tag == "a" and self.cell:
            self.cell[1] = unquote(attrs["href"])

    def handle_data(self, data):
        if self.cell:
            self.cell[0] += data
        if self.title is not None:
            self.title += data

    def handle_endtag(self, tag):
        if tag in {"td", "th"}:
            self.tables[-1][-1].append(tuple(self.cell))
            self.cell = None
        if tag == "h2":
            self.titles.append(self.title)
            self.title = None


@pytest.fixture(scope="module")
def page(results):
    return write_report(results)


@pytest.fixture(scope="module")
def read(page):
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    tables = dict(zip([title for title in reader.titles if title != "Figures"], reader.tables, strict=True))
    return reader, tables


def test_every_link_leads_somewhere(page, read):
    reader, _ = read
    assert len(reader.links) > 100
    assert all((page.parent / unquote(link)).exists() for link in reader.links)
    markdown = re.findall(r"\]\(([^)]+)\)", page.with_suffix(".md").read_text(encoding="utf-8"))
    assert len(markdown) > 100 and all((page.parent / unquote(link)).exists() for link in markdown)


def test_the_page_needs_nothing_else_and_says_names_as_they_are(read):
    reader, tables = read
    assert len(reader.sources) == 6 + 1 + 2  # confusion matrices, t-SNE, sweeps
    assert all(source.startswith("data:image/svg+xml;base64,") for source in reader.sources)
    assert not reader.tags & {"b", "v", "link", "iframe"}
    assert "Table 2: <b>own (synthetic audio)" in tables


def test_every_fold_has_the_numbers_of_its_metrics(page, read):
    head, *rows = read[1]["Folds"]
    columns = [text for text, _ in head]
    seen = set()
    for row in rows:
        cells = dict(zip(columns, row, strict=True))
        folder = page.parent / cells["accuracy"][1]
        seen.add(folder)
        metrics = json.loads((folder / "metrics.json").read_text())
        names = (cells["strategy"][0], cells["corpus"][0].split(" (")[0], cells["seed"][0], cells["fold"][0])
        assert names == tuple(str(metrics[name]) for name in ("strategy", "corpus", "seed", "fold"))
        texts = [cells[name][0] for name in ("accuracy", "UAR", "macro F1", "validation")]
        assert texts == [f"{100 * metrics[name]:.2f}" for name in NAMES]
        assert cells["minutes"][0] == f"{metrics['seconds'] / 60:.2f}"
        setting = cells["setting"][0].split()
        assert setting == (list(folder.parts[-6:-4]) if "sweeps" in folder.parts else ["–"])
    assert seen == {path.parent for path in page.parent.rglob("metrics.json")}


def test_means_of_sweeps_are_over_the_folds_that_all_have(page, read):
    head, *rows = read[1]["Sweep of clusters"]
    assert [text for text, _ in head][3] == "clusters" and len(rows) == 4
    for row in rows:
        (value, _), (valid, folder), (accuracy, _), (folds, _) = row[3:]
        metrics = [json.loads((page.parent / folder / f"fold{k}" / "metrics.json").read_text()) for k in (1, 2)]
        assert folds == "1, 2" and f"sweeps/clusters/{value}/" in folder
        assert accuracy == f"{50 * sum(one['accuracy'] for one in metrics):.2f}"
        assert valid == f"{50 * sum(one['valid_accuracy'] for one in metrics):.2f}"


def test_provenance_is_that_of_the_runs(read):
    head, *rows = read[1]["Provenance"]
    cells = [dict(zip([text for text, _ in head], [text for text, _ in row], strict=True)) for row in rows]
    s3 = next(row for row in cells if (row["strategy"], row["setting"]) == ("S3", "–"))
    assert s3["commit"] == "0123456789" * 4 and s3["SHA-256 of folds.csv"] == "s3" * 32
    assert s3["command"] == "python recipes/train.py hparams/s1.yaml --corpus 'ra <v> dess'"
    assert s3["versions"] == "torch 2.11.0, numpy 2.4.6"
    assert next(row for row in cells if row["corpus"] == "cremad")["commit"] == "–"


def test_experiments_on_the_same_utterances_are_compared(tmp_path, fold):
    skills = {"S1": 0.3, "S3": 0.9, "S5": 0.5}
    for strategy, skill in skills.items():
        for k in range(1, 7):
            fold(tmp_path / strategy / "ravdess/1", k, skill, strategy=strategy, corpus="ravdess", seed=1)
    fold(tmp_path / "S4/ravdess/1", 1, 0.5, strategy="S4", corpus="ravdess", seed=1)  # of one fold
    reader = Reader()
    reader.feed(write_report(tmp_path).read_text(encoding="utf-8"))
    tables = dict(zip([title for title in reader.titles if title != "Figures"], reader.tables, strict=True))
    [(title, (head, *rows))] = [pair for pair in tables.items() if pair[0].startswith("Differences")]
    names = [f"{strategy}/ravdess/1" for strategy in skills]
    assert [text for text, _ in head] == ["", *names[1:]] and [row[0][0] for row in rows] == names[:2]

    actors = {}
    for name in names:
        tables = [pd.read_csv(tmp_path / name / f"fold{k}/predictions.csv") for k in range(1, 7)]
        table = pd.concat(tables).assign(right=lambda one: one["emotion"] == one["predicted"])
        actors[name] = table.groupby("speaker")["right"].agg(["mean", "sum"])
        size = len(table)
    assert title == f"Differences in accuracy: ravdess, {size} utterances"
    pairs = [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]
    p = [wilcoxon(actors[a]["mean"] - actors[b]["mean"]).pvalue for a, b in pairs]
    cells = [rows[0][1][0], rows[0][2][0], rows[1][2][0]]
    for (a, b), cell, corrected in zip(pairs, cells, holm_by_hand(p), strict=True):
        value = 100 * (actors[a]["sum"].sum() - actors[b]["sum"].sum()) / size
        found = re.fullmatch(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\], p ([\d.]+)", cell)
        shown, low, high, p_shown = map(float, found.groups())
        assert shown == pytest.approx(value, abs=0.051) and low < shown < high
        assert p_shown == pytest.approx(corrected, abs=6e-4)
    assert rows[1][1][0] == ""


def holm_by_hand(p):
    """Correct p-values as Holm did, one by one."""
    order, found, largest = sorted(range(len(p)), key=lambda i: p[i]), [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        found[i] = largest
    return found


PROBE = """<script>
addEventListener("load", () => {
  const table = [...document.querySelectorAll("table")].at(-2);
  const column = name => [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === name);
  const values = name => [...table.tBodies[0].rows].map(row => row.cells[column(name)].textContent);
  const click = name => (table.tHead.rows[0].cells[column(name)].firstChild.click(), values(name));
  parent.document.body.textContent = JSON.stringify({
    up: click("accuracy"), down: click("accuracy"), fold: click("fold"), setting: click("setting"),
    sorted: table.querySelectorAll("[aria-sort]").length,
    width: innerWidth, overflow: document.documentElement.scrollWidth,
    images: [...document.images].every(image => image.naturalWidth > 0 && image.clientWidth <= innerWidth),
  });
});
</script></html>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_sorts_and_shows_it_within_its_width(page, tmp_path, width):
    probed = escape(page.read_text(encoding="utf-8").replace("</html>", PROBE))
    frame = tmp_path / "frame.html"  # a window is never as narrow as a phone; a frame is
    frame.write_text(f'<!DOCTYPE html><iframe style="border: 0; width: {width}px; height: 800px" srcdoc="{probed}">')
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    words += ["--dump-dom", frame.as_uri()]
    dom = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
    found = json.loads(unescape(re.search(r"<body>(.*)</body>", dom, re.DOTALL)[1]))
    assert found["width"] == width and found["overflow"] <= width
    assert found["images"]
    numbers = [float(text) for text in found["up"]]
    assert numbers == sorted(numbers) and len(numbers) > 20
    assert [float(text) for text in found["down"]] == numbers[::-1]
    assert [int(text) for text in found["fold"]] == sorted(int(text) for text in found["fold"])
    settings = ["–", "alpha 0.05", "alpha 0.1", "clusters 4", "clusters 10"]
    assert list(dict.fromkeys(found["setting"])) == settings and found["sorted"] == 1
