"""The databases of the two servers: SQLite under TUTELAGE_HOME, or PostgreSQL."""

import asyncio
import os
from urllib.parse import SplitResult, urlsplit

from deployments.processes import ServiceError
from runtime.paths import home

SERVER = "TUTELAGE_DATABASE_URL"
SETTINGS = {"prefect": "PREFECT_API_DATABASE_CONNECTION_URL", "mlflow": "MLFLOW_BACKEND_STORE_URI"}
DRIVERS = {"prefect": "asyncpg", "mlflow": "psycopg"}
UNREADABLE = (
    f"{SERVER} can't be read: it must be postgresql://user:password@host:port, with each of / : @ # ? % [ ] in the "
    "password percent-encoded"
)


def _server() -> SplitResult | None:
    """The PostgreSQL server's URL; None where there is none.

    Raises ServiceError where it can't be read. No sentence quotes it, since its parts may be pieces of the password.
    """
    text = os.environ.get(SERVER)
    if not text:
        return None
    try:
        place = urlsplit(text)
        # After an unencoded / ? # or @ of the password there is a second @, or one outside of the host's part.
        is_url = place.scheme.startswith("postgres") and text.count("@") == place.netloc.count("@") <= 1
        is_url = is_url and place.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise ServiceError(UNREADABLE)
    return place


def database_settings() -> dict[str, str]:
    """The two servers' database variables: as set, else from TUTELAGE_DATABASE_URL, else MLflow's SQLite file.

    TUTELAGE_DATABASE_URL names a PostgreSQL server, postgresql://user:password@host:port. Each tool has its own
    database there, `prefect` and `mlflow`, because both store their schema version in a table of the same name.
    Raises ServiceError where that URL can't be read.
    """
    given = {setting: os.environ[setting] for setting in SETTINGS.values() if setting in os.environ}
    place = _server()
    if place is None:
        return {SETTINGS["mlflow"]: f"sqlite:///{home() / 'mlflow.db'}"} | given
    urls = {
        SETTINGS[tool]: place._replace(scheme=f"postgresql+{DRIVERS[tool]}", path=f"/{tool}").geturl()
        for tool in SETTINGS
    }
    return urls | given


def create_databases() -> None:
    """Create the two databases on the server of TUTELAGE_DATABASE_URL where they are missing.

    Raises ServiceError where that URL can't be read, or the server can't be reached or refuses.
    """
    place = _server()
    if place is not None:
        asyncio.run(_create_missing(place._replace(scheme="postgresql", path="/postgres").geturl()))


async def _create_missing(server: str) -> None:
    import asyncpg

    try:
        connection = await asyncpg.connect(server)
        try:
            have = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
            for name in SETTINGS.keys() - have:
                await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
    # An error's own text may name the user or the host: its kind has to do.
    except asyncpg.InvalidAuthorizationSpecificationError:
        raise ServiceError(f"the PostgreSQL server of {SERVER} refuses the user or the password") from None
    except asyncpg.PostgresError as error:
        kind = type(error).__name__
        raise ServiceError(f"the PostgreSQL server of {SERVER} does not create the databases ({kind})") from None
    except OSError as error:
        kind = type(error).__name__
        raise ServiceError(f"the PostgreSQL server of {SERVER} can't be reached ({kind})") from None
    except (ValueError, asyncpg.InterfaceError):
        raise ServiceError(UNREADABLE) from None
