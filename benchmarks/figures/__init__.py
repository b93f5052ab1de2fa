"""One file a figure: `measure()` returns what it found. `benchmarks/run.py` runs them and prints the table."""
