"""Corpora: readers, checks and folds."""

from ser_plugins.corpora.cremad import CremaD
from ser_plugins.corpora.merged import Merged
from ser_plugins.corpora.ravdess import Ravdess
from ser_plugins.corpora.speakers import SpeakerFolders
from ser_plugins.corpora.synthetic import Demo

Synthetic = Demo
from ser_plugins.corpora.table import Table

__all__ = ["CremaD", "Demo", "Merged", "Ravdess", "SpeakerFolders", "Table"]
