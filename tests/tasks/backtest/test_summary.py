import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from runtime.registry import client
from runtime.runs import experiment
from schemas.backtest import BacktestParameters
from schemas.manifests import RunManifest
from schemas.retrain import Evaluation
from tasks.backtest.summary import _period, _sentence, summarise_backtest
from tests.runtime.builders import CRPS, DAY, Published, evaluation_of, gain_of, scores_of
from tests.tasks.builders import mlflow_run
from tests.tutelage.data.builders import START, meter
from tutelage.forecasts import Contender
from tutelage.judge.backtest import Overall

PARAMETERS = BacktestParameters(dataset="meter", horizon_hours=2, origins=3, period_days=8)
TWIN, UNPRIVILEGED, RIDGE = Contender.TWIN, Contender.UNPRIVILEGED, Contender.RIDGE
SCORED = CRPS | {Contender.CHOSEN: 0.9, RIDGE: 1.2, Contender.LAST_VALUE: 1.3}


def of_scores(student: float, *, unprivileged: bool = True, **others: float) -> Evaluation:
    """An evaluation whose students have this CRPS, the twins 1."""
    crps = SCORED | {Contender.STUDENT: student} | {Contender(name): value for name, value in others.items()}
    if not unprivileged:
        crps.pop(UNPRIVILEGED)
    return evaluation_of(
        scores={name: scores_of(value) for name, value in crps.items()},
        gain_over_twin=gain_of(1 - student),
        gain_over_unprivileged=gain_of(1 - student / 0.95) if unprivileged else None,
    )


def test_period__reaches_from_its_origin_to_its_end() -> None:
    period = _period(START + 8 * DAY, of_scores(0.9), PARAMETERS)
    assert (period.origin_utc, period.end_utc) == (START, START + 8 * DAY)
    assert period.crps == {**SCORED, Contender.STUDENT: 0.9}
    assert period.gains[TWIN].estimate == pytest.approx(0.1)
    assert period.gains[UNPRIVILEGED].estimate == pytest.approx(1 - 0.9 / 0.95)


def test_period__without_unprivileged_students_has_one_gain() -> None:
    assert set(_period(START, of_scores(0.9, unprivileged=False), PARAMETERS).gains) == {TWIN}


def test_sentence__says_lower_or_higher_and_in_how_many_periods() -> None:
    over = [Overall(TWIN, 0.031, 2), Overall(UNPRIVILEGED, -0.004, 1)]
    text = _sentence(PARAMETERS, 3, Overall(RIDGE, -0.02, 0), over, {})
    assert text == (
        "meter-2h: over 3 periods of 8 days, the CRPS of the chosen student or twin is 2.0 % higher than that of "
        "ridge, the best of the simple forecasts over all of them (lower in 0 of 3); the students' is 3.1 % lower than "
        "their twins' (lower in 2 of 3) and 0.4 % higher than that of students of unprivileged teachers "
        "(lower in 1 of 3)"
    )


def test_sentence__names_the_periods_that_are_left_out() -> None:
    left_out = {START + 8 * DAY: "too many gaps", START + 16 * DAY: "too few days"}
    text = _sentence(PARAMETERS, 1, Overall(RIDGE, 0.1, 1), [Overall(TWIN, 0.0, 0)], left_out)
    assert "unprivileged" not in text
    assert "0.0 % lower than their twins' (lower in 0 of 1)" in text
    assert "up to 2024-07-09 is left out: too many gaps" in text
    assert text.endswith("up to 2024-07-17 is left out: too few days")


@pytest.fixture
def run() -> RunManifest:
    experiment_id = experiment("meter-2h-summary")
    run_id = client().create_run(experiment_id).info.run_id
    return RunManifest(key="k", experiment_id=experiment_id, run_id=run_id, children={})


def test_summarise_backtest__is_one_row_a_period_in_order(run: RunManifest, published: Published) -> None:
    ends = [START + 8 * number * DAY for number in (1, 2, 3)]
    evaluations = {ends[2]: of_scores(0.8), ends[0]: of_scores(0.9), ends[1]: of_scores(1.05, chosen=1.25)}
    left_out: dict[dt.datetime, str] = {START: "too many gaps"}
    summary = summarise_backtest.fn(evaluations, left_out, meter(), PARAMETERS, run)
    table = pl.read_csv(summary.folder / "backtest.csv", try_parse_dates=True)
    assert table["student_crps"].to_list() == [0.9, 1.05, 0.8]
    assert table["end_utc"].dt.date().to_list() == [end.date() for end in ends]
    assert table["gain_over_twin_low"].to_list() == pytest.approx([0.08, -0.07, 0.18])
    assert {file.name for file in summary.folder.iterdir()} == {"backtest.csv", "backtest.png"}
    assert (summary.origins, summary.left_out, summary.origins_with_gain) == (3, 1, 2)
    assert summary.gain_over_twin == pytest.approx(1 - (0.9 + 1.05 + 0.8) / 3)
    assert summary.gain_over_unprivileged == pytest.approx(1 - (0.9 + 1.05 + 0.8) / (3 * 0.95))
    metrics = mlflow_run(run.run_id).data.metrics
    assert metrics["gain_over_twin.estimate"] == pytest.approx(summary.gain_over_twin)
    assert metrics["origins_with_gain"] == 2
    assert (summary.floor, summary.origins_ahead_of_floor) == (RIDGE, 2)
    assert summary.gain_over_floor == pytest.approx(1 - (0.9 + 0.9 + 1.25) / (1.2 * 3))
    assert metrics["gain_over_floor.estimate"] == pytest.approx(summary.gain_over_floor)
    assert metrics["origins_ahead_of_floor"] == 2
    assert {Path(file.path).name for file in client().list_artifacts(run.run_id, "backtest")} == {
        "backtest.csv",
        "backtest.png",
    }
    [((rows,), values)] = published.of("create_table_artifact", "backtest-meter-2h")
    assert [row["student_crps"] for row in rows] == ["0.9000", "1.0500", "0.8000"]
    assert values["description"].endswith("too many gaps")
    [((text,), _)] = published.of("create_markdown_artifact", "backtest-plot-meter-2h")
    assert "data:image/png;base64," in text


def test_summarise_backtest__compares_only_what_every_period_has(run: RunManifest) -> None:
    evaluations = {
        START + 8 * DAY: of_scores(0.9, unprivileged=False, seasonal_naive_24h=2.0),
        START + 16 * DAY: of_scores(0.9),
    }
    summary = summarise_backtest.fn(evaluations, {}, meter(), PARAMETERS, run)
    assert summary.gain_over_unprivileged is None
    columns = pl.read_csv(summary.folder / "backtest.csv").columns
    assert not [name for name in columns if "unprivileged" in name or "seasonal" in name]
