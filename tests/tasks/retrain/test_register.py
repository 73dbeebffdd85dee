import math
from dataclasses import replace
from pathlib import Path

import mlflow
import polars as pl
import pytest

import tasks.retrain.register
from runtime.artifacts import EXPORT, TABLE
from runtime.champion import turn_to_change
from runtime.provenance import git_commit
from runtime.registry import (
    CHALLENGER,
    CHAMPION,
    champion_version,
    client,
    download_version,
    evaluated_in,
    exported_in,
    find_version,
)
from schemas.manifests import RunManifest
from schemas.retrain import (
    EvaluationManifest,
    FeaturesManifest,
    ReadingsManifest,
    RefitManifest,
    RegisteredManifest,
    RetrainParameters,
    TrainedManifest,
    ValidatedManifest,
)
from tasks.retrain.register import AWAITS_APPROVAL, earned_aliases, register
from tests.runtime.builders import FLOW_RUN, Published, evaluation_of, features_of, gain_of, met
from tests.tasks.builders import PARAMETERS, mlflow_run
from tests.tutelage.data.builders import HOUR, START, table_of
from tutelage.data.dataset import DatasetSpec
from tutelage.files import file_digest, read_json, value_digest
from tutelage.forecasts import Contender
from tutelage.judge.comparison import Floor, Gain
from tutelage.judge.verdict import conclude_floor, gain_text
from tutelage.model.inference import CARD, load_student


def promoted(promotion: str) -> RetrainParameters:
    return PARAMETERS.model_copy(update={"promotion": promotion})


BETTER = gain_of(0.031, 0.012, 0.05, p=1e-4, windows=2880)
WORSE = gain_of(-0.01, -0.04, 0.02, p=0.8, windows=2880)


def test_earned_aliases__the_first_version_is_the_champion() -> None:
    assert earned_aliases(evaluation_of(), PARAMETERS) == ([CHALLENGER, CHAMPION], "there was no champion")


def test_earned_aliases__a_significant_gain_makes_a_champion() -> None:
    aliases, reason = earned_aliases(evaluation_of(champion=met(BETTER)), PARAMETERS)
    assert aliases == [CHALLENGER, CHAMPION]
    assert reason.startswith("significantly better than champion 7: CRPS 3.1 % lower than its")
    assert "(95 % CI 1.2 … 5.0 %) on 2880 windows; p = 0.0001 over 17 weeks, of at most 0.00048 " in reason
    assert reason.endswith(" 7 days after the last comparison")
    assert "before a refit" not in reason


@pytest.mark.no_champion
def test_earned_aliases__without_one_the_champion_stays() -> None:
    aliases, reason = earned_aliases(evaluation_of(champion=met(WORSE)), PARAMETERS)
    assert aliases == [CHALLENGER]
    assert reason.startswith("not significantly better than champion 7: CRPS 1.0 % higher than its")
    assert "(95 % CI −2.0 … 4.0 %) on 2880 windows" in reason


@pytest.mark.parametrize(
    ("p", "since_days", "champions"),
    [
        (4.7e-4, 7, [CHAMPION]),
        (4.9e-4, 7, []),
        (4.7e-4, 6, []),
        (0.02, 365, [CHAMPION]),
        (0.02, 3650, [CHAMPION]),
        (0.03, 3650, []),
        (1e-9, 0, []),
        (1e-9, -3, []),
    ],
)
def test_earned_aliases__a_comparison_may_err_by_its_share_of_the_year(
    p: float, since_days: float, champions: list[str]
) -> None:
    evaluation = evaluation_of(champion=met(replace(BETTER, p=p), since_days=since_days))
    assert earned_aliases(evaluation, PARAMETERS)[0] == [CHALLENGER, *champions]


@pytest.mark.no_champion
def test_earned_aliases__few_weeks_decide_nothing() -> None:
    aliases, reason = earned_aliases(evaluation_of(champion=met(replace(BETTER, windows=1343))), PARAMETERS)
    assert aliases == [CHALLENGER]
    assert reason.endswith("on 1343 windows; 7 weeks can't decide, 8 are needed")


@pytest.mark.parametrize("estimate", [1e-8, 0.0, math.nan])
@pytest.mark.no_champion
def test_earned_aliases__rounding_is_no_gain(estimate: float) -> None:
    gain = gain_of(estimate, p=0.0, windows=2880)
    assert earned_aliases(evaluation_of(champion=met(gain)), PARAMETERS)[0] == [CHALLENGER]


