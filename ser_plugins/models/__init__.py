"""Backbones, poolings, the utterance encoder and classifiers."""
