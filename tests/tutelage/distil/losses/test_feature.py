import pytest
import torch

from tutelage.distil.losses import attention_loss, feature_loss
from tutelage.model.layers import MemberLinear


def test_feature_loss__golden() -> None:
    student, teacher = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[2.5, 7.0]]])
    # Doubled, the student says 2 and 4: ½ · 0.5² and 3 - ½.
    assert feature_loss(student, teacher, lambda x: 2 * x).tolist() == pytest.approx([(0.125 + 2.5) / 2])


def test_feature_loss__the_projection_learns_member_by_member() -> None:
    projection = MemberLinear(3, 4, 6)
    feature_loss(torch.randn(3, 5, 4), torch.randn(1, 5, 6), projection)[1].backward()
    assert projection.weight.grad is not None
    assert projection.weight.grad.flatten(1).any(dim=1).tolist() == [False, True, False]


def test_attention_loss__golden() -> None:
    student = torch.tensor([[[[[0.5, 0.5]]]]])
    teacher = torch.tensor([[[[[1.0, 0.0]], [[0.6, 0.4]]]]])  # two heads, 0.8 and 0.2 in the mean
    assert attention_loss(student, teacher).tolist() == pytest.approx([0.5 * 0.3**2])
