"""Corpora: readers, checks and folds."""
