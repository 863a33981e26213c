"""Fine-tuning: a fresh run whose weights come from a file (`train.initial_weights`)."""
