"""Fleet: retrain the forecasters of several datasets, such as groups of series, each by itself."""

from prefect import flow

from flows.pieces import retrain_member
from runtime.clock import at_its_time
from runtime.engine import each_of
from runtime.weights import with_its_weights
from schemas.fleet import FleetManifest, FleetParameters
from tasks.fleet.summary import summarise_fleet
from tutelage.errors import FleetError


@flow(name="fleet", flow_run_name="fleet of {parameters.datasets}")
def fleet(parameters: FleetParameters) -> FleetManifest:
    """Retrain each dataset's forecaster, and register its version. A fault of one stops no other.

    Each is a retrain as of the flow `retrain`, with its own MLflow run, verdict and promotion. Started again with the
    same parameters, data and code, those that are finished are left as they are, and the others continue.

    Raises FleetError, after all have ended, where one could not be retrained.
    """
    pieces = [with_its_weights(at_its_time(parameters.of(dataset))) for dataset in parameters.datasets]
    results = each_of(retrain_member, pieces, parameters.engine, name="member", device=parameters.each.device)
    done = summarise_fleet(list(results))
    if done.failed:
        first = done.failed[0]
        raise FleetError(f"{len(done.failed)} of {len(done.rows)} have no new version; {first.task}: {first.sentence}")
    return done
