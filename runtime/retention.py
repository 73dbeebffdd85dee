"""What may go from `home()`: caches that nothing has used for a while, and the results of runs that are old.

All of the caches can be computed or downloaded again. A stage that takes a cached result marks its files as used
(`runtime.caching`), so their age is the time since they were last of use. MLflow's and Prefect's own files stay.
"""

import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from runtime.paths import home

CACHES = (
    "data/fetched/*/*",
    "data/readings/*",
    "data/validated/*",
    "data/quarantine/*",
    "data/features/*",
    "data/recent/*",
    "trainings/*/*",
    "checkpoints/*",
    "versions/*/*",
    "results/*",
)
RESULTS = ("runs/*", "reports/*", "backtests/*/*", "ablations/*/*", "studies/*", "forecasts/*/*", "monitoring/*/*")
LATEST = "reports/latest"
"""The folder with a link to each task's newest report."""
LEAVING = ".removed"
"""The folder that they are renamed into first: a half removed result is never taken for a whole one."""


def mark_used(path: Path) -> None:
    """Give a file or folder the present time, where it is there."""
    with suppress(FileNotFoundError):
        os.utime(path)


def _entries(path: Path) -> Iterator[os.stat_result]:
    """The state of a file, or of a folder and all that is in it; what is removed meanwhile is left out."""
    for each in [path, *path.rglob("*")]:
        with suppress(FileNotFoundError):
            yield each.lstat()


def old_ones(patterns: Iterable[str], before: float, keep: Collection[str] = ()) -> Iterator[Path]:
    """What nothing has changed or used since a time (seconds since 1970); each is looked at when it is yielded.

    keep: names that stay, such as ids of runs; each task's newest report stays, too
    """
    root = home()
    newest = {link.resolve().name for link in (root / LATEST).glob("*")}
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            stays = path == root / LATEST or path.name in newest or path.name in keep
            if not stays and max((entry.st_mtime for entry in _entries(path)), default=before) < before:
                yield path


def bytes_by_folder(paths: Iterable[Path]) -> Counter[str]:
    """Bytes of files and folders by the folder of `home()` that they are in, such as trainings/teacher."""
    sizes: Counter[str] = Counter()
    for path in paths:
        files = (entry.st_size for entry in _entries(path) if not stat.S_ISDIR(entry.st_mode))
        sizes[str(path.parent.relative_to(home()))] += sum(files)
    return sizes


def remove(paths: Iterable[Path]) -> Counter[str]:
    """Remove files and folders; their `bytes_by_folder`. What an earlier removal that was killed has left goes, too."""
    sizes: Counter[str] = Counter()
    (home() / LEAVING).mkdir(parents=True, exist_ok=True)
    for path in paths:
        sizes.update(bytes_by_folder([path]))
        with suppress(FileNotFoundError):
            path.replace(Path(tempfile.mkdtemp(dir=home() / LEAVING)) / path.name)
    shutil.rmtree(home() / LEAVING)
    return sizes
