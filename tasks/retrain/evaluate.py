"""The evaluation on the held-out test part: scores, gains, the choice, the champion, and the leak check."""

import datetime as dt
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from matplotlib.figure import Figure
from prefect import get_run_logger

from runtime.artifacts import (
    EXPORT,
    LOSSES,
    read_base,
    read_dataset,
    read_gate,
    read_held_out,
    read_history,
    read_labels,
    write_evaluation,
    write_losses,
)
from runtime.champion import champion_to_meet
from runtime.leaks import check_exported
from runtime.paths import run_folder
from runtime.registry import client, download_version, evaluated_in, exported_in, last_test_end
from runtime.runs import log_history, log_metrics
from runtime.stage import stage
from schemas.manifests import RunManifest
from schemas.retrain import (
    ChampionComparison,
    Evaluation,
    EvaluationManifest,
    FeaturesManifest,
    LeakCheck,
    ReadingsManifest,
    TrainedManifest,
)
from tutelage.data.dataset import DatasetSpec
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.recipe import TrainingPlan
from tutelage.distil.teachers import forecast_exported
from tutelage.files import file_digest, folder_written_whole
from tutelage.forecasts import Contender, Forecasts
from tutelage.judge.baselines import BASELINES
from tutelage.judge.champion import Champion, Meeting, meet_champion
from tutelage.judge.explanation import rests_on
from tutelage.judge.fidelity import check_fidelity, is_constant
from tutelage.judge.metrics import ScoredForecasts, score_by_hour, score_members
from tutelage.judge.plots import plot_coverage, plot_fan, plot_losses, plot_reliability, plot_skill
from tutelage.judge.series import score_series
from tutelage.judge.verdict import (
    actual_values,
    choose,
    find_floor,
    find_gains,
    find_losses,
    hours_of_day,
    score_baselines,
    score_contenders,
)
from tutelage.judge.week import one_week
from tutelage.model.inference import Student, differences, load_student
from tutelage.model.weights import load_network

CPU = torch.device("cpu")
WORST_SERIES = 10
"""Series that the report names; the file has all of them."""


@stage("evaluate", run_name="evaluate {features.task}")
def evaluate(
    readings: ReadingsManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    students: TrainedManifest,
    plan: TrainingPlan,
    run: RunManifest,
    *,
    meets_champion: bool = True,
) -> EvaluationManifest:
    """Score all forecasts on the test part; choose student or twin on the held-out blocks; check for leaks.

    Gains are those of all students over their twins, and over the unprivileged students where there are any; the choice
    is between all students and all twins. The chosen network of the first replicate, which may be registered, is
    evaluated as the ONNX file that production runs, and so is the champion.

    Raises LeakError where the exported student sees what it must not, ExportError where it differs from its network.
    """
    dataset = read_dataset(features, spec, plan.model_copy(update={"device": "cpu"}))
    networks = {Contender(name): load_network(students.folder / name, CPU) for name in students.best_epoch}
    exported = load_student(students.folder / EXPORT)
    bases = {name: base for name in networks if (base := read_base(students.folder / name)) is not None}
    chosen = choose(held_out := read_held_out(students.folder))
    scored = score_contenders(dataset, networks, read_labels(teachers.folder, CPU).test, bases=bases)
    scored |= score_baselines(dataset)
    candidate = forecast_exported(exported, dataset, dataset.test)
    check_fidelity(candidate, networks[chosen], bases.get(chosen), dataset, dataset.test)
    champion = _champion(features.task, run) if meets_champion else None
    meeting = None if champion is None else _meet(champion, candidate, dataset, spec, features)
    actual = actual_values(dataset, dataset.test)
    if meeting is not None and meeting.windows.all():
        scored[Contender.CHAMPION] = score_members([meeting.forecasts], actual)
    scored[Contender.CHOSEN] = score_members([candidate], actual)
    gains, floor = find_gains(dataset, scored), find_floor(dataset, scored)
    by_series = score_series(dataset, scored[Contender.CHOSEN].losses, scored[floor.baseline].losses)
    evaluation = Evaluation(
        scores={name: each.scores for name, each in scored.items()},
        validation_crps=held_out,
        floor=floor,
        gain_over_twin=gains.over_twin,
        gain_over_unprivileged=gains.over_unprivileged,
        gain_by_replicate=gains.by_replicate,
        gate_by_hour=read_gate(students.folder),
        base_weights=dict(bases[chosen].weights) if chosen in bases else None,
        champion=None if champion is None else _comparison(champion, meeting, spec, features, run),
        chosen=chosen,
        is_constant=is_constant(candidate),
        worst_series=by_series[:WORST_SERIES],
        rests_on=rests_on(exported, dataset, dataset.test, seed=plan.seed),
        leak_check=_check_leaks(readings, spec, exported, features, plan),
    )
    with folder_written_whole(folder := run_folder(run.run_id, "evaluation")) as part:
        digest = file_digest(write_evaluation(part, evaluation, scored, by_series, step_hours=spec.grid.hours))
        write_losses(part / LOSSES, find_losses(dataset, scored))
        for name, figure in _plots(dataset, scored, candidate, actual, features, evaluation).items():
            figure.savefig(part / f"{name}.png")
        plot_losses(read_history(teachers) | read_history(students)).savefig(part / "losses.png")
    _log(run, evaluation, folder, teachers, students)
    return EvaluationManifest(folder=folder, digest=digest, evaluation=evaluation)


def _check_leaks(
    readings: ReadingsManifest, spec: DatasetSpec, exported: Student, features: FeaturesManifest, plan: TrainingPlan
) -> LeakCheck:
    leaks = check_exported(readings, spec, exported, features, seed=plan.seed)
    return LeakCheck(passed=leaks.passed, checked=leaks.checked)


