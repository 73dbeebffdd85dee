"""The flows, one file each. `runtime` is imported first, because it sets the defaults of Prefect and MLflow."""

import runtime as runtime
