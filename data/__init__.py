"""From documents to batches: sources, tokenisers, the Arrow token store, order and loader."""
