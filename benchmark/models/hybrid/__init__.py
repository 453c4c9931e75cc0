"""Models with another model inside."""
