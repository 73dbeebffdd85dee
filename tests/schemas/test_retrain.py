import datetime as dt

import pytest
from pydantic import ValidationError

from schemas.retrain import RetrainParameters

START = dt.datetime(2024, 7, 1, tzinfo=dt.UTC)


def test_parameters__time_without_a_zone_is_utc() -> None:
    naive = RetrainParameters(as_of="2024-07-01T00:00:00")
    assert naive.as_of == START
    tokyo = RetrainParameters(as_of="2024-07-01T09:00:00+09:00")
    assert tokyo.as_of == START
    assert RetrainParameters().as_of is None


def test_parameters__name_the_task() -> None:
    assert RetrainParameters(dataset="ett-h1", horizon_hours=6).task == "ett-h1-6h"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("horizon", 24),
        ("recipe", {"colour": "red"}),
        ("dataset", "../household"),
        ("horizon_hours", 0),
        ("horizon_hours", 169),
        ("lookback_hours", 0),
        ("history_days", 9),
        ("validation_share", 0.51),
        ("test_days", 6),
        ("seed", -1),
        ("device", "tpu"),
        ("promotion", "always"),
        ("replicates", 0),
    ],
)
def test_parameters__refuse(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as error:
        RetrainParameters.model_validate({field: value})
    assert [fault["loc"][0] for fault in error.value.errors()] == [field]


def test_parameters__a_gate_by_windows_can_not_be_refit() -> None:
    by_windows = {"recipe": {"distillation": {"gate": "windows"}}}
    assert RetrainParameters(refit=False, **by_windows).recipe.distillation.gate == "windows"
    with pytest.raises(ValidationError, match="set refit to false, or the gate to hours"):
        RetrainParameters(**by_windows)


def test_parameters__survive_json() -> None:
    given = RetrainParameters(as_of=dt.datetime(2024, 7, 1), history_days=None, recipe={"distillation": {"bins": 16}})
    assert RetrainParameters.model_validate_json(given.model_dump_json()) == given
