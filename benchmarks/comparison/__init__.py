"""Runs against runs: quantities, seeds, dense against sparse, Pareto fronts, the finding."""
