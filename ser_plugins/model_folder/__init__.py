"""Model folders: saving, loading without YAML or pickles, checking, and the conversion of published weights."""
