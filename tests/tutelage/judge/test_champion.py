import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tutelage.builders import START, dataset_of, synthetic_panel
from tests.tutelage.data.builders import export_untrained, meter
from tutelage.data.sizes import Sizes
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.teachers import forecast_exported
from tutelage.forecasts import Forecasts, crps
from tutelage.judge.champion import LEAST_WEEKS, Champion, Meeting, meet_champion
from tutelage.judge.comparison import gain_over
from tutelage.judge.verdict import actual_values
from tutelage.model.inference import Student, load_student

LOOKBACK, HORIZON = 6, 3
TRAIN, VALIDATION, HOURS = 200, 100, 1800
HOUR = dt.timedelta(hours=1)
VALIDATION_END, TEST_END = START + (TRAIN + VALIDATION) * HOUR, START + HOURS * HOUR
FIRST_ISSUE, LAST_ISSUE = TRAIN + VALIDATION, HOURS - HORIZON


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(
        synthetic_panel([HOURS]), train_hours=TRAIN, validation_hours=VALIDATION, lookback=LOOKBACK, horizon=HORIZON
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Student:
    folder: Path = tmp_path_factory.mktemp("champion") / "export"
    export_untrained(meter(), folder, lookback=LOOKBACK, horizon=HORIZON)
    return load_student(folder)


@pytest.fixture(scope="module")
def candidate(dataset: WindowDataset) -> Forecasts:
    """The truth itself, a little off."""
    actual = actual_values(dataset, dataset.test) + 0.5
    return Forecasts(actual, np.repeat(actual[..., None], 99, axis=-1))


def trained_until(student: Student, hours: int, **card: object) -> Student:
    """The same student with another end of what it has seen, in hours since START."""
    return Student(student.session, student.card | {"trained_until_utc": (START + hours * HOUR).isoformat()} | card)


def meet(champion: Champion, candidate: Forecasts, dataset: WindowDataset) -> Meeting | None:
    return meet_champion(champion, candidate, dataset, validation_end=VALIDATION_END, test_end=TEST_END)


def issue_hours(meeting: Meeting, dataset: WindowDataset) -> tuple[int, int, int]:
    """The first and the last hour of issue, since START, and their number."""
    hours = dataset.panel.step[dataset.test].numpy()[meeting.windows] - int(START.timestamp() // 3600)
    return int(hours.min()), int(hours.max()), len(hours)


def test_forecast_exported__is_the_same_in_whatever_sizes_a_panel_is(dataset: WindowDataset, exported: Student) -> None:
    """A champion was trained on sizes of its own, or on none."""
    names, sizes = ("a",), Sizes({"a": 4.0}, spread=1.0, columns=("power_kw",))
    quarter = torch.tensor([0.25, 1.0])
    panel = replace(dataset.panel, observed=dataset.panel.observed * quarter, names=names, sizes=sizes)
    for card in ({}, {"sizes": {"of_series": {"a": 3.0}, "spread": 1.0, "columns": ["power_kw"]}}):
        student = Student(exported.session, exported.card | card)
        expected = forecast_exported(student, replace(dataset, panel=replace(dataset.panel, names=names)), dataset.test)
        found = forecast_exported(student, replace(dataset, panel=panel), dataset.test)
        np.testing.assert_allclose(4 * found.quantiles, expected.quantiles, rtol=1e-4, atol=1e-5)


def test_meet_champion__compares_on_all_test_windows_where_the_champion_has_seen_none(
    dataset: WindowDataset, exported: Student, candidate: Forecasts
) -> None:
    student = trained_until(exported, 150)
    meeting = meet(Champion("3", student, student), candidate, dataset)
    assert meeting is not None
    assert meeting.as_registered
    assert meeting.windows.all()
    assert issue_hours(meeting, dataset) == (FIRST_ISSUE, LAST_ISSUE, LAST_ISSUE - FIRST_ISSUE + 1)
    forecasts = forecast_exported(student, dataset, dataset.test)
    np.testing.assert_array_equal(meeting.forecasts.quantiles, forecasts.quantiles)
    actual = actual_values(dataset, dataset.test)
    losses, reference = (crps(each, actual).mean(axis=1) for each in (candidate, forecasts))
    assert meeting.gain == gain_over(losses, reference, dataset.panel.step[dataset.test].numpy())
    assert meeting.gain.low > 0.5  # the untrained champion knows nothing


def test_meet_champion__leaves_out_what_the_champion_has_seen(
    dataset: WindowDataset, exported: Student, candidate: Forecasts
) -> None:
    student = trained_until(exported, 400)
    meeting = meet(Champion("3", student, student), candidate, dataset)
    assert meeting is not None
    assert issue_hours(meeting, dataset) == (400, LAST_ISSUE, LAST_ISSUE - 400 + 1)
    assert meeting.forecasts.mean.shape == (LAST_ISSUE - 400 + 1, HORIZON)


@pytest.mark.parametrize(("issue_times", "as_registered"), [(168 * LEAST_WEEKS, True), (168 * LEAST_WEEKS - 1, False)])
def test_meet_champion__a_refit_champion_needs_eight_weeks_of_issue_times(
    dataset: WindowDataset, exported: Student, candidate: Forecasts, issue_times: int, as_registered: bool
) -> None:
    registered = trained_until(exported, LAST_ISSUE + 1 - issue_times)
    evaluated = trained_until(exported, 350)
    meeting = meet(Champion("3", registered, evaluated), candidate, dataset)
    assert meeting is not None
    assert meeting.as_registered is as_registered
    assert issue_hours(meeting, dataset)[2] == (issue_times if as_registered else LAST_ISSUE + 1 - 350)


def test_meet_champion__without_a_refit_fewer_windows_are_enough(
    dataset: WindowDataset, exported: Student, candidate: Forecasts
) -> None:
    student = trained_until(exported, LAST_ISSUE - 9)
    meeting = meet(Champion("3", student, student), candidate, dataset)
    assert meeting is not None
    assert meeting.gain.windows == 10


def test_meet_champion__a_longer_past_must_be_there(
    dataset: WindowDataset, exported: Student, candidate: Forecasts, tmp_path: Path
) -> None:
    gap = dataset.test[50]
    observed = dataset.panel.observed.clone()
    export_untrained(meter(), tmp_path / "export", lookback=24, horizon=HORIZON)
    student = trained_until(load_student(tmp_path / "export"), 150)
    whole = meet(Champion("3", student, student), candidate, dataset)
    assert whole is not None
    assert whole.windows.all()
    dataset.panel.observed[gap - LOOKBACK - 1, 1] = torch.nan
    broken = meet(Champion("3", student, student), candidate, dataset)
    dataset.panel.observed[:] = observed
    assert broken is not None
    assert (~broken.windows).nonzero()[0].tolist() == list(range(44, 68))


@pytest.mark.parametrize("card", [{"horizon_hours": 24}, {"trained_until_utc": TEST_END.isoformat()}])
def test_meet_champion__may_have_nothing_to_compare_on(
    dataset: WindowDataset, exported: Student, candidate: Forecasts, card: dict[str, object]
) -> None:
    student = trained_until(exported, 150, **card)
    assert meet(Champion("3", student, student), candidate, dataset) is None
