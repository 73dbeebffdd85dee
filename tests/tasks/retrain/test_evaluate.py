import shutil
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import pytest

import tasks.retrain.evaluate
from runtime.artifacts import BY_LEAD, EVALUATION, EXPORT, LOSSES, read_evaluation, read_losses
from runtime.paths import run_folder
from runtime.registry import CHAMPION, champion_version, client
from schemas.manifests import RunManifest
from schemas.retrain import (
    EvaluationManifest,
    FeaturesManifest,
    ReadingsManifest,
    RegisteredManifest,
    RetrainParameters,
    TrainedManifest,
)
from tasks.retrain.evaluate import evaluate, evaluation_metrics
from tests.runtime.builders import DAY, evaluation_of, gain_of, register_folder
from tests.tasks.builders import artifacts_of, mlflow_run, steps_of
from tests.tutelage.data.builders import START
from tutelage.data.dataset import DatasetSpec
from tutelage.errors import LeakError
from tutelage.files import file_digest, read_json
from tutelage.forecasts import Contender
from tutelage.judge.baselines import BASELINES
from tutelage.judge.comparison import gain_between
from tutelage.judge.leaks import LeakReport
from tutelage.model.inference import load_student

SCORED = {"student", "unprivileged", "twin", "teacher", "chosen", *BASELINES}


def test_evaluate__scores_every_contender(evaluated: EvaluationManifest) -> None:
    evaluation = evaluated.evaluation
    assert set(evaluation.scores) == SCORED
    crps = {name: scores.crps for name, scores in evaluation.scores.items()}
    assert evaluation.gain_over_twin.estimate == pytest.approx(1 - crps["student"] / crps["twin"])
    assert evaluation.gain_over_unprivileged is not None
    assert evaluation.gain_over_unprivileged.estimate == pytest.approx(1 - crps["student"] / crps["unprivileged"])
    assert len(evaluation.gain_by_replicate) == 2
    assert evaluation.champion is None
    by_validation = evaluation.validation_crps
    assert (evaluation.chosen is Contender.STUDENT) == (by_validation["student"] < by_validation["twin"])
    best = min(BASELINES, key=lambda name: crps[name])
    assert evaluation.floor.baseline is best
    assert evaluation.floor.gain.estimate == pytest.approx(1 - crps["chosen"] / crps[best])
    assert evaluation.network_share is not None
    assert 0 <= evaluation.network_share <= 1
    assert evaluation.leak_check.passed
    assert evaluation.gate_by_hour is not None


def test_evaluate__writes_what_it_found(evaluated: EvaluationManifest, run: RunManifest) -> None:
    assert evaluated.folder == run_folder(run.run_id, "evaluation")
    plots = {f"{name}.png" for name in ("forecast", "skill", "reliability", "coverage", "losses")}
    assert {file.name for file in evaluated.folder.iterdir()} == {EVALUATION, BY_LEAD, LOSSES} | plots
    assert read_evaluation(evaluated.folder / EVALUATION) == evaluated.evaluation
    assert file_digest(evaluated.folder / EVALUATION) == evaluated.digest
    by_lead = read_json(evaluated.folder / BY_LEAD)
    assert set(by_lead) == SCORED
    for name, rows in by_lead.items():
        assert [row["lead_hours"] for row in rows] == [1, 2]
        mean = sum(row["crps"] for row in rows) / 2
        assert mean == pytest.approx(evaluated.evaluation.scores[Contender(name)].crps)


def test_evaluate__logs_to_the_run_and_its_children(evaluated: EvaluationManifest, run: RunManifest) -> None:
    metrics = evaluation_metrics(evaluated.evaluation)
    assert mlflow_run(run.run_id).data.metrics.items() >= metrics.items()
    assert {EVALUATION, BY_LEAD, "forecast.png", "losses.png"} <= artifacts_of(run.run_id)
    assert set(run.children) == {"teacher", "student", "twin", "unprivileged"}
    for name, run_id in run.children.items():
        logged = mlflow_run(run_id).data.metrics
        assert logged["crps"] == pytest.approx(evaluated.evaluation.scores[Contender(name)].crps)
        assert ("validation.crps" in logged) == (name in ("student", "twin"))
        assert steps_of(run_id, "validation") == list(range(1, 5))


