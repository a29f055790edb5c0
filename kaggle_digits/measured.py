"""What each recipe reached here. Made by benchmarks/recipes_table.py from files of comparisons."""

MEASURED: dict[str, str] = {}
