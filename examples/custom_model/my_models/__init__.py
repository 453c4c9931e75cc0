"""Someone else's models, in their own package."""
