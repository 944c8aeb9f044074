"""xlc on a GPU beside its peers there: ``python -m benchmarks.gpu``."""
