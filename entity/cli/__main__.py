"""`python -m entity.cli`."""

import sys

from entity.cli import main

sys.exit(main())
