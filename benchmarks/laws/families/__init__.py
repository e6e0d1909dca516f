"""One file for each published family of laws: form, conventions, coefficients, source."""