def test_earned_aliases__says_where_both_were_met_before_a_refit() -> None:
    for gain in (BETTER, WORSE):
        _, reason = earned_aliases(evaluation_of(champion=met(gain, compared_as="evaluated")), PARAMETERS)
        assert "windows, both as they were before a refit; " in reason


@pytest.mark.no_champion
def test_earned_aliases__a_champion_that_has_seen_everything_stays() -> None:
    aliases, reason = earned_aliases(evaluation_of(champion=met(None)), PARAMETERS)
    assert (aliases, reason) == (
        [CHALLENGER],
        "champion 7 has seen the whole test part: nothing to compare on",
    )


@pytest.mark.no_champion
def test_earned_aliases__a_champion_of_another_kind_stays_and_is_named() -> None:
    unlike = met(None, differences=("its student_step is 1 h, not 15 min", "its timezone is UTC, not Asia/Tokyo"))
    assert earned_aliases(evaluation_of(champion=unlike), PARAMETERS) == (
        [CHALLENGER],
        "champion 7 can't be compared: its student_step is 1 h, not 15 min; its timezone is UTC, not Asia/Tokyo",
    )


@pytest.mark.parametrize("gain", [gain_of(-0.05), gain_of(-0.01), gain_of(1e-8, -1e-9, 2e-8), gain_of(math.nan)])
@pytest.mark.parametrize("champion", [None, met(BETTER)], ids=["none", "beaten"])
@pytest.mark.no_champion
def test_earned_aliases__no_better_than_something_simple_is_no_champion(champion: object, gain: Gain) -> None:
    aliases, reason = earned_aliases(evaluation_of(champion=champion, floor=Floor(Contender.RIDGE, gain)), PARAMETERS)
    assert aliases == [CHALLENGER]
    assert reason.startswith("no better than a simple forecast: CRPS ")


@pytest.mark.parametrize("champion", [None, met(BETTER)], ids=["none", "beaten"])
@pytest.mark.no_champion
def test_earned_aliases__a_constant_is_no_champion(champion: object) -> None:
    constant = evaluation_of(champion=champion, is_constant=True)
    assert earned_aliases(constant, PARAMETERS) == ([CHALLENGER], "it forecasts the same for every window")


def test_earned_aliases__better_than_everything_simple_on_the_test_part_is_enough() -> None:
    unsure = evaluation_of(floor=Floor(Contender.RIDGE, gain_of(0.01, -0.02, 0.04)))
    assert earned_aliases(unsure, PARAMETERS)[0] == [CHALLENGER, CHAMPION]


@pytest.mark.parametrize("champion", [None, met(BETTER), met(WORSE), met(None)], ids=["none", "beaten", "not", "seen"])
@pytest.mark.no_champion
def test_earned_aliases__promotion_never_is_never(champion: object) -> None:
    evaluation = evaluation_of(champion=champion)
    assert earned_aliases(evaluation, promoted("never")) == ([CHALLENGER], "promotion is set to never")


@pytest.mark.parametrize("champion", [None, met(BETTER), met(WORSE), met(None)], ids=["none", "beaten", "not", "seen"])
def test_earned_aliases__a_person_decides_by_the_same_reason(champion: object) -> None:
    evaluation = evaluation_of(champion=champion)
    aliases, reason = earned_aliases(evaluation, promoted("approval"))
    assert aliases == [CHALLENGER]
    assert reason.startswith("awaits a person's approval; ")
    assert reason.endswith(earned_aliases(evaluation, PARAMETERS)[1])


def test_register__the_version_knows_where_it_comes_from(
    registered: RegisteredManifest,
    run: RunManifest,
    spec: DatasetSpec,
    taught: EvaluationManifest,
    refitted: RefitManifest,
) -> None:
    assert registered == RegisteredManifest(
        name="stage-meter-2h",
        version="1",
        aliases=[CHALLENGER, CHAMPION],
        source=taught.evaluation.chosen,
        reason="there was no champion",
    )
    version, floor = find_version("stage-meter-2h", 1), taught.evaluation.floor
    assert version.run_id == run.run_id
    assert version.tags == {
        "tutelage.run_id": run.run_id,
        "git_commit": git_commit(),
        "spec_digest": value_digest(spec.model_dump(mode="json")),
        "floor": f"{conclude_floor(floor)}: CRPS {gain_text(floor.gain, 'its')}",
        "prefect.flow_run_id": FLOW_RUN,
        "model": taught.evaluation.chosen.value,
        "refit": f"on all until {refitted.end_utc:%Y-%m-%d %H:%M} UTC",
        "test_end_utc": "2024-07-25T00:00:00+00:00",
        "promotion": "there was no champion",
        "promotion.from": "none",
    }
    assert set(client().get_registered_model("stage-meter-2h").aliases) == {CHALLENGER, CHAMPION}
    assert client().get_registered_model("stage-meter-2h").description == spec.description


