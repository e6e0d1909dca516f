"""Natural routing: replayed from a trained run or of a model warmed up here, and what it costs."""
