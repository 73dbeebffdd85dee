from dataclasses import replace

import pytest
import torch

from tests.tutelage.builders import dataset_of, hours_span, random_labels, small_recipe, synthetic_panel
from tutelage.data.windows import window_origins
from tutelage.distil import blocks
from tutelage.distil.blocks import BLOCKS, BlockLabels, FittedTeachers, fit_students, fit_teachers, states_of_blocks
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.pipeline import PartLabels, distil_students
from tutelage.distil.privilege import UNPRIVILEGED
from tutelage.distil.recipe import Recipe, Views
from tutelage.distil.soft_labels import label_losses
from tutelage.forecasts import Contender
from tutelage.model.kinds import Budget
from tutelage.model.networks import Forecaster

STUDENT, TWIN = Contender.STUDENT, Contender.TWIN


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([700]), train_hours=400, validation_hours=100, lookback=30)


def ungated(**leaves: object) -> Recipe:
    """A small recipe without a gate: soft labels drawn at random would shut it."""
    return small_recipe(**({"gate": "none"} | leaves))


def random_blocks(dataset: WindowDataset) -> BlockLabels:
    """Random soft labels of every block and of the whole history."""

    def parts(part: WindowDataset, seed: int) -> PartLabels:
        return PartLabels(*(random_labels(part, of, seed=seed) for of in (part.taught(), part.validation, part.test)))

    return BlockLabels(
        tuple(parts(block, number) for number, block in enumerate(dataset.blocks(BLOCKS), start=1)),
        parts(dataset.whole(), 0),
    )


@pytest.fixture(scope="module")
def teachers(dataset: WindowDataset) -> FittedTeachers:
    return fit_teachers(dataset, ungated(views=Views(future_sigma=0.0)), seed=3)


def test_fit_teachers__label_all_windows_block_by_block(dataset: WindowDataset, teachers: FittedTeachers) -> None:
    assert len(teachers.blocks) == len(teachers.labels.blocks) == BLOCKS
    for block, labels in zip(dataset.blocks(BLOCKS), teachers.labels.blocks, strict=True):
        assert torch.equal(labels.taught.origins, block.taught())
        assert torch.equal(labels.validation.origins, block.validation)
    whole = teachers.labels.whole
    assert torch.equal(whole.taught.origins, dataset.whole().taught())
    torch.testing.assert_close(whole.taught.log_probabilities.exp().sum(-1), torch.ones(len(whole.taught.origins), 2))
    mean = torch.stack([labels.test.log_probabilities.exp() for labels in teachers.labels.blocks]).mean(dim=0)
    torch.testing.assert_close(whole.test.log_probabilities.exp(), mean)


def test_fit_teachers__see_the_future_and_learn() -> None:
    """On noise only the future helps: the labels of blocks that were held out are better than chance."""
    dataset = dataset_of(synthetic_panel([500]), train_hours=400, validation_hours=80)
    budget = Budget(epochs=60, patience=60, batch_size=32, learning_rate=0.01, dropout=0.0)
    views = Views(future_sigma=0.0, minutes_hours=0, auxiliary=False)
    labels = fit_teachers(dataset, ungated(views=views, teacher_training=budget), seed=3).labels
    held_out = zip(dataset.blocks(BLOCKS), labels.blocks, strict=True)
    losses = torch.stack([label_losses(part.validation, block).mean() for block, part in held_out])
    assert losses.mean() < 0.9 * torch.tensor(float(len(dataset.bins))).log()


def test_fit_teachers__spread_the_networks_over_the_blocks(dataset: WindowDataset) -> None:
    plain = ungated(views=UNPRIVILEGED, ensemble_size=6)
    fitted = fit_teachers(dataset, plain, seed=0)
    members = [network.members for block in fitted.blocks for network in block.teachers.values()]  # type: ignore[union-attr]
    assert members == [2] * BLOCKS
    assert set(fitted.epochs) == {"teacher"}
    assert 1 <= fitted.epochs["teacher"] <= plain.teacher.training.epochs


def test_states_of_blocks__are_of_all_windows(dataset: WindowDataset, teachers: FittedTeachers) -> None:
    states = states_of_blocks(dataset, [block.teachers for block in teachers.blocks], seed=3)
    assert len(states) == BLOCKS
    assert {each.hidden.shape[1] for each in states} == {len(dataset.whole().taught())}


