"""The run directory: its format, its writer, and every reader."""