def test_register__the_card_says_what_it_is(registered: RegisteredManifest, refitted: RefitManifest) -> None:
    card = find_version(registered.name, registered.version).description
    assert card.startswith("# stage-meter-2h: the student")
    for part in ("| train |", "| seasonal naive 24h |", "**Refit.**", f"{refitted.windows} windows", "power_kw"):
        assert part in card
    assert "is 16 days; the day before it is left unused (history_days)." in card
    assert (download_version(registered.name, registered.version) / "model_card.md").read_text() == card


def test_register__the_version_holds_both_students(
    registered: RegisteredManifest, refitted: RefitManifest, students: TrainedManifest
) -> None:
    folder = download_version(registered.name, registered.version)
    assert file_digest(exported_in(folder) / CARD) == file_digest(refitted.folder / EXPORT / CARD)
    assert evaluated_in(folder) == folder / "evaluated"
    assert file_digest(evaluated_in(folder) / CARD) == file_digest(students.folder / EXPORT / CARD)
    load_student(exported_in(folder))


def test_register__loads_by_its_alias_and_predicts_its_example(registered: RegisteredManifest) -> None:
    model = mlflow.pyfunc.load_model(f"models:/{registered.name}@champion")
    assert model.predict(model.input_example)["lead_hours"].tolist() == [1, 2]
    assert model.metadata.metadata["task"] == registered.name


def test_register__the_run_names_its_data(
    registered: RegisteredManifest, run: RunManifest, readings: ReadingsManifest
) -> None:
    [lineage] = mlflow_run(run.run_id).inputs.dataset_inputs
    assert (lineage.dataset.name, lineage.dataset.digest) == ("stage-meter", readings.digest[:32])
    assert '"test": "2024-07-18 00:00 to 2024-07-25 00:00 UTC"' in lineage.dataset.profile


@pytest.fixture
def inputs(
    readings: ReadingsManifest,
    validated: ValidatedManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    students: TrainedManifest,
    taught: EvaluationManifest,
) -> tuple[object, ...]:
    return readings, validated, features, spec, students, taught


@pytest.mark.fault
def test_register__a_retry_finds_the_version_that_is_there(
    inputs: tuple[object, ...], registered: RegisteredManifest, refitted: RefitManifest, run: RunManifest
) -> None:
    assert register.fn(*inputs, refitted, PARAMETERS, run) == registered
    assert len(client().search_model_versions(f"name = '{registered.name}' and run_id = '{run.run_id}'")) == 1


@pytest.mark.no_champion
def test_register__for_approval_asks_and_promotes_nothing(
    inputs: tuple[object, ...],
    registered: RegisteredManifest,
    run: RunManifest,
    students: TrainedManifest,
    published: Published,
) -> None:
    other = client().create_run(run.experiment_id).info.run_id
    run = run.model_copy(update={"run_id": other})
    waiting = register.fn(*inputs, None, promoted("approval"), run)
    assert (waiting.version, waiting.aliases) == ("2", [CHALLENGER])
    assert client().get_model_version_by_alias(waiting.name, CHAMPION).version == 1
    assert client().get_model_version_by_alias(waiting.name, CHALLENGER).version == 2
    [((event, resource), values)] = published.of("emit_event")
    assert event == AWAITS_APPROVAL
    assert resource["prefect.resource.id"] == "tutelage.version.stage-meter-2h.2"
    assert values["payload"] == {"name": "stage-meter-2h", "version": 2}
    version = find_version(waiting.name, 2)
    assert version.tags["refit"] == "no"
    assert "**Refit.**" not in version.description
    folder = download_version(waiting.name, 2)
    assert evaluated_in(folder) == exported_in(folder), "without a refit it is the one that was evaluated"
    assert read_json(exported_in(folder) / CARD) == read_json(students.folder / EXPORT / CARD)


