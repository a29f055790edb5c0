"""The main job from the command line: ``python -m kaggle_digits.submit`` is ``kaggle-digits submit``."""

import sys

from kaggle_digits.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["submit", *sys.argv[1:]]))
