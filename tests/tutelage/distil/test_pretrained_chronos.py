import datetime as dt
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from chronos import BaseChronosPipeline, ChronosBoltPipeline
from safetensors.torch import load_file, save_file

from tests.tutelage.builders import dataset_of, recipe_of, small_recipe, synthetic_panel, target_alone
from tests.tutelage.chronos import LEVELS, LONGEST, Family, write_chronos
from tutelage.data.grid import Grid
from tutelage.distil import pretrained
from tutelage.distil.blocks import fit_teachers
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.pretrained import load_chronos, pretrained_teacher, weights_digest, with_pretrained_digest
from tutelage.distil.teachers import PRETRAINED_TEACHER, list_teachers
from tutelage.errors import SpecError, TutelageError
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


def test_load_chronos__its_past_is_28_days_and_its_levels_are_the_models(tmp_path: Path) -> None:
    """As with the real Chronos-2, which sees far more, and has 21 levels."""
    levels = [0.01, *np.linspace(0.05, 0.95, 19).round(2).tolist(), 0.99]
    folder = write_chronos(tmp_path / "model", "2", levels=levels, context=2048)
    long = dataset_of(target_alone(synthetic_panel([900])), train_hours=750, validation_hours=70, horizon=3)
    origins = long.test[-2:]
    forecast = load_chronos(folder, horizon=3)(long, origins)
    pasts = [long.panel.observed[origin - 672 : origin, 0] for origin in origins.tolist()]
    quantiles, _ = BaseChronosPipeline.from_pretrained(folder).predict_quantiles(pasts, 3, quantile_levels=levels)
    native = torch.stack([each.reshape(3, 21) for each in quantiles]).sort(dim=-1).values
    np.testing.assert_allclose(forecast.quantiles, interpolated(native.numpy(), levels).quantiles, rtol=1e-3, atol=1e-4)


def test_load_chronos__of_other_steps_than_hours(tmp_path: Path) -> None:
    """Quarters of an hour: 28 days of them are more than the model takes, which leaves out the oldest."""
    hours = synthetic_panel([300])
    quarters = replace(target_alone(hours), grid=Grid(dt.timedelta(minutes=15)))
    dataset = dataset_of(target_alone(hours), train_hours=150, validation_hours=70, horizon=3)
    of_quarters = replace(dataset, panel=quarters)
    model = load_chronos(write_chronos(tmp_path / "model", "2"), horizon=3)
    assert np.isfinite(model(of_quarters, dataset.test[:2]).quantiles).all()


def _into_shards(folder: Path) -> None:
    loaded = BaseChronosPipeline.from_pretrained(folder).model
    (folder / "model.safetensors").unlink()
    loaded.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1


def _in_half_precision(folder: Path) -> None:
    BaseChronosPipeline.from_pretrained(folder, dtype="bfloat16").model.save_pretrained(folder)


@pytest.mark.parametrize("family", ["bolt", "2"])
@pytest.mark.parametrize("written", [_into_shards, _in_half_precision])
def test_load_chronos__however_its_weights_are_written(
    written: Callable[[Path], None], family: Family, dataset: WindowDataset, tmp_path: Path
) -> None:
    folder = write_chronos(tmp_path / "model", family)
    before = load_chronos(folder, horizon=3)(dataset, dataset.test[:5])
    written(folder)
    after = load_chronos(folder, horizon=3)(dataset, dataset.test[:5])
    np.testing.assert_allclose(after.quantiles, before.quantiles, rtol=0.05, atol=0.5)


def test_load_chronos__takes_its_windows_part_by_part(
    dataset: WindowDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_chronos(tmp_path / "model", "2")
    whole = load_chronos(folder, horizon=3)(dataset, dataset.test[:16])
    monkeypatch.setattr(pretrained, "CHRONOS_WINDOWS", 7)
    parts = load_chronos(folder, horizon=3)(dataset, dataset.test[:16])
    np.testing.assert_allclose(parts.quantiles, whole.quantiles, rtol=1e-5, atol=1e-5)


def test_load_chronos__computes_each_window_once_whatever_the_order(dataset: WindowDataset, tmp_path: Path) -> None:
    model = load_chronos(write_chronos(tmp_path / "model", "2"), horizon=3)
    first = model(dataset, dataset.test[:4])
    changed = replace(dataset, panel=replace(dataset.panel, observed=dataset.panel.observed + 100.0))
    again = model(changed, dataset.test[:4].flip(0))
    np.testing.assert_array_equal(again.quantiles[::-1], first.quantiles)


def test_load_chronos__blocks_that_train_side_by_side_compute_each_window_once(
    dataset: WindowDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, predict = [], ChronosBoltPipeline.predict

    def counted(pipeline: ChronosBoltPipeline, past: torch.Tensor, **given: int) -> torch.Tensor:
        computed.append(len(past))
        return predict(pipeline, past, **given)

    monkeypatch.setattr(ChronosBoltPipeline, "predict", counted)
    model = load_chronos(write_chronos(tmp_path / "model", "bolt"), horizon=3)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: model(dataset, dataset.train[:50]), range(4)))
    assert sum(computed) == 50


