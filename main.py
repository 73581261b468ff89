"""Run one experiment: `python main.py --config entity/configs/mnist5k/drop.json --DPR 0.25`."""

import sys

from entity.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
