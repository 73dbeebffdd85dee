"""Shared by all stages: paths, caching, the clock, MLflow runs, the registry, artifacts, progress.

Importing this package sets the defaults of Prefect and MLflow. It must be imported before them: both read their
settings at import.
"""

from runtime.paths import prepare_environment

prepare_environment()
