"""Packages that training uses and xlc does not depend on: imported when they are needed.

    extra("safetensors.numpy", "checkpoints")      the module, or an XlcImportError that says what to install
"""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import XlcError


class XlcImportError(XlcError, ImportError):
    """A package of the extra ``train`` that is not installed."""


def extra(module: str, purpose: str) -> Any:
    """The module, which ``purpose`` needs."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        if error.name is not None and error.name.split(".")[0] == package:
            raise XlcImportError(f"{purpose} need the package {package}, which is not installed: pip install xlc[train]") from None
        raise XlcImportError(f"{purpose} need the package {package}, which does not import ({error}): pip install xlc[train]") from error
