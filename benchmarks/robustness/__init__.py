"""The figures of `stress.py`, one a file, each a class whose `case(seed)` tries one thing."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests" / "fixtures"))  # where `loopback` is
