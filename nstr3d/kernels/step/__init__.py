"""Training steps: AdamW, and a compiled step of the Huber loss, its gradient and the update."""
