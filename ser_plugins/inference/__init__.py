"""Models on files: a table of predictions or embeddings, and emotion over time in long recordings."""

from ser_plugins.inference.timeline import timeline, timeline_figure
from ser_plugins.inference.utterances import embed, predict

__all__ = ["embed", "predict", "timeline", "timeline_figure"]
