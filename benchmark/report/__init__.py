"""Records to judgements: whether they are well-formed, whether they are reproduced, and the report that says so."""
