"""The cases of benchmarks/run.py: each module measures one of ours against another way to the same end."""
