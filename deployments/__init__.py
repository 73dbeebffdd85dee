"""How the services start, what the Prefect server holds, and the dataset specs."""

import tasks as tasks
