"""Stage 6: the figures on the untouched test part, the gain over the twin, the champion, and the leak guard."""

import datetime as dt
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import mlflow
import numpy as np
import torch
from matplotlib.figure import Figure
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff
from torch import Tensor

from schemas.manifests import (
    EvaluationManifest,
    FeaturesManifest,
    ReadingsManifest,
    RunManifest,
    TrainedManifest,
)
from tasks.caching import is_transient
from tasks.guard import guard
from tasks.home import home
from tasks.loading import JUDGED, PAIR, load_gate, load_soft_labels, load_task, run_folder
from tasks.tracking import champion_version, client, log_figures
from tutelage.baselines import seasonal_naive
from tutelage.comparison import Gain, gain_over
from tutelage.dataset import DatasetSpec
from tutelage.distillation import Task
from tutelage.export import Student, forecast_windows, load_student
from tutelage.files import file_digest, folder_written_whole, read_json, write_json
from tutelage.heads import QUANTILE_LEVELS, mean_of, quantiles_of
from tutelage.metrics import Figures, Forecasts, crps, figures_of
from tutelage.plots import plot_fan, plot_losses, plot_reliability, plot_skill
from tutelage.students import forecast_students
from tutelage.weights import load_network
from tutelage.windows import Span, gather_future, gather_past, window_origins

SEASONS = (24, 168)
FAN_HOURS = 7 * 24
LEAST_ISSUES = 14 * 24
"""Issue times, two weeks of them, on which a refit champion is compared itself."""


@task(
    name="evaluate",
    task_run_name="evaluate {features.task}",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,  # the champion may have changed
)
def evaluate(
    readings: ReadingsManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    teacher: TrainedManifest,
    students: TrainedManifest,
    run: RunManifest,
    *,
    seed: int,
    meet_champion: bool = True,
) -> EvaluationManifest:
    """Score all forecasts on the test part; choose student or twin on the validation part; guard against leaks.

    The gain is that of all students over their twins, and over the control's students, where there are any; the choice
    is between all students and their twins. What may be registered, the chosen one of the first pair, is judged as the
    ONNX file that production would run, and so is the champion.
    Raises LeakError where an exported student sees what it must not.
    """
    learning, test = load_task(features, spec, "cpu")
    exported = {name: load_student(students.folder / name / "export") for name in PAIR}
    networks = {name: load_network(students.folder / name, torch.device("cpu")) for name in students.best_epoch}
    seen, actual = _actual(learning, learning.validation), _actual(learning, test)
    validation_crps = {}
    for name in PAIR:
        held_out = forecast_students(networks[name], learning, learning.validation)
        validation_crps[name] = fmean(float(crps(own, seen).mean()) for own in held_out)
    chosen = "student" if validation_crps["student"] < validation_crps["twin"] else "twin"
    candidate = _forecast(exported[chosen], learning, test)
    figures = {name: figures_of(forecast_students(own, learning, test), actual) for name, own in networks.items()}
    figures["teacher"] = figures_of([_teacher_forecast(teacher, learning)], actual)
    for season in SEASONS:
        if season >= features.horizon_hours:
            naive = seasonal_naive(learning.panel, learning.train, test, horizon=features.horizon_hours, season=season)
            figures[f"seasonal_naive_{season}h"] = figures_of([naive], actual)
    champion = _champion(features.task) if meet_champion else None
    rival = _rival(champion, learning, test, features) if champion else None
    gain_vs_champion = None
    if rival is not None:
        gain_vs_champion, theirs = _against(*rival, candidate, learning, test, seed)
        if rival[1].all():
            figures["champion"] = figures_of([theirs], actual)
    figures["chosen"] = figures_of([candidate], actual)
    student, twin = (figures[name].losses for name in PAIR)
    issued = learning.panel.hour[test].numpy()
    gains = {
        f"gain_vs_{name}": gain_over(student, figures[name].losses, issued, seed=seed).as_dict()
        for name in ("twin", "no_privilege")
        if name in networks
    }
    gain_by_pair = (1 - student.mean(axis=1) / twin.mean(axis=1)).tolist()
    metrics = {name: found.scores for name, found in figures.items()}
    leaks = guard(readings, spec, exported, features, seed)
    folder = run_folder(home(), run.run_id, "evaluation")
    with folder_written_whole(folder) as part:
        plots = _plots(learning, test, figures, candidate, actual, features, chosen, teacher, students)
        for name, figure in plots.items():
            figure.savefig(part / f"{name}.png")
        write_json(part / "by_lead.json", {name: found.by_lead for name, found in figures.items()})
        digest = file_digest(part / "by_lead.json")
    trusted = load_gate(students.folder, torch.device("cpu"))
    gate = None if trusted is None else trusted.tolist()
    _log(run, metrics, gains, validation_crps, gate, folder)
    get_run_logger().info(
        "%s: student %.4f, twin %.4f CRPS, mean of %d, on %d test windows; leak guard: %d forecasts, no trace",
        features.task, metrics["student"]["crps"], metrics["twin"]["crps"], len(student), len(test), leaks.checked,
    )  # fmt: skip
    return EvaluationManifest(
        folder=folder,
        digest=digest,
        metrics=metrics,
        validation_crps=validation_crps,
        gain_vs_twin=gains["gain_vs_twin"],
        gain_vs_no_privilege=gains.get("gain_vs_no_privilege"),
        gain_by_pair=gain_by_pair,
        gate_by_hour=gate,
        gain_vs_champion=gain_vs_champion.as_dict() if gain_vs_champion else None,
        champion_version=champion.version if champion else None,
        beats_champion=gain_vs_champion.low > 0 if gain_vs_champion else None,
        champion_as=("registered" if champion and rival[0] is champion.registered else "judged") if rival else None,
        chosen=chosen,
        leak_guard={"passed": leaks.passed, "checked": leaks.checked},
    )


