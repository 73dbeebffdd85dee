from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from runtime.artifacts import (
    BY_LEAD,
    read_dataset,
    read_evaluation,
    read_gate,
    read_history,
    read_labels,
    read_panel,
    read_states,
    read_table,
    write_evaluation,
    write_features,
    write_gate,
    write_history,
    write_labels,
    write_states,
)
from schemas.retrain import FeaturesManifest
from tests.runtime.builders import evaluation_of, features_of, gain_of, met, scores_of, span_of, trained_in
from tests.tutelage.builders import dataset_of, random_labels, recipe_of, synthetic_panel
from tests.tutelage.data.builders import HOUR, START, meter, random_readings
from tutelage.data.quality import clean
from tutelage.data.resample import readings_within, student_table
from tutelage.data.windows import Panel, make_panel
from tutelage.distil.dataset import WindowDataset, fit_on, make_dataset
from tutelage.distil.pipeline import PartLabels
from tutelage.distil.recipe import Recipe, TrainingPlan, Views
from tutelage.distil.soft_labels import uniform_labels
from tutelage.files import read_json
from tutelage.forecasts import Contender
from tutelage.judge.metrics import ScoredForecasts
from tutelage.model.architectures import States
from tutelage.model.training import choose_device

SPEC, CPU = meter(), choose_device("cpu")
UNLABELLED = recipe_of(unlabelled=True, views=Views(future_sigma=None), more_views=())


@pytest.fixture(scope="module")
def hours() -> tuple[pl.DataFrame, np.ndarray]:
    """Eight days of a meter that lacks two hours of power on the second day."""
    readings, gap = random_readings(SPEC, days=8), pl.col("time_utc").is_between(START + 30 * HOUR, START + 32 * HOUR)
    grid = clean(readings.with_columns(power_kw=pl.when(~gap).then("power_kw")), SPEC)
    table = student_table(grid, SPEC)
    return table, readings_within(grid, table, SPEC)


