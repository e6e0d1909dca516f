"""Durable files: atomic replacement, new folders, locks and checksums."""
