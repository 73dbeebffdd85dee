import pytest
import torch

from tests.tutelage.builders import Float64OnCpu


def test_float64_on_cpu__catches_float64_of_what_may_be_elsewhere() -> None:
    values = torch.ones(3)
    makers = (values.double, lambda: values.to(torch.float64), lambda: torch.zeros(3, dtype=torch.float64))
    for make in makers:
        with pytest.raises(AssertionError, match="makes float64 of what may be on another device"), Float64OnCpu():
            values.cpu()
            make()
    with Float64OnCpu() as watch:
        values.cpu().double().sqrt()
    assert watch.made == 1
