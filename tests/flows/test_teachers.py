"""Retrains whose teacher is no ensemble of networks for the whole horizon, and what their stages hand on."""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from prefect import flow

from flows.retrain import retrain
from runtime.artifacts import read_gate, read_labels
from runtime.paths import datasets_folder, home
from runtime.registered_teacher import load_registered
from runtime.registry import download_version, exported_in
from schemas.retrain import FeaturesManifest, RetrainParameters, SpanManifest
from schemas.verdict import Verdict
from tests.flows.test_retrain import newest
from tests.household import write_slice
from tests.tutelage.builders import dataset_of, recipe_of, synthetic_panel
from tests.tutelage.chronos import write_chronos
from tutelage.data.dataset import Column, DatasetSpec, Role, load_dataset_spec
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.pretrained import weights_digest
from tutelage.distil.privilege import UNPRIVILEGED
from tutelage.distil.recipe import Terms, Views
from tutelage.errors import RegistryError, SpecError
from tutelage.files import folder_digest, read_json
from tutelage.model.inference import forecast_windows, load_student
from tutelage.model.kinds import Budget

pytestmark = pytest.mark.usefixtures("prefect_server")

BUDGET = Budget(epochs=4, patience=4)
SMALL = {
    "more_views": (),
    "ensemble_size": 2,
    "teacher_width": 16,
    "student_width": 16,
    "bins": 12,
    "noise_draws": 2,
}
SMALL |= {"teacher_training": BUDGET, "student_training": BUDGET}
PAST = Views(future_sigma=None)


def small(dataset: str, *, refit: bool = False, **recipe: object) -> RetrainParameters:
    return RetrainParameters(
        dataset=dataset,
        horizon_hours=4,
        lookback_hours=24,
        history_days=24,
        test_days=14,
        recipe=recipe_of(**(SMALL | recipe)),
        device="cpu",
        promotion="never",
        refit=refit,
    )


def teachers_epochs(verdict: Verdict) -> list[int]:
    """The epochs that stand in MLflow for the teacher."""
    client = mlflow.MlflowClient()
    parent = client.get_run(verdict.mlflow_run_id).info
    of_run = f"tags.`mlflow.parentRunId` = '{parent.run_id}' and tags.`tutelage.stage` = 'teacher'"
    [child] = client.search_runs([parent.experiment_id], of_run)
    return [metric.step for metric in client.get_metric_history(child.info.run_id, "validation")]


@pytest.fixture(scope="module")
def networks(household_slice: str) -> Verdict:
    """Two ensembles of transformers, for 2 and for 4 hours, that teach by what they hold inside, too."""
    return retrain(
        small(
            household_slice,
            kind="inverted",
            architecture="inverted",
            horizons=(2,),
            terms=Terms(attention=1.0, variables=1.0, features=1.0, times=1.0),
            gate="windows",
        )
    )


@pytest.fixture(scope="module")
def gap_slice(prefect_server: None) -> str:
    """The slice without two hours of its training part."""
    name = write_slice(datasets_folder(), name="gap-slice", days=40)
    file = datasets_folder() / f"{name}.csv"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(("2010-07-01 10:", "2010-07-01 11:"))]
    assert len(lines) - len(kept) == 120
    file.write_text("".join(kept), encoding="utf-8")
    return name


@pytest.fixture(scope="module")
def trees(gap_slice: str) -> Verdict:
    """Trees that teach, and a refit version, which has learned from the test part, too."""
    return retrain(small(gap_slice, refit=True, kind="boosted", views=PAST, unlabelled=True, gate="hours"))


def test_retrain__a_teacher_for_each_horizon(networks: Verdict) -> None:
    folder = newest("teacher")
    horizons = [
        read_json(place / "network.json")["config"]["horizon"]
        for place in (folder / "block-1" / "teacher-2h", folder / "block-1")
    ]
    assert horizons == [2, 4]
    labels = read_labels(folder, CPU)
    history = sum(networks.parts[part].windows for part in ("train", "validation"))
    assert labels.taught.log_probabilities.shape == (history, 4, 12)
    for part in (labels.taught, labels.validation, labels.test):
        np.testing.assert_allclose(part.log_probabilities.exp().sum(dim=-1), 1, rtol=1e-4)
    gate = read_gate(newest("students"))
    assert gate is not None
    assert len(gate) == 4
    assert networks.evaluation.leak_check.passed
    assert "unprivileged" not in networks.evaluation.scores  # its terms compare hidden states


def test_retrain__trees_teach_windows_without_a_target_too(trees: Verdict) -> None:
    folder = newest("teacher")
    assert not (folder / "network.json").exists()
    # Windows of 4 hours that begin from 3 hours before the gap up to its second hour lack a target and nothing else: in
    # the past, the gap's first hour is filled.
    history = sum(trees.parts[part].windows for part in ("train", "validation"))
    assert len(read_labels(folder, CPU).taught.origins) == history + 5
    gate = trees.evaluation.gate_by_hour
    assert gate is not None
    assert all(0 <= hour <= 1 for hour in gate)
    assert {"teacher", "student", "unprivileged", "twin"} <= set(trees.evaluation.scores)
    assert len(read_json(folder / "history.json")["teacher"]) == 1
    assert teachers_epochs(trees) == [1]


