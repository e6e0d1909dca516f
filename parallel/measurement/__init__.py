"""A number with its unit, source, boundary, kind and interval; and how units are written."""
