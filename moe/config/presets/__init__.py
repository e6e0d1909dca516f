"""Shipped models: one TOML file each, read by `catalog.py`."""
