"""Run the command line: ``python -m kaggle_digits``."""

from kaggle_digits.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
