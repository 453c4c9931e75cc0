"""Kinds of data as people know them: how each is shown, its simple baselines, and the small universes of its laws."""
