from pathlib import Path

import numpy as np
import pytest
import torch
from chronos import BaseChronosPipeline

from tests.tutelage.builders import dataset_of, recipe_of, small_recipe, synthetic_panel, target_alone
from tests.tutelage.chronos import LEVELS, LONGEST, Family, write_chronos
from tutelage.distil.blocks import fit_teachers
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.pretrained import load_chronos, pretrained_teacher, weights_digest, with_pretrained_digest
from tutelage.distil.teachers import PRETRAINED_TEACHER, list_teachers
from tutelage.errors import TutelageError
from tutelage.forecasts import interpolated


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    panel = target_alone(synthetic_panel([300], missing=0.02))
    return dataset_of(panel, train_hours=150, validation_hours=70, lookback=30, horizon=3)


@pytest.mark.parametrize("family", ["bolt", "2"])
def test_load_chronos__forecasts_what_the_package_does(dataset: WindowDataset, tmp_path: Path, family: Family) -> None:
    folder = write_chronos(tmp_path / "model", family)
    origins = dataset.test[[5, 0, 9]]
    forecast = load_chronos(folder, horizon=3)(dataset, origins)
    pipeline = BaseChronosPipeline.from_pretrained(folder)
    pasts = [dataset.panel.observed[:origin, 0] for origin in origins.tolist()]
    quantiles, _ = pipeline.predict_quantiles(pasts, prediction_length=3, quantile_levels=LEVELS)
    native = torch.stack([each.reshape(3, len(LEVELS)) for each in quantiles]).sort(dim=-1).values
    expected = interpolated(native.numpy(), LEVELS)
    np.testing.assert_allclose(forecast.quantiles, expected.quantiles, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(forecast.mean, expected.mean, rtol=1e-3, atol=1e-4)


def test_load_chronos__computes_each_window_once_whatever_the_order(dataset: WindowDataset, tmp_path: Path) -> None:
    model = load_chronos(write_chronos(tmp_path / "model", "2"), horizon=3)
    first = model(dataset, dataset.test[:4])
    dataset.panel.observed[int(dataset.test[0]) - 1, 0] += 100.0
    again = model(dataset, dataset.test[:4].flip(0))
    dataset.panel.observed[int(dataset.test[0]) - 1, 0] -= 100.0
    np.testing.assert_array_equal(again.quantiles[::-1], first.quantiles)


def test_load_chronos__only_the_weights_with_that_digest(tmp_path: Path) -> None:
    folder = write_chronos(tmp_path / "model", "bolt")
    recipe = with_pretrained_digest(recipe_of(pretrained_folder=str(folder)))
    assert recipe.teacher.pretrained_digest == weights_digest(folder)
    assert with_pretrained_digest(recipe) == recipe
    assert pretrained_teacher(recipe.teacher, horizon=3) is not None
    write_chronos(folder, "bolt", seed=1)
    assert with_pretrained_digest(recipe) == recipe, "a digest that is given stays"
    with pytest.raises(TutelageError, match=r"^teacher\.pretrained_digest is [0-9a-f]{64}, and the model in .* has "):
        pretrained_teacher(recipe.teacher, horizon=3)


def test_with_pretrained_digest__only_a_folder_has_one() -> None:
    assert with_pretrained_digest(small_recipe()) == small_recipe()
    installed = small_recipe(pretrained="fracast")
    assert with_pretrained_digest(installed) == installed


def test_weights_digest__needs_safetensors(tmp_path: Path) -> None:
    sentence = r"^teacher\.pretrained_folder: .*model has no config\.json and \*\.safetensors, the files of a Chronos"
    with pytest.raises(TutelageError, match=sentence):
        weights_digest(tmp_path / "model")
    folder = write_chronos(tmp_path / "model", "bolt")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")  # a pickle, whose loading runs code
    with pytest.raises(TutelageError, match=sentence):
        load_chronos(folder, horizon=3)


def test_load_chronos__another_kind_of_model(tmp_path: Path) -> None:
    samples = write_chronos(tmp_path / "samples", "samples")
    with pytest.raises(TutelageError, match="has a Chronos model of samples; Chronos-Bolt and Chronos-2 forecast"):
        load_chronos(samples, horizon=3)
    other = write_chronos(tmp_path / "other", "bolt")
    (other / "config.json").write_text('{"model_type": "t5"}', encoding="utf-8")
    with pytest.raises(TutelageError, match="holds no Chronos model: Not a Chronos config file"):
        load_chronos(other, horizon=3)


def test_load_chronos__a_horizon_that_is_too_long(tmp_path: Path) -> None:
    folder = write_chronos(tmp_path / "model", "bolt")
    assert load_chronos(folder, horizon=LONGEST)
    with pytest.raises(TutelageError, match=f"forecasts up to {LONGEST} steps, not {LONGEST + 1}"):
        load_chronos(folder, horizon=LONGEST + 1)


def test_load_chronos__the_package_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_chronos(tmp_path / "model", "bolt")
    monkeypatch.setitem(__import__("sys").modules, "chronos", None)
    with pytest.raises(TutelageError, match=r"pip install 'tutelage\[chronos\]'"):
        load_chronos(folder, horizon=3)


def test_fit_teachers__a_model_in_a_folder_is_one_of_them(dataset: WindowDataset, tmp_path: Path) -> None:
    recipe = small_recipe(pretrained_folder=str(write_chronos(tmp_path / "my-chronos", "2")))
    assert [spec.name for spec in list_teachers(recipe, 3)] == ["teacher", PRETRAINED_TEACHER]
    assert recipe.teacher.sentence.endswith("my-chronos, a pretrained model, as it comes")
    assert recipe.has_unprivileged
    assert recipe.unprivileged.teacher.pretrained_name is None
    fitted = fit_teachers(dataset, recipe, seed=0, pretrained=pretrained_teacher(recipe.teacher, horizon=3))
    assert fitted.epochs[PRETRAINED_TEACHER] == 1
