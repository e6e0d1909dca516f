"""Use of a trained model: held-out loss, generation, tasks, and an audit of memorization."""
