import math

import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import Float64OnCpu, dataset_of, small_recipe, synthetic_panel
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.gating import entropy, find_gates, gate_hours, gate_windows
from tutelage.distil.recipe import Gate, Recipe
from tutelage.distil.soft_labels import SoftLabels
from tutelage.model.kinds import Head


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_entropy__golden() -> None:
    log_probabilities = torch.tensor([[[0.5, 0.5], [1.0, 1e-12]]]).log()
    assert entropy(log_probabilities).tolist() == pytest.approx([math.log(2) / 2], rel=1e-5)


def test_gate_hours__golden() -> None:
    # The teacher is worse by 1 in the mean, by 0, 1 and 2: a standard error of √2 / 3.
    teacher, baseline = torch.tensor([[0.0], [1.0], [2.0]]), torch.zeros(3, 1)
    expected = math.erfc(3 / math.sqrt(2) / math.sqrt(2))
    assert gate_hours(teacher, baseline, lag=0).tolist() == pytest.approx([expected])


def test_gate_hours__only_evidence_shuts_it() -> None:
    baseline = noise(400, 4)
    teacher = baseline + noise(400, 4, seed=1) + torch.tensor([-0.5, 0.0, 0.02, 0.5])
    better, same, slightly, worse = gate_hours(teacher, baseline, lag=0).tolist()
    assert better == 1.0
    assert min(same, slightly) > 0.2
    assert worse < 1e-6


def test_gate_hours__overlapping_windows_are_less_evidence() -> None:
    days = noise(100, 1, seed=1)
    difference = (days - days.mean() + 0.15).repeat_interleave(24, dim=0)
    baseline = torch.zeros_like(difference)
    apart, overlapping = (gate_hours(difference, baseline, lag=lag).item() for lag in (0, 48))
    assert apart < 1e-3
    assert overlapping > 0.05


def test_gate_hours__series_of_the_same_days_are_no_more_evidence() -> None:
    one = noise(300, 1) + 0.1
    several, issued = one.repeat(20, 1), torch.arange(300).repeat(20)
    alone = gate_hours(one, torch.zeros_like(one), lag=3)
    together = gate_hours(several, torch.zeros_like(several), lag=3, issued=issued)
    assert together.tolist() == pytest.approx(alone.tolist(), rel=1e-5)
    assert gate_hours(several, torch.zeros_like(several), lag=3) < together / 10


@pytest.mark.parametrize(("worse_by", "expected"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0)])
def test_gate_hours__without_any_spread(worse_by: float, expected: float) -> None:
    assert gate_hours(torch.full((9, 1), worse_by), torch.zeros(9, 1), lag=3).tolist() == [expected]


def test_gate_hours__makes_float64_on_the_cpu_alone() -> None:
    teacher, baseline = noise(9, 3), noise(9, 3, seed=1)
    with Float64OnCpu() as watch:
        gate_hours(teacher, baseline, lag=3)
    assert watch.made == 3  # once an hour


def test_gate_windows__trusts_the_teacher_where_it_is_sure_with_reason() -> None:
    unsure = torch.linspace(0, 1, 400)[torch.randperm(400, generator=torch.Generator().manual_seed(2))]
    baseline = noise(400, 3)
    teacher = baseline + 0.2 * noise(400, 3, seed=1) + torch.where(unsure > 0.75, 1.0, -1.0)[:, None]
    wanted = torch.tensor([-5.0, 0.1, 0.7, 0.8, 9.0])
    assert gate_windows(teacher, baseline, unsure, wanted, lag=0).tolist() == pytest.approx([1, 1, 1, 0, 0], abs=1e-6)
    everywhere = gate_windows(teacher, baseline, unsure, wanted, lag=0, groups=1)
    assert everywhere.tolist() == [1.0] * 5  # better in the mean


@pytest.mark.parametrize("groups", [0, 5])
def test_gate_windows__refuses_groups_that_cannot_be_cut(groups: int) -> None:
    with pytest.raises(ValueError, match=f"4 windows can't be cut into {groups} groups"):
        gate_windows(noise(4, 2), noise(4, 2), noise(4), noise(3), lag=0, groups=groups)


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([400]), train_hours=250)


