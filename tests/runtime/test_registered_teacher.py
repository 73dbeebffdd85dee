from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

import runtime.registered_teacher
from runtime.registered_teacher import load_registered
from runtime.registry import download_version, evaluated_in, exported_in
from schemas.retrain import FeaturesManifest
from tests.runtime.builders import DAY, Log, features_of, register_folder, span_of
from tests.tutelage.builders import dataset_of, synthetic_panel
from tests.tutelage.data.builders import START, meter, meter_with_plan
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.teachers import forecast_exported
from tutelage.errors import RegistryError
from tutelage.files import folder_digest
from tutelage.forecasts import QUANTILE_NAMES
from tutelage.model.inference import load_student

FEATURES = features_of(Path("nowhere"), test=span_of(16, 20))


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([500]), train_hours=400, lookback=6, horizon=2)


def test_load_registered__one_of_ours_forecasts_by_its_graph(
    old_version: tuple[str, str], dataset: WindowDataset
) -> None:
    forecast = load_registered("/".join(old_version), FEATURES, meter())
    student = load_student(exported_in(download_version(*old_version)))
    expected = forecast_exported(student, dataset, dataset.train[:5])
    np.testing.assert_array_equal(forecast(dataset, dataset.train[:5]).quantiles, expected.quantiles)


