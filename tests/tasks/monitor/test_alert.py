import datetime as dt
from pathlib import Path

import polars as pl
import pytest

import tasks.monitor.alert
from runtime.health import ASKED, HEALTH
from schemas.monitor import HealthManifest
from tasks.monitor.alert import DEGRADED, publish_health
from tests.runtime.builders import Published
from tests.tutelage.data.builders import START
from tutelage.files import read_json, write_json


def health_of(folder: Path, *broken: str) -> HealthManifest:
    """The health of three days, with a plot of two bytes."""
    days = [START.date() + dt.timedelta(days=day) for day in range(3)]
    columns = {"hours": [24, 48, 72], "crps": [0.5] * 3, "naive_crps": [1.0] * 3}
    table = pl.DataFrame({"day": days, **columns, "skill": [0.5] * 3, "coverage_80": [0.81] * 3})
    table.write_parquet(folder / "daily.parquet")
    (folder / "health.png").write_bytes(b"hi")
    write_json(folder / HEALTH, {ASKED: None, "hours": 72})
    return HealthManifest(
        folder=folder,
        task="meter-2h",
        as_of_utc=START,
        model_version="3",
        hours=72,
        skill=0.5,
        coverage_80=0.81,
        drift={},
        broken=list(broken),
    )


def test_publish_health__a_healthy_one_alerts_nobody(tmp_path: Path, published: Published) -> None:
    publish_health.fn(health_of(tmp_path))
    assert published.of("emit_event") == []
    assert read_json(tmp_path / HEALTH)[ASKED] is None
    [((rows,), table)] = published.of("create_table_artifact", "health-meter-2h")
    assert [row["hours"] for row in rows] == [24, 48, 72]
    assert rows[0]["CRPS"] == "0.5000"
    assert rows[0]["day (UTC)"] == "2024-07-01"
    assert table["description"] == "healthy: over 72 hours the skill is +50.0% and the coverage 81.0%"
    [((text,), _)] = published.of("create_markdown_artifact", "health-plot-meter-2h")
    assert "data:image/png;base64,aGk=" in text


@pytest.mark.parametrize("broken", [("the skill",), ("the skill", "an input")])
def test_publish_health__a_degraded_one_asks_for_a_retrain(
    tmp_path: Path, published: Published, broken: tuple[str, ...]
) -> None:
    publish_health.fn(health_of(tmp_path, *broken))
    [((event, resource), values)] = published.of("emit_event")
    assert event == DEGRADED == "tutelage.forecast.degraded"
    assert resource == {"prefect.resource.id": "tutelage.forecaster.meter-2h", "prefect.resource.name": "meter-2h"}
    assert values["payload"] == {
        "reason": "; ".join(broken),
        "as_of": "2024-07-01T00:00:00+00:00",
        "model_version": "3",
    }
    assert read_json(tmp_path / HEALTH) == {ASKED: START.isoformat(), "hours": 72}
    [(_, table)] = published.of("create_table_artifact", "health-meter-2h")
    assert table["description"] == f"degraded: {'; '.join(broken)}"


@pytest.mark.fault
def test_publish_health__that_ends_before_it_asks_has_asked_nobody(
    tmp_path: Path, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(tasks.monitor.alert, "create_markdown_artifact", fails)
    with pytest.raises(ConnectionError):
        publish_health.fn(health_of(tmp_path, "the skill"))
    assert published.of("emit_event") == []
    assert read_json(tmp_path / HEALTH)[ASKED] is None


def test_publish_health__asked_before_asks_nobody(tmp_path: Path, published: Published) -> None:
    before = health_of(tmp_path, "the skill").model_copy(update={"asked_utc": START - dt.timedelta(days=2)})
    publish_health.fn(before)
    assert published.of("emit_event") == []
    [(_, table)] = published.of("create_table_artifact", "health-meter-2h")
    assert table["description"] == "degraded: the skill (a retrain was asked for as of 2024-06-29 00:00 UTC)"


def test_publish_health__of_a_meter_that_stands_still_has_no_skill(tmp_path: Path, published: Published) -> None:
    health = health_of(tmp_path).model_copy(update={"skill": None})
    file = tmp_path / "daily.parquet"
    pl.read_parquet(file).with_columns(skill=pl.lit(None, pl.Float64)).write_parquet(file)
    publish_health.fn(health)
    [((rows,), table)] = published.of("create_table_artifact", "health-meter-2h")
    assert {row["skill"] for row in rows} == {""}
    assert table["description"] == "healthy: over 72 hours the coverage is 81.0%"


def test_publish_health__of_a_new_version_says_that_nothing_is_known(tmp_path: Path, published: Published) -> None:
    nothing = {"hours": 0, "skill": None, "coverage_80": None}
    publish_health.fn(health_of(tmp_path).model_copy(update=nothing))
    assert published.of("emit_event") == []
    [(_, table)] = published.of("create_table_artifact", "health-meter-2h")
    assert table["description"] == "no hour that version 3 has forecast has come true yet"