def test_load_chronos__only_the_weights_with_that_digest(tmp_path: Path) -> None:
    folder = write_chronos(tmp_path / "model", "bolt")
    recipe = with_pretrained_digest(recipe_of(pretrained_folder=str(folder)))
    assert recipe.teacher.pretrained_digest == weights_digest(folder)
    assert recipe.teacher.sentence.endswith(f"model ({weights_digest(folder)[:12]}), a pretrained model, as it comes")
    assert pretrained_teacher(recipe.teacher, horizon=3) is not None
    write_chronos(folder, "bolt", seed=1)
    assert with_pretrained_digest(recipe) == recipe, "a digest that is given stays"
    sentence = r"^recipe\.teacher\.pretrained_digest is [0-9a-f]{64}, and the files in .*model have [0-9a-f]{64}: they"
    with pytest.raises(SpecError, match=sentence):
        pretrained_teacher(recipe.teacher, horizon=3)


def test_with_pretrained_digest__only_a_folder_has_one() -> None:
    for recipe in (small_recipe(), small_recipe(pretrained="fracast")):
        assert with_pretrained_digest(recipe) == recipe


def test_weights_digest__needs_safetensors(tmp_path: Path) -> None:
    sentence = r"^recipe\.teacher\.pretrained_folder: .*model has no config\.json and model\.safetensors, the"
    with pytest.raises(SpecError, match=sentence):
        weights_digest(tmp_path / "model")
    folder = write_chronos(tmp_path / "model", "bolt")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")  # a pickle, whose loading runs code
    with pytest.raises(SpecError, match=sentence):
        load_chronos(folder, horizon=3)


def _without_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "t5"}', encoding="utf-8")


def _cut_off(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20_000])


def _incomplete(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    first = min(weights)
    save_file({name: value for name, value in weights.items() if name != first}, folder / "model.safetensors")


def _own_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoConfig": "own.OwnConfig"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own"}), encoding="utf-8")
    (folder / "own.py").write_text("raise SystemExit('this code ran')\n", encoding="utf-8")


def _incomplete_next_to_another(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    _incomplete(folder)
    (folder / "older.safetensors").write_bytes(whole)


def _without_a_shard(folder: Path) -> None:
    _into_shards(folder)
    max(folder.glob("model-*.safetensors")).unlink()


def _adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")


@pytest.mark.bad_input
@pytest.mark.parametrize("family", ["bolt", "2"])
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_without_config, "holds no Chronos model that can be loaded: Not a Chronos config file"),
        (_cut_off, "holds no Chronos model that can be loaded: "),
        (_incomplete, r"lacks 1 of the model's \d+ weights, such as "),
        (_incomplete_next_to_another, r"lacks 1 of the model's \d+ weights, such as "),
        (_without_a_shard, r"can't be read: .*No such file"),
        (_own_code, "holds no Chronos model that can be loaded: "),
        (_adapter, r"holds an adapter \(adapter_config\.json\); merge it into its model"),
    ],
)
def test_load_chronos__what_is_not_the_whole_model(
    spoil: Callable[[Path], None], sentence: str, family: Family, tmp_path: Path
) -> None:
    folder = write_chronos(tmp_path / "model", family)
    spoil(folder)
    with pytest.raises(SpecError, match=rf"^recipe\.teacher\.pretrained_folder: .*model {sentence}"):
        load_chronos(folder, horizon=3)


@pytest.mark.bad_input
def test_load_chronos__a_model_of_samples(tmp_path: Path) -> None:
    folder = write_chronos(tmp_path / "model", "samples")
    with pytest.raises(SpecError, match="of the first generation, which draws samples; Chronos-Bolt and Chronos-2"):
        load_chronos(folder, horizon=3)


@pytest.mark.bad_input
def test_load_chronos__a_horizon_that_is_too_long(tmp_path: Path) -> None:
    folder = write_chronos(tmp_path / "model", "bolt")
    assert load_chronos(folder, horizon=LONGEST)
    with pytest.raises(SpecError, match=f"forecasts up to {LONGEST} steps, not {LONGEST + 1}"):
        load_chronos(folder, horizon=LONGEST + 1)


def test_load_chronos__the_package_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_chronos(tmp_path / "model", "bolt")
    monkeypatch.setitem(sys.modules, "chronos", None)
    with pytest.raises(TutelageError, match=r"pip install 'tutelage\[chronos\]'"):
        load_chronos(folder, horizon=3)


def test_fit_teachers__a_model_in_a_folder_is_one_of_them(dataset: WindowDataset, tmp_path: Path) -> None:
    recipe = small_recipe(pretrained_folder=str(write_chronos(tmp_path / "my-chronos", "2")))
    assert [spec.name for spec in list_teachers(recipe, 3)] == ["teacher", PRETRAINED_TEACHER]
    assert recipe.teacher.sentence.endswith("my-chronos, a pretrained model, as it comes")
    assert recipe.has_unprivileged
    fitted = fit_teachers(dataset, recipe, seed=0, pretrained=pretrained_teacher(recipe.teacher, horizon=3))
    assert fitted.epochs[PRETRAINED_TEACHER] == 1
