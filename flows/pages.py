"""Serve the pages of past runs: `python -m flows.pages mlflow` or `prefect`; Ctrl-C ends them."""

import os
import sys
from pathlib import Path

import runtime as runtime  # sets where both keep their files

COMMANDS = {
    "mlflow": [
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        os.environ.get("MLFLOW_PORT", "5000"),
        "--workers",
        "1",
    ],
    "prefect": [
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        os.environ.get("PREFECT_PORT", "4200"),
    ],
}


def main() -> None:
    """Replace this process by the named server."""
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name not in COMMANDS:
        sys.exit(f"name a page to serve: {' or '.join(COMMANDS)}")
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": os.environ["MLFLOW_TRACKING_URI"],
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # Without it the page calls port 4200, whichever port the server listens on.
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{COMMANDS['prefect'][-1]}/api",
    }
    command = COMMANDS[name]
    program = Path(sys.executable).parent / command[0]
    os.execve(program, [str(program), *command[1:]], environment)


if __name__ == "__main__":
    main()
