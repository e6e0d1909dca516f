"""The experiment: one strict, frozen TOML file, checked without asking any hardware."""
