"""Models of somebody else, in a package of their own."""
