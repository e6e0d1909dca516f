"""Where a model runs: layouts, hardware, precision, process groups and the engine's host."""
