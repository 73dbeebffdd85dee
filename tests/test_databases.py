"""URLs of PostgreSQL that can't be used: each is a sentence, without any part of it. tests/service has a real one."""

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest

from deployments.container import main
from deployments.databases import create_databases, database_settings
from deployments.processes import ServiceError
from tests.service.conftest import free_port

VARIABLE = "TUTELAGE_DATABASE_URL"
UNREADABLE = [
    "postgresql://ada:sec/ret@127.0.0.1:5432",
    "postgresql://ada:123/ret@127.0.0.1:5432",
    "postgresql://ada:sec#ret@127.0.0.1:5432",
    "postgresql://ada:sec?ret@127.0.0.1:5432",
    "postgresql://ada:sec@ret@127.0.0.1:5432",
    "postgresql://ada:sec[ret@127.0.0.1:5432",
    "postgresql://ada:secret@127.0.0.1:99999",
    "postgresql://ada:secret@127.0.0.1:0",
    "ada:secret@127.0.0.1:5432",
    "host=127.0.0.1 password=secret",
]


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    for name in (VARIABLE, "PREFECT_API_DATABASE_CONNECTION_URL", "MLFLOW_BACKEND_STORE_URI"):
        monkeypatch.delenv(name, raising=False)


def test_database_settings__keep_the_password_as_it_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "postgresql://ada:sec%2Fret%40%23%3A@127.0.0.1:5432")
    assert database_settings() == {
        "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://ada:sec%2Fret%40%23%3A@127.0.0.1:5432/prefect",
        "MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg://ada:sec%2Fret%40%23%3A@127.0.0.1:5432/mlflow",
    }


@pytest.mark.parametrize("url", UNREADABLE)
def test_database__whose_url_cant_be_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, url)
    for use in (database_settings, create_databases):
        with pytest.raises(ServiceError) as error:
            use()
        assert str(error.value) == (
            f"{VARIABLE} can't be read: it must be postgresql://user:password@host:port, with each of / : @ # ? % [ ] "
            "in the password percent-encoded"
        )


def test_database__that_cant_be_reached(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(VARIABLE, f"postgresql://ada:secret@127.0.0.1:{free_port()}")
    assert main(["databases"]) == 1
    said = capsys.readouterr().err
    assert said == f"the PostgreSQL server of {VARIABLE} can't be reached (ConnectionRefusedError)\n"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (asyncpg.InvalidPasswordError('of user "ada"'), "refuses the user or the password"),
        (asyncpg.TooManyConnectionsError('for role "ada"'), "does not create the databases (TooManyConnectionsError)"),
        (TimeoutError(), "can't be reached (TimeoutError)"),
        (ValueError("bad query field: 'ada'"), "in the password percent-encoded"),
    ],
)
def test_database__that_refuses(error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(server: str) -> None:
        await asyncio.sleep(0)
        raise error

    monkeypatch.setenv(VARIABLE, "postgresql://ada:secret@127.0.0.1:5432")
    monkeypatch.setattr("asyncpg.connect", refuse)
    with pytest.raises(ServiceError, match=f"{re.escape(sentence)}$") as raised:
        create_databases()
    assert "ada" not in str(raised.value)
