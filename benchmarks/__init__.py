"""``python -m benchmarks``: xlc beside its peers, in one run, on the same arrays. See docs/performance.md."""
