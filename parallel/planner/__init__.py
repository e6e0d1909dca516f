"""Predicts, before a run starts, what a layout needs: memory so far."""
