"""The operator table: importing this package declares every operator."""

from . import composite, conv, index, linalg, reduce, scalar, shape, window  # noqa: F401
