"""Evaluation: measures, confidence intervals, results on disk, their summaries and figures."""
