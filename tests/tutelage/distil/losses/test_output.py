import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.tutelage.builders import dataset_of, small_network, synthetic_panel
from tutelage.distil.losses import (
    categorical_distillation_loss,
    hard_label_loss,
    pinball_loss,
    point_distillation_loss,
    point_loss,
    quantile_distillation_loss,
    quantile_label_loss,
    soft_label_loss,
)

# Two bins: the student says 1/4 and 3/4, the teacher 1/2 and 1/2.
STUDENT = torch.tensor([[[[0.0, math.log(3)]]]])
TEACHER = torch.zeros(1, 1, 1, 2)
LABELS = torch.tensor([[1]])


def random_logits(members: int = 3, *, seed: int = 0, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(members, 5, 4, 7, generator=generator, dtype=torch.float64)


def random_labels() -> Tensor:
    return torch.randint(7, (5, 4), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, 0.1438410),  # ½ ln(½ / ¼) + ½ ln(½ / ¾)
        (2.0, 0.1490091),  # 4 · [½ ln((1+√3) / 2) + ½ ln((1+√3) / (2√3))]
    ],
)
def test_soft_label_loss__golden(temperature: float, expected: float) -> None:
    assert soft_label_loss(STUDENT, TEACHER, temperature=temperature).tolist() == pytest.approx([expected], rel=1e-6)


def test_hard_label_loss__golden() -> None:
    assert hard_label_loss(STUDENT, LABELS).tolist() == pytest.approx([0.2876821], rel=1e-6)  # -ln ¾


