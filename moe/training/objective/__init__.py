"""What a step minimizes: language modelling, answers, preferences; and its micro-batches."""
