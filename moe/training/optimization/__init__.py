"""How a step changes the weights: optimizers, and guards that refuse bad steps."""
