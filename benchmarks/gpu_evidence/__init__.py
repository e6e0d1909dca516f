"""What is proven on a real card: tests and benchmarks in parts, kept in `benchmarks/results/`."""
