"""Records and studies to views: what pages show, as dataclasses of plain values, without any markup."""
