"""Chronos models of random weights, in the folders that the package chronos-forecasting reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from chronos import Chronos2Model, ChronosConfig
from chronos.chronos2.config import Chronos2CoreConfig
from chronos.chronos_bolt import ChronosBoltModelForForecasting
from transformers import T5Config, T5ForConditionalGeneration

Family = Literal["bolt", "2", "samples"]
LONGEST = 32
"""How many steps they forecast."""
SMALL = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "reg_token_id": 1}
LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def write_chronos(
    folder: Path, family: Family, *, seed: int = 0, levels: Sequence[float] = LEVELS, context: int = 256
) -> Path:
    """A small model of one of the three families: Chronos-Bolt, Chronos-2, and the first Chronos, of samples."""
    patches = {"context_length": context, "input_patch_size": 16, "input_patch_stride": 16, "quantiles": list(levels)}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if family == "2":
            forecasts = patches | {"output_patch_size": 16, "max_output_patches": LONGEST // 16, "use_reg_token": True}
            config = Chronos2CoreConfig(**SMALL, chronos_config=forecasts, chronos_pipeline_class="Chronos2Pipeline")
            model = Chronos2Model(config)
        elif family == "bolt":
            forecasts = patches | {"prediction_length": LONGEST, "use_reg_token": True}
            config = T5Config(
                **SMALL,
                vocab_size=2,
                decoder_start_token_id=0,
                chronos_config=forecasts,
                chronos_pipeline_class="ChronosBoltPipeline",
            )
            model = ChronosBoltModelForForecasting(config)
        else:
            tokens = ChronosConfig(
                tokenizer_class="MeanScaleUniformBins",
                tokenizer_kwargs={"low_limit": -15.0, "high_limit": 15.0},
                context_length=64,
                prediction_length=LONGEST,
                n_tokens=32,
                n_special_tokens=2,
                pad_token_id=0,
                eos_token_id=1,
                use_eos_token=True,
                model_type="seq2seq",
                num_samples=2,
                temperature=1.0,
                top_k=5,
                top_p=1.0,
            )
            config = T5Config(**SMALL, vocab_size=32, chronos_config=vars(tokens), decoder_start_token_id=0)
            model = T5ForConditionalGeneration(config)
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(folder)
    return folder
