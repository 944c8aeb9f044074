"""The operator table: importing this package declares every operator."""

from . import composite, control, conv, index, linalg, random, reduce, scalar, shape, window  # noqa: F401
