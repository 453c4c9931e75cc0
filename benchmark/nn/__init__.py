"""Blocks that three models or more share, and optimisers that torch lacks."""
