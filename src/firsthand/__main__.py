"""`python -m firsthand` is `firsthand`."""

import sys

from firsthand.cli import main

sys.exit(main())
