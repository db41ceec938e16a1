"""Inference on audio files: tables of predictions or embeddings, and emotion over time in long recordings."""

from ser_plugins.inference.speaker import adapt, speaker_statistics
from ser_plugins.inference.timeline import timeline, timeline_figure
from ser_plugins.inference.utterances import embed, predict

__all__ = ["adapt", "embed", "predict", "speaker_statistics", "timeline", "timeline_figure"]
