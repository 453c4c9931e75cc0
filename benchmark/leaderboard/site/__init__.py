"""Records to a static site: pages that need no network, and no script to be read."""
