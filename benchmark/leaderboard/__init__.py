"""Records to statistics to tables. Never imports torch."""
