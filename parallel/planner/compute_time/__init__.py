"""Seconds of kernels on one card, from sizes and the card's physical parameters."""