@pytest.fixture(scope="module")
def features(hours: tuple[pl.DataFrame, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> FeaturesManifest:
    folder = tmp_path_factory.mktemp("features")
    parts = {"train": span_of(0, 4), "validation": span_of(4, 6), "test": span_of(6, 8)}
    manifest = features_of(folder, SPEC, **parts)
    write_features(folder, *hours, fit_on(make_panel(*hours, SPEC), manifest.parts.train, bins=8))
    return manifest


def same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are equal to the bit, with NaN in the same places."""
    return first.dtype == second.dtype and first.shape == second.shape and torch.equal(
        first.nan_to_num(nan=-1e9), second.nan_to_num(nan=-1e9)
    )  # fmt: skip


def require_same_panel(first: Panel, second: Panel) -> None:
    pairs = {f.name: (getattr(first, f.name), getattr(second, f.name)) for f in fields(Panel)}
    equal = {
        n: same(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b for n, (a, b) in pairs.items()
    }
    assert [name for name, value in equal.items() if not value] == []


@pytest.mark.parametrize("recipe", [Recipe(), UNLABELLED], ids=["labelled", "unlabelled"])
def test_features__come_back_as_the_dataset_that_they_were(
    hours: tuple[pl.DataFrame, np.ndarray], features: FeaturesManifest, recipe: Recipe
) -> None:
    panel, parts = make_panel(*hours, SPEC), features.parts
    unlabelled = recipe.distillation.unlabelled
    fitted = fit_on(panel, parts.train, bins=8)
    direct = make_dataset(panel, parts, fitted, lookback=6, horizon=2, unlabelled=unlabelled)
    back = read_dataset(features, SPEC, TrainingPlan(recipe=recipe, device="cpu"))
    require_same_panel(back.panel, direct.panel)
    assert back.panel.observed.isnan().any()
    for part in ("train", "validation", "test", "unlabelled"):
        assert torch.equal(getattr(back, part), getattr(direct, part))
    assert (len(back.unlabelled) > 0) == unlabelled
    assert (back.scalers, back.bins) == (direct.scalers, direct.bins)
    assert (back.lookback, back.horizon) == (6, 2)


def test_features__hours_and_panel_are_read_alone(
    hours: tuple[pl.DataFrame, np.ndarray], features: FeaturesManifest
) -> None:
    assert read_table(features).equals(hours[0])
    require_same_panel(read_panel(features, SPEC), make_panel(*hours, SPEC))


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([200]), train_hours=100, validation_hours=50)


def test_labels__come_back_by_part(dataset: WindowDataset, tmp_path: Path) -> None:
    written = PartLabels(
        taught=random_labels(dataset),
        validation=random_labels(dataset, dataset.validation, seed=1),
        test=random_labels(dataset, dataset.test, seed=2),
    )
    assert write_labels(tmp_path, written).is_file()
    back = read_labels(tmp_path, CPU)
    for part in ("taught", "validation", "test"):
        assert torch.equal(getattr(back, part).origins, getattr(written, part).origins)
        assert torch.equal(getattr(back, part).log_probabilities, getattr(written, part).log_probabilities)


def test_labels__without_a_tensor_of_their_own_are_written_too(dataset: WindowDataset, tmp_path: Path) -> None:
    uniform = uniform_labels(dataset)
    assert not uniform.log_probabilities.is_contiguous()
    others = (random_labels(dataset, part) for part in (dataset.validation, dataset.test))
    write_labels(tmp_path, PartLabels(uniform, *others))
    assert torch.equal(read_labels(tmp_path, CPU).taught.log_probabilities, uniform.log_probabilities)


@pytest.mark.parametrize("transformer", [False, True])
def test_states__come_back_as_they_were(tmp_path: Path, transformer: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    tokens, maps = torch.rand(1, 5, 3, 4, generator=draw), torch.rand(1, 5, 2, 3, 3, generator=draw)
    written = States(torch.rand(1, 5, 8, generator=draw), *((tokens, maps) if transformer else ()))
    assert read_states(tmp_path, CPU) is None
    write_states(tmp_path, written)
    back = read_states(tmp_path, CPU)
    assert back is not None
    assert torch.equal(back.hidden, written.hidden)
    assert ((back.tokens is None), (back.maps is None)) == (not transformer, not transformer)
    if transformer:
        assert torch.equal(back.tokens, tokens)
        assert torch.equal(back.maps, maps)


def test_gate__comes_back_as_numbers(tmp_path: Path) -> None:
    assert read_gate(tmp_path) is None
    write_gate(tmp_path, torch.tensor([0.25, 1.0, 0.0]))
    assert read_gate(tmp_path) == [0.25, 1.0, 0.0]


def test_history__comes_back_by_contender(tmp_path: Path) -> None:
    rows = [{"epoch": epoch, "train": 1 / epoch, "validation": 2 / epoch} for epoch in (1, 2, 3)]
    history = {Contender.STUDENT: rows, Contender.TWIN: rows[:2]}
    write_history(tmp_path, history)
    assert read_history(trained_in(tmp_path)) == history
    assert all(isinstance(name, Contender) for name in read_history(trained_in(tmp_path)))


def test_evaluation__comes_back_with_the_scores_by_lead_next_to_it(tmp_path: Path) -> None:
    evaluation = evaluation_of(champion=met(gain_of(0.03)), gate_by_hour=[0.5, 0.25], gain_over_unprivileged=None)
    scored = ScoredForecasts(np.ones((2, 5)), scores_of(1.5), [scores_of(1.0), scores_of(2.0)], np.linspace(0, 1, 99))
    path = write_evaluation(tmp_path, evaluation, {Contender.TWIN: scored}, [])
    assert read_evaluation(path) == evaluation
    [first, second] = read_json(tmp_path / BY_LEAD)["twin"]
    assert first == {"lead_hours": 1, "crps": 1.0, "mae": 2.0, "rmse": 3.0, "coverage_80": 0.8}
    assert (second["lead_hours"], second["crps"]) == (2, 2.0)
