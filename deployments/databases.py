"""The databases of the two servers: SQLite under TUTELAGE_HOME, or PostgreSQL."""

import asyncio
import os
from urllib.parse import urlsplit

from runtime.paths import home

SETTINGS = {"prefect": "PREFECT_API_DATABASE_CONNECTION_URL", "mlflow": "MLFLOW_BACKEND_STORE_URI"}
DRIVERS = {"prefect": "asyncpg", "mlflow": "psycopg"}


def database_settings() -> dict[str, str]:
    """The two servers' database variables: as set, else from TUTELAGE_DATABASE_URL, else MLflow's SQLite file.

    TUTELAGE_DATABASE_URL names a PostgreSQL server, postgresql://user:password@host:port. Each tool has its own
    database there, `prefect` and `mlflow`, because both store their schema version in a table of the same name.
    """
    given = {setting: os.environ[setting] for setting in SETTINGS.values() if setting in os.environ}
    server = os.environ.get("TUTELAGE_DATABASE_URL")
    if not server:
        return {SETTINGS["mlflow"]: f"sqlite:///{home() / 'mlflow.db'}"} | given
    place = urlsplit(server)
    urls = {
        SETTINGS[tool]: place._replace(scheme=f"postgresql+{DRIVERS[tool]}", path=f"/{tool}").geturl()
        for tool in SETTINGS
    }
    return urls | given


def create_databases() -> None:
    """Create the two databases on the server of TUTELAGE_DATABASE_URL where they are missing."""
    server = os.environ.get("TUTELAGE_DATABASE_URL")
    if server:
        asyncio.run(_create_missing(urlsplit(server)._replace(scheme="postgresql", path="/postgres").geturl()))


async def _create_missing(server: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(server)
    try:
        have = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
        for name in SETTINGS.keys() - have:
            await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
