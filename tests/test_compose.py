"""The files for containers as files; tests/service/test_containers.py runs the commands of the compose file."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deployments.container import PARTS, main

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


def test_compose__has_a_container_for_each_part_of_the_service() -> None:
    commands = {name: service["command"] for name, service in SERVICES.items() if name != "postgres"}
    assert commands == {part: ["python", "-m", "deployments.container", part] for part in PARTS}


def test_compose__holds_no_password() -> None:
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD")
    assert SERVICES["worker"]["environment"]["TUTELAGE_PASSWORD"].startswith("${TUTELAGE_PASSWORD:?")


def test_compose__only_servers_know_the_database() -> None:
    knows = {name for name, service in SERVICES.items() if "TUTELAGE_DATABASE_URL" in service["environment"]}
    assert knows == {"databases", "prefect", "mlflow"}


KUBERNETES: list[dict[str, Any]] = yaml.safe_load((DEPLOYMENTS / "kubernetes.yaml").read_text(encoding="utf-8"))[
    "items"
]
PODS = [each["spec"]["template"]["spec"] for each in KUBERNETES if each["kind"] == "Deployment"]
CONTAINERS = [each for pod in PODS for each in (*pod.get("initContainers", ()), *pod["containers"])]


@pytest.mark.parametrize("item", KUBERNETES, ids=lambda item: f"{item['kind']}-{item['metadata']['name']}")
def test_kubernetes__takes_each_object(item: dict[str, Any]) -> None:
    kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes__runs_what_compose_runs() -> None:
    for container in CONTAINERS:
        service = SERVICES[container["name"]]
        assert container["args"] == service["command"]
        assert container["volumeMounts"][0]["mountPath"] == service["volumes"][0].partition(":")[2]
        secret = {each["name"] for each in container["env"] if set(each) == {"name", "valueFrom"}}
        [settings] = [each["data"] for each in KUBERNETES if each["kind"] == "ConfigMap"]
        assert secret | set(settings) >= set(service["environment"])
        assert {name for name in secret if name not in service["environment"]} == set()
        same = set(settings) & set(service["environment"])
        assert {name: settings[name] for name in same} == {name: service["environment"][name] for name in same}
        if "healthcheck" in service:
            assert ["CMD", *container["startupProbe"]["exec"]["command"]] == service["healthcheck"]["test"]
    assert {container["name"] for container in CONTAINERS} == set(SERVICES) - {"postgres"}


def test_kubernetes__selects_its_own_pods() -> None:
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in KUBERNETES if each["kind"] == "Deployment"]
    for each in KUBERNETES:
        if each["kind"] == "Service":
            assert each["spec"]["selector"] in labels
            [port] = each["spec"]["ports"]
            [container] = [one for one in CONTAINERS if one["name"] == each["metadata"]["name"]]
            assert port["port"] == container["ports"][0]["containerPort"]


def test_container__of_no_such_part_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue"]) == 2
    assert capsys.readouterr().err.startswith("name a part: databases, prefect, mlflow, deploy, replay, worker;")


def test_container__open_to_others_without_a_password_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    monkeypatch.setenv("TUTELAGE_HOST", "0.0.0.0")
    for part in ("prefect", "mlflow", "worker"):
        assert main([part]) == 1
        assert capsys.readouterr().err.startswith("on 0.0.0.0 others reach the servers")


def test_container__with_a_port_that_is_none_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_PORT", "abc")
    for command in (["prefect"], ["ready", "prefect"]):
        assert main(command) == 1
        assert capsys.readouterr().err == "PREFECT_PORT is 'abc', but must be a number from 1 to 65535\n"
