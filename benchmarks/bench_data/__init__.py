"""Loaders and store builders, timed beside their peers."""
