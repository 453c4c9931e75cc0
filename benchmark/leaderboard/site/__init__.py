"""Records to a static site: pages that need no network, no script to be read, and nobody's trust."""