def test_retrain__a_registered_model_of_another_dataset_teaches(household_slice: str, trees: Verdict) -> None:
    version = trees.registered.version
    verdict = retrain(small(household_slice, registered_model=f"{trees.task}/{version}"))
    # The test parts are the same: the student that was evaluated before the refit is evaluated again, as teacher, by
    # what 12 bins leave of it.
    before = trees.evaluation.scores["chosen"].crps
    assert verdict.evaluation.scores["teacher"].crps == pytest.approx(before, rel=0.05)
    assert verdict.evaluation.gain_over_unprivileged is None
    client = mlflow.MlflowClient()
    assert (
        client.get_run(verdict.mlflow_run_id).data.params["recipe.teacher.registered_model"]
        == f"{trees.task}/{version}"
    )
    assert teachers_epochs(verdict) == [1]
    card = client.get_model_version(verdict.task, verdict.registered.version).description
    taught = f"taught by {trees.task}/{version}; "
    of_student = verdict.registered.source == "student" and verdict.evaluation.network_share != 0
    assert (taught in card) == of_student


def test_retrain__a_teacher_is_not_longer_than_the_horizon(household_slice: str) -> None:
    with pytest.raises(ValueError, match="4 h is not shorter than the horizon, 4 h"):
        small(household_slice, horizons=(2, 4))


def features_of(dataset: WindowDataset, *, test_start: dt.datetime, horizon: int | None = None) -> FeaturesManifest:
    span = SpanManifest(start_utc=test_start, end_utc=test_start + dt.timedelta(days=9), windows=9)
    return FeaturesManifest(
        folder=home(),
        digest="0",
        task="home-4h",
        dataset="home",
        target="power",
        unit="kW",
        horizon_hours=horizon or dataset.horizon,
        lookback_hours=dataset.lookback,
        train=span,
        validation=span,
        test=span,
        steps=1,
        null_steps=0,
        unused_days=0,
    )


@pytest.fixture
def spec(gap_slice: str) -> DatasetSpec:
    return load_dataset_spec(datasets_folder() / f"{gap_slice}.yaml")


CPU = torch.device("cpu")
AFTER = dt.datetime(2011, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"horizon": 6}, "its horizon_hours is 4, not 6"),
        ({"test_start": AFTER - dt.timedelta(days=400)}, "it was trained until 2010-.*, into the test part"),
        ({"lookback": 12}, "it needs 24 complete hours, and the windows have 12"),
        ({"columns": True}, "its observed is .*'global_active_power_kw'.*, not .*'voltage_v'"),
        ({"version": "99"}, "gap-slice-4h/99 can't be loaded from the registry"),
    ],
    ids=["horizon", "test part", "lookback", "columns", "version"],
)
def test_load_registered__refuses_what_cannot_teach(
    trees: Verdict, spec: DatasetSpec, changes: dict[str, object], sentence: str
) -> None:
    dataset = dataset_of(synthetic_panel([200]), train_hours=120, lookback=changes.get("lookback", 24), horizon=4)
    features = features_of(dataset, test_start=changes.get("test_start", AFTER), horizon=changes.get("horizon"))
    if "columns" in changes:

        def seen(column: Column) -> Column:
            return column.model_copy(update={"role": Role.OBSERVED}) if column.name == "voltage_v" else column

        spec = spec.model_copy(update={"columns": tuple(map(seen, spec.columns))})
    version = changes.get("version", trees.registered.version)
    with pytest.raises(RegistryError, match=sentence):
        _in_flow(lambda: load_registered(f"{trees.task}/{version}", features, spec))


@flow
def _in_flow(work: Callable[[], object]) -> object:
    """Prefect's run logger speaks in runs alone."""
    return work()


def with_one_column(dataset: WindowDataset) -> WindowDataset:
    """The dataset with the target alone, as the household has it."""
    return replace(dataset, panel=replace(dataset.panel, observed=dataset.panel.observed[:, :1].contiguous()))


class Shift(mlflow.pyfunc.PythonModel):
    """Of every hour uniform between the last value and one above, a further one for each hour ahead."""

    def predict(self, context: object, model_input: pd.DataFrame, params: object = None) -> pd.DataFrame:
        rows = []
        # Backwards: nobody has promised an order.
        for name, part in sorted(model_input.groupby("series_id"), reverse=True):
            last = part.iloc[:, 2].dropna().iloc[-1]
            for lead in range(1, 5):
                quantiles = {f"q{level:02d}": last + lead - 1 + level / 100 for level in range(1, 100)}
                rows.append({"series_id": name, "lead_hours": lead, **quantiles})
        return pd.DataFrame(rows)