def test_fit_students__learn_from_the_whole_history_for_the_epochs_of_its_blocks(dataset: WindowDataset) -> None:
    names: list[str] = []
    labels = {STUDENT: random_blocks(dataset)}
    fitted = fit_students(dataset, labels, ungated(), seed=4, replicates=2, checkpoints=names.append)  # type: ignore[arg-type]
    *of_blocks, last = names  # the blocks train side by side, in any order
    assert sorted(of_blocks) == [f"students-block-{number}" for number in range(1, BLOCKS + 1)]
    assert last == "students"
    assert len(fitted.blocks) == BLOCKS
    for name in (STUDENT, TWIN):
        chosen = [block.progress.best_epoch[block.members[name].start] for block in fitted.blocks]
        assert fitted.epochs[name] == sorted(chosen)[BLOCKS // 2]
        assert 0 <= sum(fitted.bases[name].weights.values()) <= 1 + 1e-9
        # The target is noise of standard deviation 2, whose CRPS is at best 2 / √π.
        assert fitted.held_out_crps[name] == pytest.approx(2 / torch.pi**0.5, rel=0.1)
    of_whole = {name: each.whole for name, each in labels.items()}
    alone = distil_students(dataset.whole(), of_whole, ungated(), seed=4, replicates=2, epochs=fitted.epochs)
    for name, network in alone.networks.items():
        for a, b in zip(network.parameters(), fitted.trained.networks[name].parameters(), strict=True):
            assert torch.equal(a, b)


def test_fit_students__each_block_has_the_labels_of_its_teachers(
    dataset: WindowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[WindowDataset, PartLabels]] = []

    def watch(dataset: WindowDataset, labels: dict[Contender, PartLabels], *given: object, **named: object) -> object:
        seen.append((dataset, labels[STUDENT]))
        return distil_students(dataset, labels, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(blocks, "distil_students", watch)
    labels = random_blocks(dataset)
    fit_students(dataset, {STUDENT: labels}, ungated(), seed=0)
    *of_blocks, (whole, of_whole) = seen  # the blocks are trained side by side, in any order
    of_blocks.sort(key=lambda each: int(each[0].validation[0]))
    assert [part for _, part in of_blocks] == [*labels.blocks]
    for block, _ in of_blocks:
        assert not set(block.validation.tolist()) & set(block.train.tolist())
    assert torch.equal(whole.train, dataset.whole().train)
    assert of_whole is labels.whole


def test_fit_students__of_trained_teachers_with_hidden_states(dataset: WindowDataset) -> None:
    recipe = ungated(terms={"features": 0.5})
    fitted = fit_teachers(dataset, recipe, seed=0)
    states = states_of_blocks(dataset, [block.teachers for block in fitted.blocks], seed=0)
    students = fit_students(dataset, {STUDENT: fitted.labels}, recipe, seed=0, states=states)
    assert isinstance(students.trained.networks[STUDENT], Forecaster)
    assert students.held_out_crps.keys() == {STUDENT, TWIN}


@pytest.mark.parametrize(("gate", "by_window"), [("windows", True), ("hours", False)])
def test_fit_students__gates_follow_their_windows(dataset: WindowDataset, gate: str, by_window: bool) -> None:
    fitted = fit_students(dataset, {STUDENT: random_blocks(dataset)}, small_recipe(gate=gate), seed=0)
    gates = fitted.trained.gates
    assert gates is not None
    assert gates.shape[1] == (len(dataset.whole().taught()) if by_window else 1)


def test_fit_students__windows_without_a_target_are_taught_too() -> None:
    panel = synthetic_panel([700])
    panel.observed[60:64, 0] = torch.nan
    rows = window_origins(panel, hours_span(0, 400), lookback=4, horizon=2, labelled=False)
    dataset = replace(dataset_of(panel, train_hours=400, validation_hours=100), unlabelled=rows)
    assert len(rows)
    recipe = ungated(views=UNPRIVILEGED, unlabelled=True)
    fitted = fit_teachers(dataset, recipe, seed=0)
    assert torch.isin(rows, fitted.labels.whole.taught.origins).all()
    students = fit_students(dataset, {STUDENT: fitted.labels}, recipe, seed=0)
    assert students.epochs[STUDENT] >= 1


def test_fit_students__without_a_base(dataset: WindowDataset) -> None:
    labels = {STUDENT: random_blocks(dataset)}
    assert fit_students(dataset, labels, ungated(base="none"), seed=0).bases == {}
    assert fit_students(dataset, labels, ungated(head="point"), seed=0).bases == {}
