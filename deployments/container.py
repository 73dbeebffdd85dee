"""One part of the service as the process of a container: `python -m deployments.container PART`, and `… ready PART`.

The parts are those that `deployments.service` starts on one machine, with the same commands. `databases` and `deploy`
end when they are done. Where the others are reached is in the environment, see compose.yaml and kubernetes.yaml.
"""

import os
import subprocess
import sys
import time

from deployments.access import write_access
from deployments.databases import create_databases
from deployments.processes import ServiceError
from deployments.service import ARRANGE, DEPLOY, REPLAY, keep_time, servers, shared_settings, worker
from runtime.paths import home

PARTS = ("databases", "prefect", "mlflow", "deploy", "replay", "worker")


def start(part: str) -> None:
    """Do a part's work, or become its process, so that a container's signals reach it.

    Raises ServiceError where it can't start.
    """
    if part == "databases":
        create_databases()
        return
    folder = home() / "service"
    folder.mkdir(parents=True, exist_ok=True)
    environment = shared_settings()
    if part == "deploy":
        _run(ARRANGE, environment)
        _run(DEPLOY, environment)
        return
    if part == "replay":
        _run(REPLAY, environment)
        failing = False
        while True:
            time.sleep(1)
            failing = keep_time(was_failing=failing)
    if part == "mlflow":
        write_access(folder)
    [command] = [each.command for each in [*servers(), worker()] if each.name == part]
    os.execve(command[0], command, environment)


def _run(command: list[str], environment: dict[str, str]) -> None:
    if subprocess.run(command, env=environment, check=False).returncode != 0:
        raise ServiceError(f"{' '.join(command[1:])} failed")


def is_ready(part: str) -> bool:
    """Whether a server answers in this container."""
    return next(each for each in servers() if each.name == part).ready()


def main(arguments: list[str]) -> int:
    """Start a part, or say whether a server is ready; 0 where that went well."""
    try:
        match arguments:
            case ["ready", "prefect" | "mlflow" as part]:
                return 0 if is_ready(part) else 1
            case [part] if part in PARTS:
                start(part)
                return 0
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"name a part: {', '.join(PARTS)}; or ready, and a server", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
