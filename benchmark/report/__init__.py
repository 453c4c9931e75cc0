"""Records to judgements: whether they are well-formed, whether they come back, and the report that says so."""
