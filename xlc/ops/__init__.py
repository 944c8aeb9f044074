"""The operator table: importing this package declares every operator."""

from . import composite, index, linalg, random, reduce, scalar, shape  # noqa: F401
