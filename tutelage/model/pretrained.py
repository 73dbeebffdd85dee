"""A pretrained model as a torch module: one computation for forecasts in Python and in the exported graph."""

import importlib
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from tutelage.errors import TutelageError
from tutelage.model.kinds import Pretrained

INSTALL = {"fracast": "pip install --no-deps fracast==0.1.0 safetensors"}
"""How to install each model. fracast declares a hub client that it does not need for the weights in its wheel."""
CREDITS = {"fracast": "weights of fracast 0.1.0, Apache-2.0"}
"""What a graph contains that holds one."""
CONTEXT_DAYS = 28
CHUNK_WINDOWS = 8
"""Windows per call: larger batches leave the cache; 16 take a fifth longer, 32 half as long again."""
SMALLEST_SPAN = 1e-5


class PretrainedNetwork(nn.Module):
    """A pretrained model's quantiles at `levels` of windows of a series in any unit, up to `horizon` hours ahead."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.core, self.head = model.core, model.head
        self.context, self.horizon = model.context_length, model.horizon
        self.levels = tuple(model.quantiles)

    def forward(self, past: Float[Tensor, "windows hours"]) -> Float[Tensor, "windows horizon levels"]:
        """past: the hours before the issue time, NaN where there is no value; further ones are taken as missing."""
        tail = pad(past, (self.context - past.shape[1], 0), value=torch.nan)
        valid, most = torch.isfinite(tail), torch.finfo(tail.dtype).max
        lowest = torch.where(valid, tail, most).amin(dim=1, keepdim=True)
        span = (torch.where(valid, tail, -most).amax(dim=1, keepdim=True) - lowest).clamp(min=SMALLEST_SPAN)
        values = torch.where(valid, (tail - lowest) / span, 0.0).unsqueeze(1)
        mask = valid.unsqueeze(1)
        hidden = self.core(values, mask, mask.to(tail.dtype))
        quantiles = self.head.forward_horizon(hidden, last_obs=values[:, 0, -1:], ctx=values[:, 0], ctx_mask=mask[:, 0])
        return (quantiles * span.unsqueeze(1) + lowest.unsqueeze(1)).sort(dim=-1).values

    def in_chunks(self, past: Float[Tensor, "windows hours"]) -> Float[Tensor, "windows horizon levels"]:
        """The same without gradients, some windows at a time, on the CPU."""
        with torch.inference_mode():
            return torch.cat([self(part) for part in past.cpu().float().split(CHUNK_WINDOWS)]).clone()


@cache
def pretrained_network(name: Pretrained) -> PretrainedNetwork:
    """A pretrained model by its name.

    Raises TutelageError where its package is not installed.
    """
    try:
        module = importlib.import_module(name)
    except ImportError:
        raise TutelageError(f"the pretrained model {name} is not installed: {INSTALL[name]}") from None
    return PretrainedNetwork(module.FracastModel.from_pretrained(weights="fp32")).eval().requires_grad_(False)
