"""A number with unit, source, boundary, kind and interval; units, and numbers as text."""
