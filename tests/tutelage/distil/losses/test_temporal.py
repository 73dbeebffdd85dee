import math

import pytest
import torch

from tutelage.distil.losses import multi_period_loss, multi_scale_loss

ZERO = torch.zeros(1, 1, 4)


def test_multi_scale_loss__golden() -> None:
    teacher = torch.tensor([[[1.0, 3.0, 5.0, 7.0]]])
    # Blocks of 2: 2 and 6. Of 4: 4.
    assert multi_scale_loss(ZERO, teacher, scales=(2, 4)).tolist() == pytest.approx([((4 + 36) / 2 + 16) / 2])


def test_multi_scale_loss__leaves_out_what_fills_no_block() -> None:
    teacher = torch.tensor([[[1.0, 3.0, 5.0, 7.0, 99.0]]])
    assert multi_scale_loss(torch.zeros(1, 1, 5), teacher, scales=(4,)).tolist() == pytest.approx([16.0])


def test_multi_scale_loss__does_not_see_what_is_finer_than_its_scales() -> None:
    wiggle = torch.tensor([[[1.0, -1.0, 1.0, -1.0]]])
    assert multi_scale_loss(ZERO, wiggle, scales=(2, 4)).item() == 0


@pytest.mark.parametrize("scales", [(), (0,), (2, 8)])
def test_multi_scale_loss__refuses_scales_that_do_not_fit(scales: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="don't lie between 1 and the path's 4 steps"):
        multi_scale_loss(ZERO, ZERO, scales=scales)


def test_multi_period_loss__golden() -> None:
    student, teacher = torch.tensor([[[1.0, 0.0, -1.0, 0.0]]]), torch.tensor([[[1.0, -1.0, 1.0, -1.0]]])
    # Amplitudes at 4 and 2 steps: 2 and 0 against 0 and 4; at τ = ½ logits 4 and 0 against 0 and 8.
    low, high = 1 / (1 + math.e**8), 1 / (1 + math.e**-8)
    expected = low * math.log(low * (1 + math.e**-4)) + high * math.log(high * (1 + math.e**4))
    assert multi_period_loss(student, teacher).tolist() == pytest.approx([expected], rel=1e-5)


def test_multi_period_loss__sees_neither_the_mean_nor_the_phase() -> None:
    teacher = torch.tensor([[[1.0, 5.0, -2.0, 0.0, 3.0, 1.0]]])
    assert multi_period_loss(teacher.roll(2, dims=-1) + 9, teacher).item() == pytest.approx(0, abs=1e-6)


def test_multi_period_loss__refuses_what_has_no_periods() -> None:
    with pytest.raises(ValueError, match="a path of 3 steps has fewer than two frequencies"):
        multi_period_loss(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3))
    with pytest.raises(ValueError, match="tau 0 is not above 0"):
        multi_period_loss(ZERO, ZERO, tau=0)