def test_categorical_distillation_loss__golden() -> None:
    loss = categorical_distillation_loss(STUDENT, TEACHER, LABELS, alpha=torch.tensor([0.9]), temperature=1.0)
    assert loss.tolist() == pytest.approx([0.9 * 0.1438410 + 0.1 * 0.2876821], rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_label_loss__is_torchs_kl_div_times_temperature_squared(temperature: float) -> None:
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    expected = [
        temperature**2
        * functional.kl_div(
            functional.log_softmax(given / temperature, dim=-1).flatten(0, 1),
            functional.log_softmax(wanted / temperature, dim=-1).flatten(0, 1),
            log_target=True,
            reduction="batchmean",
        )
        for given, wanted in zip(student, teacher, strict=True)
    ]
    torch.testing.assert_close(soft_label_loss(student, teacher, temperature=temperature), torch.stack(expected))


def test_hard_label_loss__is_torchs_cross_entropy() -> None:
    student, labels = random_logits(), random_labels()
    expected = [functional.cross_entropy(member.flatten(0, 1), labels.flatten()) for member in student]
    torch.testing.assert_close(hard_label_loss(student, labels), torch.stack(expected))


def test_categorical_distillation_loss__alpha_weighs_member_by_member() -> None:
    student, teacher, labels = random_logits(seed=1), random_logits(seed=2), random_labels()
    alpha = torch.tensor([0.0, 1.0, 0.25], dtype=torch.float64)
    soft, hard = soft_label_loss(student, teacher, temperature=2.0), hard_label_loss(student, labels)
    loss = categorical_distillation_loss(student, teacher, labels, alpha=alpha, temperature=2.0)
    assert loss[0] == hard[0]
    assert loss[1] == soft[1]
    torch.testing.assert_close(loss[2], 0.25 * soft[2] + 0.75 * hard[2])


def test_soft_label_loss__one_teacher_teaches_all_students() -> None:
    student, teacher = random_logits(seed=1), random_logits(1, seed=2)
    alone = [soft_label_loss(member.unsqueeze(0), teacher, temperature=2.0) for member in student]
    torch.testing.assert_close(soft_label_loss(student, teacher, temperature=2.0), torch.cat(alone))


def test_soft_label_loss__is_zero_where_the_student_is_the_teacher() -> None:
    logits = random_logits()
    shifted = logits + 11.0  # a constant over the bins changes no distribution
    torch.testing.assert_close(soft_label_loss(logits, shifted, temperature=3.0), torch.zeros(3, dtype=torch.float64))


def test_soft_label_loss__tends_to_matched_logits_at_high_temperature() -> None:
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    difference = student - teacher
    centred = difference - difference.mean(dim=-1, keepdim=True)
    quadratic = centred.square().sum(dim=-1).mean(dim=(1, 2)) / (2 * 7)
    torch.testing.assert_close(soft_label_loss(student, teacher, temperature=1e4), quadratic, rtol=2e-3, atol=0)
    assert not torch.allclose(soft_label_loss(student, teacher, temperature=1.0), quadratic, rtol=0.1)


def test_categorical_distillation_loss__no_gradient_reaches_the_teacher() -> None:
    student, teacher = random_logits(seed=1).requires_grad_(), random_logits(seed=2).requires_grad_()
    alpha = torch.full((3,), 0.5, dtype=torch.float64)
    categorical_distillation_loss(student, teacher, random_labels(), alpha=alpha, temperature=2.0).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().min() > 0


def test_categorical_distillation_loss__members_do_not_mix() -> None:
    dataset = dataset_of(synthetic_panel([60]), train_hours=40)
    network = small_network(dataset, members=2)
    logits = network(*dataset.student_inputs(dataset.train))
    alpha = torch.tensor([0.5, 0.5])
    teacher = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    labels = dataset.labels(dataset.train)
    categorical_distillation_loss(logits, teacher, labels, alpha=alpha, temperature=1.0)[0].backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None
        assert weight.grad[0].any(), name
        assert not weight.grad[1].any(), name


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_soft_label_loss__refuses_a_temperature_that_is_not_above_zero(temperature: float) -> None:
    with pytest.raises(ValueError, match="is not above 0"):
        soft_label_loss(STUDENT, TEACHER, temperature=temperature)


def test_soft_label_loss__a_temperature_a_member() -> None:
    student, teacher = random_logits(seed=1), random_logits(1, seed=2)
    temperatures = [0.5, 1.0, 3.0]
    together = soft_label_loss(student, teacher, temperature=torch.tensor(temperatures, dtype=torch.float64))
    apart = [soft_label_loss(s[None], teacher, temperature=t) for s, t in zip(student, temperatures, strict=True)]
    torch.testing.assert_close(together, torch.cat(apart))


def test_categorical_distillation_loss__weights_move_hours_against_each_other() -> None:
    student, teacher, labels = random_logits(seed=1), random_logits(seed=2), random_labels()
    alpha = torch.full((3,), 0.5, dtype=torch.float64)

    def loss(weights: list[float] | None, hours: slice = slice(None)) -> Tensor:
        given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        there = student[:, :, hours], teacher[:, :, hours], labels[:, hours]
        return categorical_distillation_loss(*there, alpha=alpha, temperature=2.0, weights=given)

    torch.testing.assert_close(loss([5.0] * 4), loss(None))
    torch.testing.assert_close(loss([0.0, 2.0, 0.0, 0.0]), loss(None, slice(1, 2)))
    torch.testing.assert_close(loss([3.0, 0.0, 0.0, 1.0]), 0.75 * loss(None, slice(1)) + 0.25 * loss(None, slice(3, 4)))


def test_categorical_distillation_loss__where_the_gate_is_shut_the_truth_teaches() -> None:
    student, teacher, labels = random_logits(seed=1), random_logits(seed=2), random_labels()
    alpha = torch.tensor([0.0, 1.0, 0.4], dtype=torch.float64)

    def loss(gate: Tensor | None, windows: slice = slice(None)) -> Tensor:
        there = student[:, windows], teacher[:, windows], labels[windows]
        return categorical_distillation_loss(*there, alpha=alpha, temperature=2.0, gate=gate)

    torch.testing.assert_close(loss(torch.ones(1, 1, 1)), loss(None))
    torch.testing.assert_close(loss(torch.zeros(1, 1, 1)), hard_label_loss(student, labels))
    by_window = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]).view(1, 5, 1)
    expected = (2 * loss(None, slice(2)) + 3 * hard_label_loss(student[:, 2:], labels[2:])) / 5
    torch.testing.assert_close(loss(by_window), expected)