def test_load_registered__a_refit_one_teaches_by_what_was_evaluated_before_the_test_part(
    old_version: tuple[str, str], dataset: WindowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refit of this version has learned from four days more than the student that was evaluated."""
    folder = download_version(*old_version)
    refit, evaluated = load_student(exported_in(folder)), load_student(evaluated_in(folder))
    assert refit.trained_until == evaluated.trained_until + 4 * DAY
    log = Log()
    monkeypatch.setattr(runtime.registered_teacher, "get_run_logger", lambda: log)
    for first_test_day, student in ((12, evaluated), (15, evaluated), (16, refit)):
        features = FEATURES.model_copy(update={"test": span_of(first_test_day, 20)})
        forecast = load_registered("/".join(old_version), features, meter())
        expected = forecast_exported(student, dataset, dataset.train[:5])
        np.testing.assert_array_equal(forecast(dataset, dataset.train[:5]).quantiles, expected.quantiles)
    assert len(log.lines) == 2
    assert "its refit has seen the test part; who was evaluated before it teaches" in log.lines[0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"horizon_hours": 3}, "horizon_hours .*2, not 3"),
        ({"lookback_hours": 4}, "6 complete hours, .* 4"),
        ({"test": span_of(11, 15)}, f"until {START + 12 * DAY:%Y-%m-%d}, .*test part"),
        ({"target": None}, r"known_future .*\[\], not \['planned_c'\]"),
    ],
    ids=["horizon", "lookback", "test part", "columns"],
)
def test_load_registered__one_of_ours_must_fit_the_task(
    old_version: tuple[str, str], changes: dict[str, object], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.registered_teacher, "get_run_logger", Log)
    spec = meter_with_plan() if "target" in changes else meter()
    features = FEATURES.model_copy(update=changes)
    with pytest.raises(RegistryError, match=f"teacher old-2h/1 .*meter-2h.*{sentence}"):
        load_registered("/".join(old_version), features, spec)


def test_load_registered__names_the_teacher_that_is_not_there() -> None:
    with pytest.raises(RegistryError, match=r"teacher nowhere-2h/3 .*nowhere-2h has no version 3"):
        load_registered("nowhere-2h/3", FEATURES, meter())


def answer_of(table: pd.DataFrame, *, horizon: int = 2) -> pd.DataFrame:
    """For each series the mean of its power, one more for each hour ahead, the last series and hour first."""
    rows = []
    for name, mean in table.groupby("series_id")["power_kw"].mean().items():
        for lead in range(1, horizon + 1):
            quantiles = dict.fromkeys(QUANTILE_NAMES, mean + lead)
            rows.append({"lead_hours": lead, "series_id": str(name)} | quantiles)
    return pd.DataFrame(rows[::-1])


Predict = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture
def others_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Predict], tuple[str, Log]]:
    """Register a model that this project did not make, by what it predicts; its version, and what is logged."""

    def register(predict: Predict) -> tuple[str, Log]:
        (tmp_path / "MLmodel").touch()
        version, log = register_folder("others", tmp_path), Log()
        loaded = SimpleNamespace(predict=predict)
        monkeypatch.setattr(mlflow.pyfunc, "load_model", lambda path: loaded)
        monkeypatch.setattr(runtime.registered_teacher, "get_run_logger", lambda: log)
        return f"others/{version}", log

    return register


def load(model: str, features: FeaturesManifest = FEATURES) -> Callable[[WindowDataset, object], object]:
    return load_registered(model, features, meter(), digest=digest_of(model))


def digest_of(model: str) -> str:
    return folder_digest(download_version(*model.split("/")))


def test_load_registered__any_other_model_predicts_in_chunks(
    others_model: Callable[[Predict], tuple[str, Log]], dataset: WindowDataset
) -> None:
    tables: list[pd.DataFrame] = []

    def predict(table: pd.DataFrame) -> pd.DataFrame:
        tables.append(table)
        return answer_of(table)

    model, log = others_model(predict)
    forecasts = load(model)(dataset, dataset.train)
    assert [table["series_id"].nunique() for table in tables] == [256, len(dataset.train) - 256]
    assert list(tables[0]) == ["series_id", "time_utc", "power_kw", "indoor_c"]
    past = dataset.panel.observed[:, 0].numpy()[dataset.train.numpy()[:, None] + np.arange(-6, 0)]
    expected = past.mean(axis=1, keepdims=True) + np.array([1, 2])
    np.testing.assert_allclose(forecasts.quantiles[..., 49], expected, rtol=1e-5)
    np.testing.assert_allclose(forecasts.mean, expected, rtol=1e-5)
    [line] = log.lines
    assert f"teacher {model} " in line
    assert "test part" in line


def test_load_registered__any_other_model_is_not_loaded_without_its_digest(
    others_model: Callable[[Predict], tuple[str, Log]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = others_model(answer_of)
    loaded: list[str] = []
    monkeypatch.setattr(mlflow.pyfunc, "load_model", loaded.append)
    for given in (None, "0" * 64):
        with pytest.raises(RegistryError, match=f"would run its own code .*registered_digest: {digest_of(model)}$"):
            load_registered(model, FEATURES, meter(), digest=given)
    assert loaded == []


def test_load_registered__any_other_model_takes_what_is_planned_of_the_horizon(
    others_model: Callable[[Predict], tuple[str, Log]], dataset: WindowDataset
) -> None:
    tables: list[pd.DataFrame] = []

    def predict(table: pd.DataFrame) -> pd.DataFrame:
        tables.append(table)
        return answer_of(table)

    planned = torch.arange(len(dataset.panel.step), dtype=torch.float32)[:, None]
    panel = replace(dataset.panel, known=torch.cat([dataset.panel.known, planned], dim=1))
    model, _ = others_model(predict)
    load_registered(model, FEATURES, meter_with_plan(), digest=digest_of(model))(
        replace(dataset, panel=panel), dataset.train[:1]
    )
    [table] = tables
    origin = int(dataset.train[0])
    assert table["planned_c"].tolist() == list(range(origin - 6, origin + 2))
    assert table["power_kw"].isna().tolist() == [False] * 6 + [True] * 2
    hours = dataset.panel.step[origin - 6 : origin + 2].tolist()
    assert [int(time.timestamp()) // 3600 for time in table["time_utc"]] == hours


@pytest.mark.parametrize(
    ("predict", "sentence"),
    [
        (lambda table: answer_of(table).drop(columns=["q05", "q50"]), "q05, q50"),
        (lambda table: answer_of(table).drop(columns="series_id"), "series_id"),
        (lambda table: answer_of(table, horizon=1), "3 rows for 3 windows of 2"),
    ],
    ids=["quantiles", "series", "hours"],
)
def test_load_registered__refuses_an_answer_of_another_shape(
    others_model: Callable[[Predict], tuple[str, Log]], dataset: WindowDataset, predict: Predict, sentence: str
) -> None:
    model, _ = others_model(predict)
    with pytest.raises(RegistryError, match=f"teacher {model} .*{sentence}"):
        load(model)(dataset, dataset.train[:3])
