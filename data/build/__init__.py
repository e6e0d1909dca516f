"""Documents to a token store: work units, worker pool, deduplication, assembly."""
