"""Commands of this room: train, bench, energy, carbon, report, demo, fit, predict."""
