"""The demo: a measurement campaign, and a new site.

Two forecasters of one household are trained on a campaign of 100 days of minute readings and sub-meters, and tested on
the months after it, of which there is only an hourly meter. A third forecasts a home that has four weeks of data; its
teachers know sixteen other homes.

Run it with `make demo`.
"""

import sys

from flows.campaign import write_campaign
from flows.homes import write_homes
from flows.retrain import retrain
from flows.terminal import sentences, verdict_table
from runtime.paths import home
from schemas.retrain import RetrainParameters

# Without a refit, which would take as long again.
CAMPAIGN = (
    RetrainParameters(dataset="campaign", horizon_hours=24, lookback_hours=168, refit=False),
    RetrainParameters(dataset="campaign", horizon_hours=1, lookback_hours=24, refit=False),
)
NEW_SITE = RetrainParameters(
    dataset="new-home",
    horizon_hours=24,
    lookback_hours=168,
    history_days=28,
    test_days=28,
    preset="new-site",
    replicates=3,
    unprivileged=False,
    refit=False,
)


def main() -> int:
    """Retrain all tasks, then print the verdicts and where the reports are."""
    with sentences():
        write_campaign()
        write_homes()
        verdicts = [retrain(parameters) for parameters in (*CAMPAIGN, NEW_SITE)]
        print()
        for verdict in verdicts:
            print(verdict_table(verdict), verdict.sentence, "", sep="\n")
        print(f"Reports:  {home() / 'reports' / 'latest'}/<task>/report.html")
        print("MLflow:   make mlflow-page     then http://127.0.0.1:5000")
        print("Prefect:  make prefect-page    then http://127.0.0.1:4200")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
