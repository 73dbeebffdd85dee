"""Calendar features, known for any step in advance: hour of the day, weekday, public holiday."""

from collections.abc import Iterable

import holidays
import polars as pl

from tutelage.data.dataset import Calendar

CALENDAR_COLUMNS = ["hour", "weekday", "holiday"]


def public_holidays(calendar: Calendar, years: Iterable[int]) -> list[str]:
    """The public holidays of the calendar's country and region in these years, as ISO dates; none without a country."""
    if calendar.country is None:
        return []
    return sorted(
        day.isoformat() for day in holidays.country_holidays(calendar.country, subdiv=calendar.region, years=years)
    )


def calendar_features(time_utc: pl.Series, calendar: Calendar) -> pl.DataFrame:
    """Hour of the day (0 to below 24, with its fraction), weekday (0 Monday to 6 Sunday), holiday (0 or 1), local."""
    local = time_utc.dt.convert_time_zone(calendar.timezone)
    years = range(local.dt.year().min(), local.dt.year().max() + 1) if len(local) else range(0)  # type: ignore[arg-type, operator]
    free = public_holidays(calendar, years)
    return pl.DataFrame(
        {
            "hour": (local.dt.hour() + local.dt.minute() / 60).cast(pl.Float32),
            "weekday": (local.dt.weekday() - 1).cast(pl.Float32),
            "holiday": local.dt.date().cast(pl.String).is_in(free).cast(pl.Float32),
        }
    )