def labels_of(dataset: WindowDataset, origins: Tensor, *, right: Tensor) -> SoftLabels:
    """Soft labels that give what comes true 0.8 where they are right, else next to nothing."""
    bins = len(dataset.bins)
    truth = torch.nn.functional.one_hot(dataset.labels(origins), bins).bool()
    share = torch.where(right, 0.8, 0.01).expand(truth.shape[:-1]).unsqueeze(-1)
    return SoftLabels(origins, torch.where(truth, share, (1 - share) / (bins - 1)).log())


def both_parts(dataset: WindowDataset, right: Tensor) -> tuple[SoftLabels, SoftLabels]:
    """Such soft labels of the training and of the validation part."""
    return labels_of(dataset, dataset.train, right=right), labels_of(dataset, dataset.validation, right=right)


def gate_of(dataset: WindowDataset, recipe: Recipe, taught: SoftLabels, held_out: SoftLabels, *, seed: int) -> Tensor:
    gates = find_gates(dataset, recipe, [taught], [held_out], seed=seed)
    assert gates is not None
    return gates[0]


@pytest.mark.parametrize("head", ["categorical", "quantiles", "point"])
def test_find_gates__by_hour_trusts_what_was_right(dataset: WindowDataset, head: Head) -> None:
    recipe = small_recipe(gate="hours", head=head)
    gate = gate_of(dataset, recipe, *both_parts(dataset, torch.tensor([True, False])), seed=0)
    assert gate.tolist() == [pytest.approx([1.0, 0.0], abs=1e-6)]


def test_find_gates__by_window_trusts_the_teacher_where_it_is_as_sure_as_when_it_was_right(
    dataset: WindowDataset,
) -> None:
    recipe = small_recipe(gate="windows")
    flat = torch.full((len(dataset.validation), dataset.horizon, len(dataset.bins)), 0.3 / 7)
    flat[..., 0] = 0.7  # nearly as sure, and wrong in seven of eight cases
    half = len(dataset.validation) // 2
    taught, held_out = both_parts(dataset, torch.tensor(True))
    held_out.log_probabilities[half:] = flat.log()[half:]
    taught.log_probabilities[7:] = flat.log()[0]
    gate = gate_of(dataset, recipe, taught, held_out, seed=0)
    assert gate.shape == (len(dataset.train), 1)
    assert gate[:7].min() == 1
    assert gate[7:].max() < 1e-6
    turned = SoftLabels(taught.origins.flip(0), taught.log_probabilities.flip(0))
    assert torch.equal(gate_of(dataset, recipe, turned, held_out, seed=0), gate.flip(0))


@pytest.mark.parametrize("kind", ["hours", "windows"])
def test_find_gates__shuts_on_a_teacher_that_is_wrong_everywhere(dataset: WindowDataset, kind: Gate) -> None:
    gate = gate_of(dataset, small_recipe(gate=kind), *both_parts(dataset, torch.tensor(False)), seed=1)
    assert gate.max() < 1e-6


def test_find_gates__none_is_asked_for(dataset: WindowDataset) -> None:
    taught, held_out = both_parts(dataset, torch.tensor(False))
    for recipe in (small_recipe(gate="none"), small_recipe(alpha=0.0)):  # or no soft label teaches anyhow
        assert find_gates(dataset, recipe, [taught], [held_out], seed=0) is None


def test_find_gates__each_teacher_has_its_gate(dataset: WindowDataset) -> None:
    teachers = [both_parts(dataset, torch.tensor(right)) for right in ([True, False], [False, True])]
    taught, held_out = zip(*teachers, strict=True)
    gates = find_gates(dataset, small_recipe(gate="hours"), taught, held_out, seed=3)
    assert gates is not None
    assert gates.squeeze(1).tolist() == [pytest.approx([1, 0], abs=1e-6), pytest.approx([0, 1], abs=1e-6)]
