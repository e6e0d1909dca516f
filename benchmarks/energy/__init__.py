"""Meters of a run: sources of energy readings, phases, totals, and the record."""
