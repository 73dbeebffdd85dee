"""The tests. `check` is how beartype reads annotations: as mypy does, where an int is a float too (PEP 484)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
