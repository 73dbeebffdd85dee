import itertools

import torch

from tutelage.model.days import recent_days


def test_recent_days__the_latest_first() -> None:
    past = torch.arange(2 * 24 + 5.0)[None]
    days = recent_days(past, 2, of_day=24)
    assert days.shape == (1, 2, 24)
    assert days[0, 0].tolist() == past[0, -24:].tolist()
    assert days[0, 1].tolist() == past[0, 5:29].tolist()


def test_recent_days__a_missing_value_takes_that_of_a_day_nearby() -> None:
    past = torch.arange(4 * 24.0)[None]
    past[0, 2 * 24 + 5] = torch.nan  # day 3 of 4: the later day's value
    past[0, 3 * 24 + 6] = torch.nan  # the last day: the earlier day's
    past[0, 7::24] = torch.nan  # no day has it: the last value
    days = recent_days(past, 4, of_day=24)[0]
    assert days[:, 5].tolist() == [77, 77, 29, 5]
    assert days[:, 6].tolist() == [54, 54, 30, 6]
    assert days[:, 7].tolist() == [95] * 4


def test_recent_days__the_nearest_later_day_fills_then_the_nearest_earlier_one() -> None:
    past = torch.rand(5, 24 * 11, generator=torch.Generator().manual_seed(0))
    past = torch.where(torch.rand(past.shape, generator=torch.Generator().manual_seed(1)) < 0.8, torch.nan, past)
    latest_first = past.unflatten(1, (11, 24)).flip(1)
    for window, day, hour in itertools.product(range(5), range(11), range(24)):
        of_hour = latest_first[window, :, hour]
        later = [value for value in of_hour[: day + 1].flip(0) if not value.isnan()]
        earlier = [value for value in of_hour[day:] if not value.isnan()]
        expected = (later or earlier or [past[window, -1]])[0]
        filled = recent_days(past, 11, of_day=24)[window, day, hour]
        torch.testing.assert_close(filled, expected, equal_nan=True, rtol=0, atol=0)
