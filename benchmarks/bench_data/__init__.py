"""Benchmarks of data loaders and store builders, beside their peers."""
