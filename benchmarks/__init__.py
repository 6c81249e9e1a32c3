"""Scripts, each run by its path: ``python benchmarks/search.py``."""
