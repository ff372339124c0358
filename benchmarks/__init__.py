"""Side-by-side measurements. `python -m benchmarks [CASE...]` prints tables and writes JSON to benchmarks/results/."""
