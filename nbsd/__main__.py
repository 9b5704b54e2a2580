"""`python -m nbsd` is `nbsd`."""

from __future__ import annotations

import sys

from nbsd.cli import main

sys.exit(main())