def test_load_registered__any_model_that_answers_as_ours_do(spec: DatasetSpec) -> None:
    with mlflow.start_run():
        info = mlflow.pyfunc.log_model(name="model", python_model=Shift(), registered_model_name="shift")
    dataset = with_one_column(dataset_of(synthetic_panel([400]), train_hours=340, lookback=5, horizon=4))
    features = features_of(dataset, test_start=AFTER)
    version = info.registered_model_version
    files = download_version("shift", version)
    assert list(files.rglob("*.pkl")), "it is a pickle"
    with pytest.raises(RegistryError, match="would run its own code when it is loaded"):
        load_registered(f"shift/{version}", features, spec)
    digest = folder_digest(files)
    forecast = _in_flow(lambda: load_registered(f"shift/{version}", features, spec, digest=digest))
    forecasts = forecast(dataset, dataset.train)
    assert len(dataset.train) > 256  # more than one call
    last = dataset.panel.observed[dataset.train - 1, 0].numpy()
    expected = last[:, None] + np.arange(4) + 0.5
    np.testing.assert_allclose(forecasts.quantiles[..., 49], expected, rtol=1e-5)


def test_load_registered__one_of_ours_says_what_its_graph_says(trees: Verdict, spec: DatasetSpec) -> None:
    dataset = with_one_column(dataset_of(synthetic_panel([200]), train_hours=120, lookback=30, horizon=4))
    forecast = load_registered(f"{trees.task}/{trees.registered.version}", features_of(dataset, test_start=AFTER), spec)
    student = load_student(exported_in(download_version(trees.task, trees.registered.version)))
    origin = int(dataset.train[7])
    panel = dataset.panel
    # Of the 28 days that the graph's simple forecasts look at, the panel has only the last ones.
    past = np.full((1, student.card["lookback_hours"], 1), np.nan, dtype=np.float32)
    past[0, -origin:] = panel.observed[:origin].numpy()
    known = panel.known[None, origin : origin + 4].numpy()
    expected = forecast_windows(student, past, known).quantiles[0]
    np.testing.assert_allclose(forecast(dataset, dataset.train).quantiles[7], expected, rtol=1e-5)


def test_retrain__teachers_of_every_kind_teach_together(household_slice: str) -> None:
    views = (Views(future_sigma=None, minutes_hours=0, relative_hours=1), Views(auxiliary_future_sigma=1.0))
    recipe = {"views": views[0], "more_views": views[1:], "simple": True, "weights": "likely", "coupling": 1.0}
    parameters = small(household_slice, base="none", **recipe, stop="teacher", alpha=1.0, small_data_alpha=None)
    verdict = retrain(parameters.model_copy(update={"refit": True}))
    assert {"teacher", "student", "unprivileged", "twin"} <= set(verdict.evaluation.scores)
    # Who has just seen the hour before knows more of an hour than who has not.
    assert verdict.evaluation.scores["teacher"].crps < verdict.evaluation.scores["twin"].crps
    assert verdict.evaluation.leak_check.passed
    labels = read_labels(newest("teacher"), CPU)
    np.testing.assert_allclose(labels.test.log_probabilities.exp().sum(dim=-1), 1, rtol=1e-4)


def test_retrain__other_sites_and_a_pretrained_model_teach_a_new_one(household_slice: str) -> None:
    """As the preset new-site, with that model as a teacher, too, and students that stop by the labels."""
    pytest.importorskip("fracast", reason="`make .venv/installed` installs it")
    others = write_slice(datasets_folder(), name="another-summer", days=30, end=dt.datetime(2009, 7, 31))
    knowing = {"other_sites": others, "pretrained": "fracast", "student_pretrained": "fracast"}
    verdict = retrain(small(household_slice, views=UNPRIVILEGED, **knowing, transfer=True, stop="teacher"))
    assert {"teacher", "student", "unprivileged", "untaught", "twin"} <= set(verdict.evaluation.scores)
    assert verdict.evaluation.leak_check.passed
    own = sum(verdict.parts[part].windows for part in ("train", "validation"))
    for role in ("teacher", "unprivileged"):
        taught = read_labels(newest(role), CPU).taught.origins
        assert len(taught) > own + 500, "the other summer's windows have labels, too"


def test_retrain__a_chronos_model_in_a_folder_is_one_of_the_teachers(household_slice: str, tmp_path: Path) -> None:
    folder = write_chronos(tmp_path / "small-chronos", "2")
    parameters = small(household_slice, refit=True, base="none", views=PAST, pretrained_folder=str(folder))
    verdict = retrain(parameters)
    noted = mlflow.MlflowClient().get_run(verdict.mlflow_run_id).data.params["recipe.teacher.pretrained_digest"]
    assert noted == weights_digest(folder)
    rmtree(folder)
    with pytest.raises(SpecError, match=r"^recipe\.teacher\.pretrained_folder: .*small-chronos has no config"):
        retrain(parameters)
