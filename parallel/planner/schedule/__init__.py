"""When each pipeline stage runs which pass, and how long the step takes: *modelled*."""