def _actual(learning: Task, origins: Tensor) -> np.ndarray:
    return learning.truth(origins).numpy().astype(np.float64)


def _forecast(student: Student, learning: Task, origins: Tensor) -> Forecasts:
    observed = gather_past(learning.panel.observed, origins, student.card["lookback_hours"])
    known = gather_future(learning.panel.known, origins, learning.horizon)
    return forecast_windows(student, observed.numpy(), known.numpy())


def _teacher_forecast(teacher: TrainedManifest, learning: Task) -> Forecasts:
    probabilities = load_soft_labels(teacher.folder, learning.panel.observed.device)["test"].exp()
    edges = learning.edges()
    quantiles = quantiles_of(probabilities, edges, edges.new_tensor(QUANTILE_LEVELS))
    return Forecasts(mean_of(probabilities, edges).numpy().astype(np.float64), quantiles.numpy().astype(np.float64))


@dataclass(frozen=True)
class _Champion:
    """The present champion: the student that is registered, and the one that was judged before its refit.

    They are one and the same where it wasn't refit.
    """

    version: str
    registered: Student
    judged: Student


def _champion(name: str) -> _Champion | None:
    version = champion_version(name)
    if version is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version}", dst_path=folder))
        registered = load_student(path / "artifacts" / "export")
        judged = load_student(path / JUDGED) if (path / JUDGED).is_dir() else registered
    return _Champion(version, registered, judged)


