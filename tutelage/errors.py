"""What can go wrong, as a tree.

TutelageError
├── SpecError        a dataset spec or a recipe can't be used
├── DataError        readings can't be used
│   ├── QualityError more readings break a rule than the spec tolerates
│   └── GapsError    a part of the history has too few windows without a gap
├── LeakError        a forecast changes with data that a student must not see
├── RegistryError    a model version does not exist, or can't be used as requested
├── BusyError        the same work is already running
├── FleetError       one or more of several retrains failed
└── UnreachableError a source does not answer

Retrying cures none of these but the last, so the pipeline retries no other.
"""


class TutelageError(Exception):
    """The root: a fault of the input or the configuration, described in one sentence for the reader."""


class SpecError(TutelageError):
    """A dataset spec, a recipe or a set of parameters can't be used."""


class DataError(TutelageError):
    """Readings can't be used: the file, the columns or the times don't match the spec."""


class QualityError(DataError):
    """More rows break a rule than the dataset spec tolerates."""


class GapsError(DataError):
    """A part of the history has too few complete windows: the others contain gaps or masked readings."""


class LeakError(TutelageError):
    """A forecast depends on data that its student must not see."""


class ExportError(TutelageError):
    """An exported model does not forecast what its network does."""


class RegistryError(TutelageError):
    """A registered model has no such version, or the version can't be used as requested."""


class BusyError(TutelageError):
    """Another running process is already doing the same work."""


class FleetError(TutelageError):
    """One or more of the retrains of a fleet failed; the others are done."""


class UnreachableError(TutelageError):
    """An object store or a database does not answer, or not as it should; it may, a little later."""
