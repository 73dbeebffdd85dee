"""The stages: each reads by path, calls the core, writes by path and returns a manifest."""

from tasks.home import prepare_environment

prepare_environment()  # before anything imports prefect or mlflow: both read their settings at import
