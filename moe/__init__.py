"""What a sparse Transformer is, what it costs and how it learns."""
