"""A trained network as a folder: weights as safetensors, all else as JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tutelage.files import read_json, write_json
from tutelage.networks import Forecaster, Scaler, Scalers, Shape


def describe(network: Forecaster, scalers: Scalers) -> dict[str, object]:
    """All that is needed, beside the weights, to build the network again, as plain values."""
    return {"shape": asdict(network.shape), "members": network.members, "scalers": asdict(scalers)}


def save_network(network: Forecaster, scalers: Scalers, folder: Path, *, notes: dict[str, Any]) -> None:
    """Write `weights.safetensors` and `network.json` into a folder. `notes` are kept beside the shape."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, folder / "weights.safetensors")
    write_json(folder / "network.json", {**describe(network, scalers), "notes": notes})


def load_network(folder: Path, device: torch.device) -> Forecaster:
    """Read a network back, in evaluation mode, on a device."""
    meta = read_json(folder / "network.json")
    scalers = read_scalers(meta["scalers"])
    shape = Shape(**meta["shape"] | {"centres": tuple(meta["shape"].get("centres", ()))})
    network = Forecaster(shape, scalers, meta["members"])
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    return network.to(device).eval()


def read_scalers(values: dict[str, Any]) -> Scalers:
    """Scalers from plain values."""
    return Scalers(**{name: Scaler(tuple(s["mean"]), tuple(s["std"])) for name, s in values.items()})
