"""The paper's experiments: tables, figures, sweeps, published numbers and the report page."""
