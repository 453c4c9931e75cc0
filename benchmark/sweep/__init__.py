"""Studies of hyperparameters and of stability. Never sees the test split, and imports no torch."""
