"""`python -m onceover.cli`: the command line where the script `onceover` is not on the path."""

from __future__ import annotations

import sys

from onceover.cli import main

sys.exit(main())
