"""Sphinx's settings: `make docs`."""

import re
from importlib.metadata import version as version_of

from sphinx.application import Sphinx

project = "ser-plugins"
author = "the ser-plugins authors"
copyright = author
version = release = version_of("ser-plugins")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "ser-plugins"
exclude_patterns = ["README.md"]

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
nitpicky = True  # of our own names; those of other libraries are in no index that is at hand
nitpick_ignore_regex = [("py:.*", r"(?!ser_plugins).*")]
default_role = "code"  # docstrings name classes so
autodoc_typehints = "none"  # they stand in the docstrings
autodoc_member_order = "bysource"
napoleon_use_rtype = False
TABLES = re.compile(r"(?<!!)(\[[^\]]+\])\((?:\.\./)?((?:benchmarks|ser_plugins/weights)/[^)]+)\)")


def setup(app: Sphinx) -> None:
    """Link to the tables of benchmarks/ and to the cards of weights/, which are no pages of these, as to files."""
    app.connect("source-read", lambda _, name, text: link_tables(text))
    app.connect("include-read", lambda _, path, name, text: link_tables(text))


def link_tables(text: list[str]) -> None:
    """Change the text of a page, the only item of the list."""
    text[0] = TABLES.sub(r"\1(path:../\2)", text[0])
