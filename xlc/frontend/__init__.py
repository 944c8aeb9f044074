"""From a Python function to a Graph: traced values, NumPy's rules of promotion and indexing, nested arguments, ``jit``."""

from . import array  # noqa: F401  (first: the modules of this package that need its class are imported at its end)
