"""The documentation builds without a warning and without a network, and its links lead somewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


class Links(HTMLParser):
    """Targets and names of a page."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.names = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.names.add(given.get("id"))
        self.targets |= {given[key] for key in ("href", "src") if given.get(key)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    # Whatever asks for another machine fails at once.
    (folder / "sitecustomize.py").write_text("import socket\nsocket.getaddrinfo = socket.create_connection = None\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    words = ["-W", "--keep-going", "-q", "-d", folder / "doctrees", ROOT / "docs", folder / "html"]
    command = [sys.executable, "-m", "sphinx", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder / "html"


def test_every_page_is_built(site):
    assert {path.stem for path in site.glob("*.html")} >= {Path(page).stem for page in PAGES}


def test_links_between_pages_lead_somewhere(site):
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in site.glob("*.html")}
    for path, page in pages.items():
        for target in page.targets:
            file, _, name = target.partition("#")
            if re.match(r"[a-z]+:|//", target) or path.name in {"genindex.html", "search.html"}:
                continue
            there = (path.parent / file.split("?")[0]).resolve() if file else path
            assert there.exists(), f"{path.name}: {target}"
            assert not name or there not in pages or name in pages[there].names, f"{path.name}: {target}"


def test_public_names_are_documented(site):
    import ser_plugins
    from ser_plugins import corpora

    names = Links((site / "api.html").read_text(encoding="utf-8")).names
    assert {f"ser_plugins.{name}" for name in ser_plugins.__all__} <= names
    assert {f"ser_plugins.corpora.{name}" for name in corpora.__all__} <= names
