"""Training steps: AdamW, and the Huber loss with its gradient and update in one piece."""
