"""What can go wrong, as a tree.

TutelageError
├── SpecError        a dataset spec or a recipe can't be used
├── DataError        readings can't be used
│   ├── QualityError they break the spec's tolerances
│   └── GapsError    a part of the history has too few windows without a gap
├── LeakError        a forecast changes with what a student must not see
├── RegistryError    a model's version is not there, or can't be what is asked of it
└── BusyError        the same work is already running

None of these is cured by trying again: the pipeline spends no retry on them.
"""


class TutelageError(Exception):
    """The root: a fault of the input or the configuration, told in a sentence for its reader."""


class SpecError(TutelageError):
    """A dataset spec, a recipe or a set of parameters can't be used."""


class DataError(TutelageError):
    """Readings can't be used: the file, the columns or the times are not what the spec says."""


class QualityError(DataError):
    """More rows break a rule than the dataset spec tolerates."""


class GapsError(DataError):
    """Too few windows of a part of the history are whole: gaps, or masked readings, are in the others."""


class LeakError(TutelageError):
    """A forecast depends on something that its student must not see."""


class RegistryError(TutelageError):
    """A registered model has no such version, or the version can't be what is asked of it."""


class BusyError(TutelageError):
    """A living process is already at the same work."""
