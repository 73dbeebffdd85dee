"""A trained network as a folder: weights as safetensors, everything else as JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tutelage.files import read_json, write_json
from tutelage.model.architectures import NetworkConfig
from tutelage.model.networks import Forecaster
from tutelage.model.scaling import Scaler, Scalers

WEIGHTS = "weights.safetensors"
NETWORK = "network.json"


def describe(network: Forecaster, scalers: Scalers) -> dict[str, object]:
    """Everything except the weights that is needed to rebuild the network, as plain values."""
    return {"config": asdict(network.config), "members": network.members, "scalers": write_scalers(scalers)}


def save_network(network: Forecaster, scalers: Scalers, folder: Path, *, notes: dict[str, Any]) -> None:
    """Write weights and description of a network into a folder. `notes` become part of the description."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    write_json(folder / NETWORK, {**describe(network, scalers), "notes": notes})


def load_network(folder: Path, device: torch.device) -> Forecaster:
    """Read a network, in evaluation mode, on a device."""
    meta = read_json(folder / NETWORK)
    scalers = read_scalers(meta["scalers"])
    config = NetworkConfig(**meta["config"] | {"centres": tuple(meta["config"]["centres"])})
    network = Forecaster(config, scalers, meta["members"])
    network.load_state_dict(load_file(folder / WEIGHTS))
    return network.to(device).eval()


def write_scalers(scalers: Scalers) -> dict[str, Any]:
    """Scalers as plain values."""
    return asdict(scalers)


def read_scalers(values: dict[str, Any]) -> Scalers:
    """Scalers from plain values."""
    return Scalers(**{name: Scaler(tuple(s["mean"]), tuple(s["std"])) for name, s in values.items()})