def _champion(name: str, run: RunManifest) -> Champion | None:
    version = champion_to_meet(name, run_id=run.run_id)
    if version is None:
        return None
    folder = download_version(name, version)
    registered, evaluated = exported_in(folder), evaluated_in(folder)
    student = load_student(registered)
    return Champion(version, student, student if evaluated == registered else load_student(evaluated))


def _unlike(champion: Champion, spec: DatasetSpec, features: FeaturesManifest) -> tuple[str, ...]:
    return tuple(differences(champion.registered.card, spec, horizon_hours=features.horizon_hours))


def _meet(
    champion: Champion, candidate: Forecasts, dataset: WindowDataset, spec: DatasetSpec, features: FeaturesManifest
) -> Meeting | None:
    if _unlike(champion, spec, features):
        return None
    return meet_champion(
        champion,
        candidate,
        dataset,
        validation_end=features.validation.end_utc,
        test_end=features.test.end_utc,
    )


def _comparison(
    champion: Champion,
    meeting: Meeting | None,
    spec: DatasetSpec,
    features: FeaturesManifest,
    run: RunManifest,
) -> ChampionComparison:
    if meeting is None:
        unlike = _unlike(champion, spec, features)
        return ChampionComparison(version=champion.version, gain=None, compared_as=None, differences=unlike)
    # A version of an earlier release doesn't say when it was compared, but it has not seen more than it was tested on.
    before = last_test_end(features.task, before_run=run.run_id) or champion.registered.trained_until
    return ChampionComparison(
        version=champion.version,
        gain=meeting.gain,
        compared_as="registered" if meeting.as_registered else "evaluated",
        since_days=(features.test.end_utc - before) / dt.timedelta(days=1),
        weeks=meeting.weeks,
    )


def _plots(
    dataset: WindowDataset,
    scored: dict[Contender, ScoredForecasts],
    candidate: Forecasts,
    actual: np.ndarray,
    features: FeaturesManifest,
    evaluation: Evaluation,
) -> dict[str, Figure]:
    floor, chosen = evaluation.floor.baseline, evaluation.chosen
    # The chosen network is one of the students or twins; its line would cover theirs. Of the simple forecasts the best.
    hidden = {Contender.CHOSEN, *BASELINES} - {floor}
    drawn = [name for name in scored if name not in hidden]
    compared = {name: scored[name] for name in drawn}
    week, step_hours = one_week(dataset, candidate), dataset.panel.grid.hours
    issued = "every hour" if dataset.horizon_hours == 1 else f"every {dataset.horizon_hours} h"
    return {
        "forecast": plot_fan(
            week.times,
            week.forecasts,
            week.actual,
            label=features.target,
            unit=features.unit,
            title=f"{features.task}: the {chosen.label}'s forecasts, issued {issued}",
        ),
        "reliability": plot_reliability({name: each.reliability for name, each in compared.items()}),
        "coverage": plot_coverage(
            scored[Contender.CHOSEN].by_lead,
            score_by_hour(candidate, actual, hours_of_day(dataset, dataset.test)),
            title=f"{features.task}: the {chosen.label}",
            step_hours=step_hours,
        ),
        "skill": plot_skill(
            {name: each.by_lead for name, each in compared.items()},
            reference=floor,
            step_hours=step_hours,
        ),
    }


def _log(
    run: RunManifest, evaluation: Evaluation, folder: Path, teachers: TrainedManifest, students: TrainedManifest
) -> None:
    """To MLflow: the evaluation to the run, scores and history of each contender to its child."""
    log_metrics(run.run_id, evaluation_metrics(evaluation))
    history = read_history(teachers) | read_history(students)
    for name, run_id in run.children.items():
        contender = Contender(name)
        metrics = asdict(evaluation.scores[contender])
        if contender in evaluation.validation_crps:
            metrics["validation.crps"] = evaluation.validation_crps[contender]
        log_metrics(run_id, metrics)
        # Trainings from the cache have logged nothing to this run.
        log_history(run_id, history[contender])
    client().log_artifacts(run.run_id, str(folder))  # at the top level: the compare page shows only files there
    scores = evaluation.scores
    get_run_logger().info(
        "CRPS on the test part: student %.4f, twin %.4f, mean of %d; leak check: %d forecasts, no leak",
        scores[Contender.STUDENT].crps,
        scores[Contender.TWIN].crps,
        len(evaluation.gain_by_replicate),
        evaluation.leak_check.checked,
    )


def evaluation_metrics(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation as MLflow metrics, gains first: MLflow's compare page shows the first metric of a run."""
    gains = {
        "gain_over_twin": evaluation.gain_over_twin,
        "gain_over_unprivileged": evaluation.gain_over_unprivileged,
        "gain_over_floor": evaluation.floor.gain,
    }
    metrics = {f"{name}.{part}": value for name, gain in gains.items() if gain for part, value in asdict(gain).items()}
    metrics |= {
        f"{n}.{metric}": value for n, each in evaluation.scores.items() for metric, value in asdict(each).items()
    }
    metrics |= {f"validation.{name}.crps": value for name, value in evaluation.validation_crps.items()}
    if evaluation.gate_by_hour:
        metrics["gate.mean"] = fmean(evaluation.gate_by_hour)
    if evaluation.base_weights is not None and evaluation.network_share is not None:
        metrics["base.network"] = evaluation.network_share
        metrics |= {f"base.{name}": weight for name, weight in evaluation.base_weights.items()}
    return metrics
