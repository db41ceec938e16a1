"""Inference on audio files: tables of predictions or embeddings, and emotion over time in long recordings."""

from typing import TYPE_CHECKING

from ser_plugins.lazy import attach

if TYPE_CHECKING:
    from ser_plugins.inference.drawing import timeline_figure
    from ser_plugins.inference.segmentation import segments, write_segments
    from ser_plugins.inference.speaker import adapt, speaker_statistics
    from ser_plugins.inference.timelines import timeline
    from ser_plugins.inference.turns import conversation, read_turns
    from ser_plugins.inference.utterances import embed, predict

__all__ = [
    "adapt",
    "conversation",
    "embed",
    "predict",
    "read_turns",
    "segments",
    "speaker_statistics",
    "timeline",
    "timeline_figure",
    "write_segments",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "drawing": ["timeline_figure"],
        "segmentation": ["segments", "write_segments"],
        "speaker": ["adapt", "speaker_statistics"],
        "timelines": ["timeline"],
        "turns": ["conversation", "read_turns"],
        "utterances": ["embed", "predict"],
    },
)
