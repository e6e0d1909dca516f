"""Input files and streams: what to read, in which units of work, and readers by format."""
