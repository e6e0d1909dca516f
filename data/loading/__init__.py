"""A store to batches: the order of samples, blends, packing, and the loaders."""
