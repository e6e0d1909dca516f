"""The experiment file: strict, frozen tables, their rules, and the shipped presets."""
