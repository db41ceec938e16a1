"""SpeechBrain plugins for speech emotion embeddings."""
