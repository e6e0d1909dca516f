"""What a layout needs before it runs: memory of states and of activations."""
