"""From a file to a spectrogram."""
