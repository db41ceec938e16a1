"""Cases of benchmarks/run.py: each module compares one part of the package with another way to the same result."""
