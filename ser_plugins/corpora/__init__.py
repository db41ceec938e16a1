"""Corpora: readers, checks and folds."""

from ser_plugins.corpora.synthetic import Demo

__all__ = ["Demo"]