@pytest.fixture
def again(
    readings: ReadingsManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    students: TrainedManifest,
    parameters: RetrainParameters,
    run: RunManifest,
    evaluated: EvaluationManifest,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[object, ...]:
    """What another evaluation of the same students takes, for a run without children; plots and leak check are done."""
    leaks = LeakReport(evaluated.evaluation.leak_check.checked, ())
    monkeypatch.setattr(tasks.retrain.evaluate, "check_exported", lambda *given, **named: leaks)
    monkeypatch.setattr(tasks.retrain.evaluate, "_plots", lambda *given: {})
    monkeypatch.setattr(tasks.retrain.evaluate, "plot_losses", mock.Mock())
    other = client().create_run(run.experiment_id).info.run_id
    return (
        readings,
        features,
        spec,
        teachers,
        students,
        parameters.plan,
        run.model_copy(update={"run_id": other, "children": {}}),
    )


def test_evaluate__losses_by_issue_time_give_the_gains(evaluated: EvaluationManifest) -> None:
    losses, evaluation = read_losses(evaluated.folder / LOSSES), evaluated.evaluation
    assert {name: losses.mean(name) for name in losses.by_contender} == pytest.approx(
        {name: scores.crps for name, scores in evaluation.scores.items()}, rel=1e-6
    )
    again = gain_between((losses, Contender.STUDENT), (losses, Contender.TWIN))
    assert asdict(again) == pytest.approx(asdict(evaluation.gain_over_twin), rel=1e-3, abs=1e-6)


def test_evaluate__meets_the_champion(again: tuple[object, ...], registered: RegisteredManifest) -> None:
    assert CHAMPION in registered.aliases
    evaluation = evaluate.fn(*again).evaluation
    champion = evaluation.champion
    assert champion is not None
    assert champion.version == registered.version
    # The champion was refit on all that there is: the one before the refit is met, which is the candidate or its twin.
    assert champion.compared_as == "evaluated"
    assert champion.gain is not None
    if evaluation.chosen is registered.source:
        assert champion.gain.estimate == pytest.approx(0, abs=1e-12)
    assert set(evaluation.scores) == SCORED | {"champion"}


def test_evaluate__of_a_backtest_meets_nobody(
    again: tuple[object, ...], registered: RegisteredManifest, evaluated: EvaluationManifest
) -> None:
    alone = evaluate.fn(*again, meets_champion=False)
    assert alone.evaluation == evaluated.evaluation
    assert alone.digest == evaluated.digest
    assert alone.folder != evaluated.folder


def test_evaluate__trainings_from_the_cache_have_their_history_in_the_run(again: tuple[object, ...]) -> None:
    *inputs, run = again
    children = {name: client().create_run(run.experiment_id).info.run_id for name in ("teacher", "twin")}
    evaluate.fn(*inputs, run.model_copy(update={"children": children}), meets_champion=False)
    for run_id in children.values():
        assert steps_of(run_id, "validation") == steps_of(run_id, "train") == [1, 2, 3, 4]


def test_evaluate__a_leak_publishes_nothing(again: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def leak(*given: object, **named: object) -> None:
        raise LeakError("the student sees what it must not")

    monkeypatch.setattr(tasks.retrain.evaluate, "check_exported", leak)
    with pytest.raises(LeakError):
        evaluate.fn(*again, meets_champion=False)
    run = again[-1]
    assert isinstance(run, RunManifest)
    assert not run_folder(run.run_id, "evaluation").exists()
    assert mlflow_run(run.run_id).data.metrics == {}


def test_champion__is_not_the_own_version_of_a_run_that_goes_on(
    registered: RegisteredManifest, run: RunManifest
) -> None:
    assert champion_version(registered.name) == registered.version
    assert tasks.retrain.evaluate._champion(registered.name, run) is None


def test_champion__of_a_version_registered_before_0_2_is_read(old_version: tuple[str, str], run: RunManifest) -> None:
    name, version = old_version
    assert tasks.retrain.evaluate._champion(name, run) is None
    client().set_registered_model_alias(name, CHAMPION, version)
    champion = tasks.retrain.evaluate._champion(name, run)
    client().delete_registered_model_alias(name, CHAMPION)
    assert champion is not None
    assert champion.version == version
    until = (champion.registered.trained_until, champion.evaluated.trained_until)
    assert until == (START + 16 * DAY, START + 12 * DAY)


def test_champion__without_a_refit_is_one_student(students: TrainedManifest, run: RunManifest, tmp_path: Path) -> None:
    shutil.copytree(students.folder / EXPORT, tmp_path / "artifacts" / "export")
    version = register_folder("no-refit-2h", tmp_path)
    client().set_registered_model_alias("no-refit-2h", CHAMPION, version)
    champion = tasks.retrain.evaluate._champion("no-refit-2h", run)
    assert champion is not None
    assert champion.registered is champion.evaluated
    assert champion.registered.card == load_student(students.folder / EXPORT).card


def test_evaluation_metrics__begin_with_the_gain() -> None:
    """MLflow's compare page draws the first metric of a run."""
    metrics = evaluation_metrics(evaluation_of(gate_by_hour=[0.5, 1.0]))
    names = list(metrics)
    assert names[0] == "gain_over_twin.estimate"
    assert names[:5] == [f"gain_over_twin.{part}" for part in ("estimate", "low", "high", "p", "windows")]
    assert names[5] == "gain_over_unprivileged.estimate"
    assert names[10] == "gain_over_floor.estimate"
    assert metrics["gain_over_twin.estimate"] == pytest.approx(0.1)
    assert (metrics["student.crps"], metrics["twin.rmse"], metrics["validation.twin.crps"]) == (0.9, 3.0, 0.85)
    assert metrics["gate.mean"] == 0.75
    assert len(metrics) == 3 * 5 + 5 * 4 + 2 + 1


def test_evaluation_metrics__leave_out_what_was_not_trained() -> None:
    metrics = evaluation_metrics(evaluation_of(gain_over_unprivileged=None))
    assert not [name for name in metrics if name.startswith(("gain_over_unprivileged", "gate"))]
    assert {f"gain_over_twin.{part}": value for part, value in asdict(gain_of(0.1)).items()}.items() <= metrics.items()
