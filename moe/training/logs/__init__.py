"""What is written of a run while it trains: metrics, progress, events, totals, the record."""
