"""What training really costs: meters, measured runs, comparisons and reports."""
