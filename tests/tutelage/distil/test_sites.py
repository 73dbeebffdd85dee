from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tutelage.builders import dataset_of, random_labels, small_recipe, synthetic_panel, target_alone
from tutelage.data.windows import Panel
from tutelage.distil.base import fit_base, fit_linear_on, forecast_with_base
from tutelage.distil.blocks import BLOCKS, fit_students, fit_teachers
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.pipeline import PartLabels, distil_students
from tutelage.distil.privilege import UNPRIVILEGED
from tutelage.distil.recipe import Recipe
from tutelage.distil.sites import LEAST_HOURS, add_sites
from tutelage.errors import DataError, SpecError
from tutelage.forecasts import Contender, crps
from tutelage.judge.verdict import actual_values, score_contenders
from tutelage.model.trees import TREES, TREES_OF_SITES

STUDENT, TWIN, UNTAUGHT = Contender.STUDENT, Contender.TWIN, Contender.UNTAUGHT
UNTIL = 500
"""The end of the history, in hours since the start."""


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(target_alone(synthetic_panel([700])), train_hours=400, validation_hours=100, lookback=30)


def other_panel(*, seed: int = 5) -> Panel:
    """Three series on other scales; the second has too few hours."""
    panel = target_alone(synthetic_panel([700, LEAST_HOURS - 1, 600], seed=seed))
    scale = torch.tensor([10.0, 1.0, 0.1])[panel.series][:, None]
    return replace(panel, observed=100 + scale * panel.observed)


@pytest.fixture(scope="module")
def joined(dataset: WindowDataset) -> WindowDataset:
    return add_sites(dataset, other_panel(), until_step=int(dataset.panel.step[UNTIL]), most=200)


def test_blocks__no_window_of_other_sites_is_of_the_days_that_are_held_out(joined: WindowDataset) -> None:
    step, horizon, lost = joined.panel.step, joined.horizon, 0
    for block in joined.blocks(BLOCKS):
        first, last = step[block.validation].min(), step[block.validation].max()
        issued = step[block.transfer]
        assert ((issued <= first - horizon) | (issued >= last + horizon)).all()
        lost += len(joined.transfer) - len(block.transfer)
    assert lost > 0
    assert torch.equal(joined.whole().transfer, joined.transfer)


def test_add_sites__leaves_this_sites_windows_as_they_are(dataset: WindowDataset, joined: WindowDataset) -> None:
    for part in ("train", "validation", "test"):
        origins = getattr(dataset, part)
        assert torch.equal(getattr(joined, part), origins)
        assert torch.equal(joined.truth(origins), dataset.truth(origins))
    assert torch.equal(joined.taught()[: len(dataset.train)], dataset.train)
    assert torch.equal(joined.alone().taught(), dataset.taught())


def test_add_sites__other_series_are_on_this_sites_scale_and_end_with_the_history(
    dataset: WindowDataset, joined: WindowDataset
) -> None:
    panel, here = joined.panel, len(dataset.panel.step)
    assert panel.series[here:].unique().tolist() == [1, 3]
    mean, std = (values[0] for values in (dataset.scalers.observed.mean, dataset.scalers.observed.std))
    for number in (1, 3):
        values = panel.observed[panel.series == number, 0]
        assert values.mean().item() == pytest.approx(mean, abs=1e-3)
        assert values.std(correction=0).item() == pytest.approx(std, rel=1e-3)
    assert int(panel.step[here:].max()) < int(dataset.panel.step[UNTIL])
    assert 100 < len(joined.transfer) <= 200
    assert int(joined.transfer.min()) >= here
    assert len((panel.step[joined.transfer] % 24).unique()) == 24
    assert joined.truth(joined.transfer).isfinite().all()


def test_add_sites__no_value_after_the_history_changes_anything(dataset: WindowDataset, joined: WindowDataset) -> None:
    others = other_panel()
    others.observed[others.step >= dataset.panel.step[UNTIL]] = 1e6
    again = add_sites(dataset, others, until_step=int(dataset.panel.step[UNTIL]), most=200)
    assert torch.equal(again.panel.observed, joined.panel.observed)
    assert torch.equal(again.transfer, joined.transfer)


def test_add_sites__refuses_other_columns_and_series_without_data(dataset: WindowDataset) -> None:
    until = int(dataset.panel.step[UNTIL])
    with pytest.raises(SpecError, match="they have 2 observed columns, and this site has 1"):
        add_sites(dataset, synthetic_panel([600]), until_step=until)
    with pytest.raises(DataError, match="no series has 336 hours"):
        add_sites(dataset, target_alone(synthetic_panel([200])), until_step=until)
    flat = target_alone(synthetic_panel([600]))
    flat.observed[:] = 3.0
    with pytest.raises(DataError, match="of changing values"):
        add_sites(dataset, flat, until_step=until)


def of_sites(**leaves: object) -> Recipe:
    values = {"views": UNPRIVILEGED, "other_sites": "homes", "transfer": True, "gate": "none", "ensemble_size": 1}
    return small_recipe(**(values | leaves))


