"""Caches and results that are old, removed from the home."""

import time
from itertools import chain

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact

from runtime.registry import registered_runs
from runtime.retention import CACHES, RESULTS, bytes_by_folder, old_ones, remove
from runtime.stage import stage
from schemas.tidy import TidiedManifest, TidyParameters

DAY_SECONDS = 24 * 3600


@stage("remove old", run_name="remove old")
def remove_old(parameters: TidyParameters) -> TidiedManifest:
    """Remove what is old, or only list it; publish how much that is, by folder.

    The results of the run of each registered version stay, and so does each task's newest report.
    """
    begun = time.time()
    old = chain(
        old_ones(CACHES, begun - parameters.cache_days * DAY_SECONDS),
        old_ones(RESULTS, begun - parameters.result_days * DAY_SECONDS, keep=registered_runs()),
    )
    sizes = bytes_by_folder(old) if parameters.only_list else remove(old)
    megabytes = [{"folder": folder, "MB": round(size / 1e6, 1)} for folder, size in sorted(sizes.items())]
    verb = "would be removed" if parameters.only_list else "removed"
    sentence = f"{sizes.total() / 1e6:.1f} MB {verb}"
    create_table_artifact(megabytes, key="tidy", description=sentence)
    get_run_logger().info("%s", sentence)
    return TidiedManifest(removed_bytes=dict(sizes))
