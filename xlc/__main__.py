"""``python -m xlc``: see ``xlc/tools/cli.py``."""

import sys

from .tools.cli import main

sys.exit(main())
