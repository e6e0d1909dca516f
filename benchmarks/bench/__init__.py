"""Benchmarks of training and inference, and of what a step consists of."""
