"""Commands of this room: cost, presets, schema, eval, generate, audit, convert."""
