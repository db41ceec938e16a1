"""Corpora: readers, checks and folds."""

from ser_plugins.corpora.corpus import Corpus
from ser_plugins.corpora.cremad import CremaD
from ser_plugins.corpora.merged import Merged
from ser_plugins.corpora.ravdess import Ravdess
from ser_plugins.corpora.speakers import SpeakerFolders
from ser_plugins.corpora.synthetic import Synthetic
from ser_plugins.corpora.table import Table

__all__ = ["Corpus", "CremaD", "Merged", "Ravdess", "SpeakerFolders", "Synthetic", "Table"]
