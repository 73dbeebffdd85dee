import pytest
import torch

from tutelage.distil.losses import (
    time_relation_loss,
    variable_relation_loss,
    window_distance_loss,
    window_relation_loss,
)

APART = torch.eye(2)
ALIKE = torch.ones(2, 1)


def test_time_relation_loss__golden() -> None:
    # Similarities: 1 on the diagonal alone, and 1 everywhere. Two of four differ, by 1.
    assert time_relation_loss(APART[None, None], ALIKE[None, None]).tolist() == pytest.approx([0.5])


def test_variable_relation_loss__golden() -> None:
    assert variable_relation_loss(APART[None, None], ALIKE.T[None, None]).tolist() == pytest.approx([0.5])


def test_time_relation_loss__does_not_see_a_scale() -> None:
    student = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(time_relation_loss(student, 7 * student), torch.zeros(2), rtol=0, atol=1e-10)


def test_window_relation_loss__golden() -> None:
    # Rows (1, 0) against rows (1, 1) / √2.
    root = 2**-0.5
    expected = ((1 - root) ** 2 + root**2) / 2
    assert window_relation_loss(APART[None], ALIKE[None]).tolist() == pytest.approx([expected])


def test_window_distance_loss__golden() -> None:
    student, teacher = torch.tensor([[[0.0], [1.0], [2.0]]]), torch.tensor([[[0.0], [1.0], [3.0]]])
    # Distances over their mean: 0.75, 0.75, 1.5 against 0.5, 1, 1.5, each twice among nine.
    assert window_distance_loss(student, teacher).tolist() == pytest.approx([2 * 2 * 0.5 * 0.25**2 / 9])


def test_window_distance_loss__does_not_see_a_scale_or_a_shift() -> None:
    student = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.zeros(2, dtype=torch.float64)
    torch.testing.assert_close(window_distance_loss(student, 7 * student + 3), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("windows", [1, 3])
def test_window_distance_loss__windows_that_are_all_the_same_have_a_finite_gradient(windows: int) -> None:
    student = torch.ones(1, windows, 2, requires_grad=True)
    window_distance_loss(student, torch.arange(2.0 * windows).view(1, windows, 2)).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
