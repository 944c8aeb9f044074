"""The operator table: importing this package declares every operator."""

from . import composite, conv, index, linalg, random, reduce, scalar, shape, window  # noqa: F401
