"""Who reaches the servers: this machine alone, or others, too, with a user and a password."""

import base64
import ipaddress
import os
import secrets
from pathlib import Path

from deployments.processes import ServiceError
from tutelage.files import written_whole

HOST, USER, PASSWORD = "TUTELAGE_HOST", "TUTELAGE_USER", "TUTELAGE_PASSWORD"
LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
LEAST_CHARACTERS = 12
"""MLflow takes no shorter password."""
MLFLOW_ACCESS = """[mlflow]
default_permission = MANAGE
database_uri = sqlite:///{database}
admin_username = {user}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def listening_host() -> str:
    """The address that both servers listen on: TUTELAGE_HOST, by default this machine's own."""
    return os.environ.get(HOST, LOOPBACK)


def own_host() -> str:
    """The address at which processes of this machine reach the servers."""
    return LOOPBACK if listening_host() == EVERYWHERE else listening_host()


def credentials() -> tuple[str, str] | None:
    """The user and the password that both servers ask for; None: they ask for none.

    Raises ServiceError where one of the two is missing or unfit, or where others could reach the servers without any.
    """
    user, password = os.environ.get(USER, ""), os.environ.get(PASSWORD, "")
    if not user and not password:
        if not _is_loopback(listening_host()):
            raise ServiceError(
                f"on {listening_host()} others reach the servers, so they must ask for a password: set {USER} and "
                f"{PASSWORD}, or leave {HOST} away"
            )
        return None
    if not user or not password or ":" in user:
        raise ServiceError(f"{USER} and {PASSWORD} go together, and a user's name has no colon")
    if len(password) < LEAST_CHARACTERS:
        raise ServiceError(f"{PASSWORD} is too short: MLflow asks for {LEAST_CHARACTERS} characters or more")
    return user, password


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def header() -> dict[str, str]:
    """The header of a request with the credentials; none where the servers ask for none."""
    known = credentials()
    return {} if known is None else {"Authorization": f"Basic {base64.b64encode(':'.join(known).encode()).decode()}"}


def access_settings(folder: Path) -> dict[str, str]:
    """The variables by which servers ask for the credentials, and clients give them.

    MLflow's users are made anew at each start, so that a new password holds; the file has the password's hash alone.
    """
    known = credentials()
    if known is None:
        return {}
    user, password = known
    return {
        "PREFECT_SERVER_API_AUTH_STRING": f"{user}:{password}",
        "PREFECT_API_AUTH_STRING": f"{user}:{password}",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "access.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        "MLFLOW_TRACKING_USERNAME": user,
        "MLFLOW_TRACKING_PASSWORD": password,
    }


def write_access(folder: Path) -> None:
    """Write MLflow's configuration of access, and forget the users of an earlier start."""
    known = credentials()
    if known is None:
        return
    database = folder / "access.db"
    database.unlink(missing_ok=True)
    with written_whole(folder / "access.ini") as part:
        part.write_text(MLFLOW_ACCESS.format(database=database, user=known[0]), encoding="utf-8")
