"""The compose file as a file: no container engine is needed to see that it holds together."""

from pathlib import Path

import yaml

DEPLOYMENTS = Path(__file__).parents[1] / "deployments"
COMPOSE = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]


def test_compose__waits_only_for_what_can_say_that_it_is_ready() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[needed], f"{name} waits for {needed}"
            else:
                assert SERVICES[needed]["restart"] == "no", f"{needed} would never be done"


def test_compose__opens_no_port_to_the_world() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose__its_volumes_and_build_file_are_there() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])
    assert (DEPLOYMENTS / SERVICES["prefect"]["build"]["dockerfile"].removeprefix("deployments/")).is_file()


def test_compose__the_worker_serves_the_pool_of_the_deployments() -> None:
    deployed = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    assert {deployment["work_pool"]["name"] for deployment in deployed} == {SERVICES["worker"]["command"][4]}


def test_compose__holds_no_password() -> None:
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD")