def _rival(
    champion: _Champion, learning: Task, test: Tensor, features: FeaturesManifest
) -> tuple[Student, Tensor] | None:
    """Which of the champion's students a candidate meets, and on which of the test windows; None without any.

    They meet on windows after the end of all that either has seen. A refit champion has seen nearly all there is:
    with fewer than two weeks of such windows the one that wasn't refit stands for it, as it does for the candidate.
    """
    everything = Span(dt.datetime(1970, 1, 1, tzinfo=dt.UTC), features.test.end_utc)
    for student in (champion.registered, champion.judged):
        seen = max(student.trained_until, features.validation.end_utc)
        lookback = student.card["lookback_hours"]
        possible = window_origins(learning.panel, everything, lookback=lookback, horizon=learning.horizon)
        usable = (learning.panel.hour[test] >= int(seen.timestamp() // 3600)) & torch.isin(test, possible)
        issued = learning.panel.hour[test[usable]].unique()
        if student.card["horizon_hours"] != learning.horizon or not usable.any():
            continue
        if len(issued) >= LEAST_ISSUES or student is champion.judged:
            return student, usable
    return None


def _against(
    rival: Student, usable: Tensor, candidate: Forecasts, learning: Task, test: Tensor, seed: int
) -> tuple[Gain, Forecasts]:
    """The candidate's gain on the usable test windows, and what the rival says of them."""
    theirs = _forecast(rival, learning, test[usable])
    actual = _actual(learning, test[usable])
    keep = usable.numpy()
    ours = Forecasts(candidate.mean[keep], candidate.quantiles[keep])
    our_loss, their_loss = (crps(forecast, actual).mean(axis=1) for forecast in (ours, theirs))
    return gain_over(our_loss, their_loss, learning.panel.hour[test[usable]].numpy(), seed=seed), theirs


def _plots(
    learning: Task,
    test: Tensor,
    figures: dict[str, Figures],
    candidate: Forecasts,
    actual: np.ndarray,
    features: FeaturesManifest,
    chosen: str,
    teacher: TrainedManifest,
    students: TrainedManifest,
) -> dict[str, Figure]:
    rows = _consecutive(test.numpy(), learning.horizon)
    times = [
        dt.datetime.fromtimestamp(int(learning.panel.hour[test[row]] + lead) * 3600, dt.UTC)
        for row in rows
        for lead in range(learning.horizon)
    ]
    fan = Forecasts(candidate.mean[rows].reshape(1, -1), candidate.quantiles[rows].reshape(1, len(times), -1))
    # The chosen one is one of the students or of the twins: a line upon theirs.
    compared = {name: found for name, found in figures.items() if name != "chosen"}
    issued = "every hour" if learning.horizon == 1 else f"every {learning.horizon} h"
    return {
        "forecast": plot_fan(
            times,
            fan,
            actual[rows].reshape(-1),
            label=features.target,
            unit=features.unit,
            title=f"{features.task}: the {chosen}'s forecasts, issued {issued}",
        ),
        "reliability": plot_reliability({name: found.reliability for name, found in compared.items()}),
        "skill": plot_skill(
            {name: found.by_lead for name, found in compared.items()},
            reference=next((name for name in compared if name.startswith("seasonal_naive")), "twin"),
        ),
        "losses": plot_losses(read_json(teacher.folder / "history.json") | read_json(students.folder / "history.json")),
    }


def _consecutive(test: np.ndarray, horizon: int) -> list[int]:
    """Windows of the test part that follow each other without a gap, from its middle on, for about a week."""
    place = {int(origin): row for row, origin in enumerate(test)}
    best: list[int] = []
    for start in range(len(test) // 2, len(test), 24):
        rows: list[int] = []
        origin = int(test[start])
        while origin in place and len(rows) * horizon < FAN_HOURS:
            rows.append(place[origin])
            origin += horizon
        if len(rows) > len(best):
            best = rows
        if len(best) * horizon >= FAN_HOURS:
            break
    return best


def _log(
    run: RunManifest,
    metrics: dict[str, dict[str, float]],
    gains: dict[str, dict[str, float]],
    validation_crps: dict[str, float],
    gate: list[float] | None,
    folder: Path,
) -> None:
    # The gains first, that over the twin before all: MLflow's compare page draws the first metric of a run.
    figures = {f"{gain}.{name}": value for gain, values in gains.items() for name, value in values.items()}
    figures |= {f"{name}.{metric}": value for name, values in metrics.items() for metric, value in values.items()}
    figures |= {f"validation.{name}.crps": value for name, value in validation_crps.items()}
    if gate:
        figures["gate.mean"] = fmean(gate)
    log_figures(run.run_id, figures)
    for name, run_id in run.children.items():
        own = dict(metrics[name])
        if name in validation_crps:
            own["validation.crps"] = validation_crps[name]
        log_figures(run_id, own)
    client().log_artifacts(run.run_id, str(folder))  # no folder: the compare page shows files at the top alone
