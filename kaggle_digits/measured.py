"""What each recipe reached here. Made by benchmarks/recipes_table.py from the files of a comparison; do not edit."""

MEASURED: dict[str, str] = {}
MEASURED_HOW = ""
