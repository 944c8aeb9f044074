"""``python -m xlc.tools``: the same as ``python -m xlc``."""

import sys

from .cli import main

sys.exit(main())
