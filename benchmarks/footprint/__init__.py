"""Carbon, water and money of measured energy and time."""
