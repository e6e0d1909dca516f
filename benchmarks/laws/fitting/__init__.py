"""From points to coefficients: seeds, descent, intervals, what cannot be told, extrapolation."""
