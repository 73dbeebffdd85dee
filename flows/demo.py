"""The demo: a measurement campaign. Two forecasters of one household from 100 days of minute readings, judged on 120.

Run it with `make demo`.
"""

import sys

from flows.retrain import retrain
from schemas.parameters import RetrainParameters
from schemas.verdict import Verdict
from tasks.home import home
from tutelage.errors import TutelageError

# No refit: after the campaign there are no minutes and sub-meters to learn from, which a refit would see.
CAMPAIGN = (
    RetrainParameters(dataset="household", horizon_hours=24, lookback_hours=168, refit=False),
    RetrainParameters(dataset="household", horizon_hours=1, lookback_hours=24, refit=False),
)


def verdict_table(verdict: Verdict) -> str:
    """The figures of one verdict as text; of student and twin the mean of all pairs."""
    names = {"chosen": f"chosen {verdict.registered.model}"}
    head = f"{verdict.task:<24}{'CRPS':>8}{'MAE':>8}{'RMSE':>8}{'80 %':>8}   [{verdict.unit}; 80 %: share inside]"
    rows = []
    for name, m in verdict.metrics.items():
        label = names.get(name, name).replace("_", " ")
        rows.append(f"  {label:<22}{m['crps']:>8.4f}{m['mae']:>8.4f}{m['rmse']:>8.4f}{m['coverage_80']:>8.1%}")
    return "\n".join([head, *rows])


def main() -> int:
    """Retrain both tasks, then print what came out and where to look."""
    try:
        verdicts = [retrain(parameters) for parameters in CAMPAIGN]
    except TutelageError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print()
    for verdict in verdicts:
        print(verdict_table(verdict), verdict.sentence, "", sep="\n")
    print(f"Reports:  {home() / 'reports' / 'latest'}/<task>/report.html")
    print("MLflow:   make mlflow-page     then http://127.0.0.1:5000")
    print("Prefect:  make prefect-page    then http://127.0.0.1:4200")
    return 0


if __name__ == "__main__":
    sys.exit(main())
