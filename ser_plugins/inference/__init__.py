"""Models on files: a table of predictions or embeddings, and emotion over time in long recordings."""

from ser_plugins.inference.timeline import timeline, timeline_figure
from ser_plugins.inference.utterances import embed, predict
from ser_plugins.inference.voice import adapt

__all__ = ["adapt", "embed", "predict", "timeline", "timeline_figure"]
