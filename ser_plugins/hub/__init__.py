"""The Hugging Face Hub: model cards, publishing and the Space."""
