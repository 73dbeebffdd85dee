"""What runs: one file a flow. Importing `tasks` first sets Prefect's and MLflow's defaults."""

import tasks as tasks