@pytest.mark.parametrize("head", ["bins", "points", "quantiles"])
def test_distillation_losses__where_there_is_no_truth_the_teacher_alone_teaches(head: str) -> None:
    student, teacher = random_logits(), random_logits(1, seed=1)
    labelled = torch.ones(5, 4, dtype=torch.bool)
    labelled[2, 3] = labelled[0] = False
    alpha, levels = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), torch.linspace(0.1, 0.9, 7, dtype=torch.float64)

    def loss(truth: float, **labels: Tensor) -> Tensor:
        values = torch.where(labelled, 1.0, truth).double()
        if head == "bins":
            bins = values.long()
            return categorical_distillation_loss(student, teacher, bins, alpha=alpha, temperature=2.0, **labels)
        if head == "points":
            return point_distillation_loss(student[..., 0], teacher[..., 0], values, alpha=alpha, **labels)
        return quantile_distillation_loss(student, teacher, values, levels, alpha=alpha, **labels)

    assert torch.equal(loss(1.0, labelled=labelled), loss(5.0, labelled=labelled))
    # The hard loss of a student of the truth alone is that of the 15 cells that have one, over all 20.
    whole = loss(1.0)
    hard = loss(1.0, labelled=labelled)
    assert (hard[:2] < whole[:2]).all()
    assert hard[2] == whole[2]
    everywhere = torch.ones_like(labelled)
    assert torch.equal(loss(1.0, labelled=everywhere), whole)


def test_point_loss__golden() -> None:
    student, target = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[2.0, 5.0]]])
    assert point_loss(student, target).tolist() == [(1 + 9) / 2]
    assert point_loss(student, target, kind="smooth").tolist() == [(0.5 + 2.5) / 2]
    assert point_loss(student, target, weights=torch.tensor([3.0, 1.0])).tolist() == [(3 * 1 + 1 * 9) / 4]


def test_pinball_loss__golden() -> None:
    student, levels = torch.tensor([[[[1.0, 4.0]]]]), torch.tensor([0.1, 0.9])
    truth = torch.tensor([[3.0]])
    assert pinball_loss(student, truth, levels).tolist() == pytest.approx([(0.1 * 2 + 0.1 * 1) / 2])
    teacher = torch.tensor([[[[2.0, 7.0]]]])
    assert quantile_label_loss(student, teacher, levels).tolist() == pytest.approx([(0.1 * 1 + 0.9 * 3) / 2])


def test_pinball_loss__is_least_at_the_quantile() -> None:
    truth = torch.arange(100.0).view(100, 1)
    guesses = torch.arange(100.0).view(100, 1, 1, 1).expand(-1, 100, -1, -1)
    loss = pinball_loss(guesses, truth, torch.tensor([0.8]))
    assert loss.argmin().item() in (79, 80)


def test_point_distillation_loss__mixes_teacher_and_truth() -> None:
    student, teacher, truth = (
        random_logits()[..., 0],
        random_logits(1, seed=1)[..., 0],
        random_logits(1, seed=2)[0, ..., 0],
    )
    alpha = torch.tensor([0.0, 1.0, 0.25], dtype=torch.float64)
    soft, hard = point_loss(student, teacher), point_loss(student, truth.unsqueeze(0))
    loss = point_distillation_loss(student, teacher, truth, alpha=alpha)
    torch.testing.assert_close(loss, torch.stack([hard[0], soft[1], 0.25 * soft[2] + 0.75 * hard[2]]))
    shut = point_distillation_loss(student, teacher, truth, alpha=alpha, gate=torch.zeros(1, 1, 1))
    torch.testing.assert_close(shut, hard)


def test_quantile_distillation_loss__mixes_teacher_and_truth() -> None:
    student, teacher, truth = random_logits(), random_logits(1, seed=1), random_logits(1, seed=2)[0, ..., 0]
    levels = torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    alpha = torch.tensor([0.0, 1.0, 0.25], dtype=torch.float64)
    soft, hard = quantile_label_loss(student, teacher, levels), pinball_loss(student, truth, levels)
    loss = quantile_distillation_loss(student, teacher, truth, levels, alpha=alpha)
    torch.testing.assert_close(loss, torch.stack([hard[0], soft[1], 0.25 * soft[2] + 0.75 * hard[2]]))
