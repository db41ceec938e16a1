"""Results of finished runs: measures, tables and figures."""
