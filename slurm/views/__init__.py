"""What users see: status, accounting, logs, and their tables."""
