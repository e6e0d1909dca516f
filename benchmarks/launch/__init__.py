"""A training run with its meters and loggers: one process, many, or a dry run."""
