"""Kernel parameters from measured times: of tables for cards; of a user's machine, `records/`."""
