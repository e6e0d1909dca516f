"""Predicts, before a run starts, what a layout needs: memory, and the order of its passes."""
