"""Seconds of one optimizer step of a layout, by term."""
