"""Starting the service, setting up the Prefect server, and the dataset specs and recipes."""

import runtime as runtime