def test_fit__students_and_the_untaught_learn_from_other_sites_and_the_twins_do_not(joined: WindowDataset) -> None:
    recipe = of_sites()
    teachers = fit_teachers(joined, recipe, seed=0)
    assert torch.isin(joined.transfer, teachers.labels.whole.taught.origins).all()
    fitted = fit_students(joined, {STUDENT: teachers.labels}, recipe, seed=0, replicates=2)
    assert set(fitted.epochs) == {STUDENT, UNTAUGHT, TWIN} == set(fitted.trained.networks)
    alone = fit_students(joined.alone(), {STUDENT: teachers.labels}, recipe, seed=0, replicates=2)
    twins = [next(each.trained.networks[TWIN].parameters()) for each in (fitted, alone)]
    assert fitted.epochs[TWIN] == alone.epochs[TWIN]
    torch.testing.assert_close(*twins)
    weights = {name: next(network.parameters()) for name, network in fitted.trained.networks.items()}
    assert not torch.allclose(weights[UNTAUGHT], weights[TWIN])
    assert not torch.allclose(weights[UNTAUGHT], weights[STUDENT])


def test_fit__without_a_transfer_set_only_the_teachers_know_other_sites(joined: WindowDataset) -> None:
    recipe = of_sites(transfer=False)
    teachers = fit_teachers(joined, recipe, seed=0)
    assert not torch.isin(joined.transfer, teachers.labels.whole.taught.origins).any()
    fitted = fit_students(joined, {STUDENT: teachers.labels}, recipe, seed=0)
    assert set(fitted.epochs) == {STUDENT, TWIN}
    without = fit_teachers(joined.alone(), recipe, seed=0)
    assert not torch.allclose(teachers.labels.whole.test.log_probabilities, without.labels.whole.test.log_probabilities)


def test_fit_teachers__those_of_unprivileged_students_know_this_site_alone(joined: WindowDataset) -> None:
    recipe = of_sites(transfer=False).unprivileged
    assert recipe.teacher.other_sites is None
    labels = [fit_teachers(each, recipe, seed=0).labels.whole.test for each in (joined, joined.alone())]
    assert torch.equal(labels[0].log_probabilities, labels[1].log_probabilities)


def test_distil_students__twins_resume_from_a_checkpoint_of_their_own(joined: WindowDataset) -> None:
    names: list[str] = []
    parts = PartLabels(*(random_labels(joined, part) for part in (joined.taught(), joined.validation, joined.test)))
    students = distil_students(joined, {STUDENT: parts}, of_sites(), seed=0, checkpoints=names.append)  # type: ignore[arg-type]
    assert names == ["students", "twins"]
    assert len(students.progress.best_epoch) == 3
    assert len({place for at in students.members.values() for place in range(3)[at]}) == 3


def test_long_past__another_sites_window_sees_what_is_before_this_history(joined: WindowDataset) -> None:
    """A forecast of another site's hour may know all of that site's past; the new site has none before its history."""
    late = replace(joined, first_step=int(joined.panel.step[100]))
    others, here = joined.transfer[:1], joined.train[joined.train >= 140][:1]
    assert int(joined.panel.step[others[0]]) < late.first_step, "a window of before this history"
    seen = late.long_past(here, 60, complete=0)[0, :, 0]
    assert seen.isnan().sum() == 60 - int(joined.panel.step[here[0]] - late.first_step) > 0
    both = late.long_past(torch.cat([here, others]), 60, complete=0)[..., 0]
    assert torch.equal(both[0].isnan(), seen.isnan())
    assert both[1, -30:].isfinite().all()


def test_fit_base__ridge_and_trees_learn_from_other_sites_and_nothing_else_does(joined: WindowDataset) -> None:
    with_sites, alone = fit_base(joined), fit_base(joined.alone())
    everything = torch.cat([joined.train, joined.transfer])
    expected = fit_linear_on(joined, everything)
    assert with_sites.linear is not None
    assert alone.linear is not None
    np.testing.assert_array_equal(with_sites.linear.past, expected.past)
    assert not np.allclose(with_sites.linear.past, alone.linear.past)
    assert with_sites.trees is not None
    assert alone.trees is not None
    assert (with_sites.trees.value.shape[1], alone.trees.value.shape[1]) == (TREES_OF_SITES, TREES)
    np.testing.assert_array_equal(with_sites.changes.quantiles, alone.changes.quantiles)


def test_fit_students__twins_are_averaged_with_what_knows_this_site_alone(joined: WindowDataset) -> None:
    recipe = of_sites(base="simple")
    labels = {STUDENT: fit_teachers(joined, recipe, seed=0).labels}
    fitted = fit_students(joined, labels, recipe, seed=0)
    alone = fit_students(joined.alone(), labels, recipe, seed=0)
    assert fitted.bases[TWIN].weights == pytest.approx(alone.bases[TWIN].weights)
    assert fitted.held_out_crps[TWIN] == pytest.approx(alone.held_out_crps[TWIN])
    trained = fit_base(joined.whole())
    for name, base in fitted.bases.items():
        if base.linear is not None:
            assert np.array_equal(base.linear.past, trained.linear.past) is (name is not TWIN)
    scored = score_contenders(joined, fitted.trained.networks, labels[STUDENT].whole.test, bases=fitted.bases)
    actual = actual_values(joined, joined.test)
    for name, network in fitted.trained.networks.items():
        [forecast] = forecast_with_base(network, joined, joined.test, fitted.bases[name])
        np.testing.assert_allclose(scored[name].losses[0], crps(forecast, actual).mean(axis=1), err_msg=name)
