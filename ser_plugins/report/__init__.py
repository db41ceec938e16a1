"""Tables and figures from results on disk."""
