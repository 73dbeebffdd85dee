from pathlib import Path

import pytest

from deployments.access import HOST, PASSWORD, USER, access_settings, credentials, header, own_host, write_access
from deployments.processes import ServiceError

SECRET = "for-a-test-0123"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (HOST, USER, PASSWORD):
        monkeypatch.delenv(name, raising=False)


def known(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in ({USER: "ada", PASSWORD: SECRET} | values).items():
        monkeypatch.setenv(name, value)


def test_credentials__this_machine_needs_none(tmp_path: Path) -> None:
    assert credentials() is None
    assert (header(), access_settings(tmp_path), own_host()) == ({}, {}, "127.0.0.1")
    write_access(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.7", "meters.example", "::"])
def test_credentials__where_others_reach_the_servers_there_must_be_some(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOST, host)
    with pytest.raises(ServiceError, match=rf"^on {host} others reach the servers, so they must ask for a password"):
        credentials()
    known(monkeypatch)
    assert credentials() == ("ada", SECRET)
    assert own_host() == ("127.0.0.1" if host == "0.0.0.0" else host)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_credentials__other_names_of_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOST, host)
    assert credentials() is None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({USER: ""}, "go together"),
        ({PASSWORD: ""}, "go together"),
        ({USER: "a:b"}, "a user's name has no colon"),
        ({PASSWORD: "short"}, "is too short: MLflow asks for 12 characters or more"),
    ],
)
def test_credentials__unfit(values: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, **values)
    with pytest.raises(ServiceError, match=sentence) as error:
        credentials()
    assert SECRET not in str(error.value)


def test_write_access__holds_no_password_and_forgets_earlier_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch)
    (tmp_path / "access.db").write_text("of an earlier start")
    write_access(tmp_path)
    [config] = tmp_path.iterdir()
    text = config.read_text()
    assert config.name == "access.ini"
    assert "admin_username = ada" in text
    assert SECRET not in text
    assert access_settings(tmp_path)["MLFLOW_AUTH_CONFIG_PATH"] == str(config)