@pytest.mark.fault
def test_register__a_champion_that_it_was_not_compared_with_stays(
    inputs: tuple[object, ...], registered: RegisteredManifest, run: RunManifest
) -> None:
    """Between evaluation and registration another version has become the champion."""
    other = client().create_run(run.experiment_id).info.run_id
    late = register.fn(*inputs, None, PARAMETERS, run.model_copy(update={"run_id": other}))
    assert late.aliases == [CHALLENGER]
    assert late.reason == "compared with no champion, but version 1 is the champion by now (there was no champion)"
    assert find_version(late.name, late.version).tags["promotion"] == late.reason
    assert "promotion.from" not in find_version(late.name, late.version).tags
    assert champion_version(late.name) == registered.version


def test_example__is_the_last_whole_window_of_the_validation_part(tmp_path: Path, spec: DatasetSpec) -> None:
    power: list[float | None] = [float(hour) for hour in range(16 * 24)]
    end = 12 * 24
    power[end - 3] = None
    times = [START + hour * HOUR for hour in range(16 * 24)]
    table_of(spec, power, times=times).write_parquet(tmp_path / TABLE)
    card = {"observed": ["power_kw", "indoor_c"], "known_future": [], "lookback_hours": 6, "horizon_hours": 2}
    example = tasks.retrain.register._example(features_of(tmp_path), card)
    assert example["power_kw"].tolist() == [float(hour) for hour in range(end - 9, end - 3)]
    assert example["time_utc"].iloc[-1] == "2024-07-12T20:00:00"
    assert list(example) == ["series_id", "time_utc", "power_kw", "indoor_c"]


def test_example__is_of_the_first_series_that_has_one(tmp_path: Path, spec: DatasetSpec) -> None:
    times = [START + hour * HOUR for hour in range(16 * 24)]
    short = table_of(spec, [1.0] * 4, times=times[:4], series_id="a")
    gaps = table_of(spec, [2.0, 2.0, None] * 128, times=times, series_id="b")
    whole = table_of(spec, [3.0] * len(times), times=times, series_id="c")
    pl.concat([short, gaps, whole]).write_parquet(tmp_path / TABLE)
    card = {"observed": ["power_kw", "indoor_c"], "known_future": [], "lookback_hours": 6, "horizon_hours": 2}
    example = tasks.retrain.register._example(features_of(tmp_path), card)
    assert example["series_id"].tolist() == ["c"] * 6
    assert example["time_utc"].iloc[-1] == "2024-07-12T23:00:00"


@pytest.mark.fault
def test_register__what_a_person_has_replaced_stays_replaced(
    inputs: tuple[object, ...], registered: RegisteredManifest, run: RunManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The retrain is started again after its version became champion, and a person went back to the one before."""
    name, evaluated = registered.name, inputs[-1]
    assert isinstance(evaluated, EvaluationManifest)
    other = run.model_copy(update={"run_id": client().create_run(run.experiment_id).info.run_id})
    before = register.fn(*inputs, None, promoted("never"), other)
    with turn_to_change(name) as turn:
        turn.make_champion(before.version, "rollback")
    monkeypatch.setattr(tasks.retrain.register, "earned_aliases", lambda *_: ([CHAMPION], "better"))
    champion = met(BETTER).model_copy(update={"version": before.version})
    evaluation = evaluated.evaluation.model_copy(update={"champion": champion})
    again = register.fn(*inputs[:-1], evaluated.model_copy(update={"evaluation": evaluation}), None, PARAMETERS, run)
    assert (again.version, again.aliases) == (registered.version, [CHALLENGER])
    assert again.reason == f"a person has put version {before.version} in its place (better)"
    assert champion_version(name) == before.version
    client().set_registered_model_alias(name, CHAMPION, registered.version)


@pytest.mark.no_champion
def test_register__asks_nobody_again_who_has_decided(
    inputs: tuple[object, ...], run: RunManifest, published: Published
) -> None:
    run = run.model_copy(update={"run_id": client().create_run(run.experiment_id).info.run_id})
    waiting = register.fn(*inputs, None, promoted("approval"), run)
    assert len(published.of("emit_event")) == 1
    client().set_model_version_tag(waiting.name, waiting.version, "approval.declined", "ada: no")
    register.fn(*inputs, None, promoted("approval"), run)
    assert len(published.of("emit_event")) == 1
