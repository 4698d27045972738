"""Record slowly enough to be killed in the middle: python recording_to_kill.py FOLDER SECONDS_PER_STEP."""

from __future__ import annotations

import sys
import time

import torch

from easyteacache.integrations.diffusers.recording import Job, RecordingSettings, record_pipeline

JOBS = tuple(Job("7 down", seed, 16, 16, 1, 3, shift=3.0, guidance_scale=2.0) for seed in range(5))
SETTINGS = RecordingSettings(model_key="test/small", signals=("timestep_projection", "hidden_states"))


def pipeline():
    """The same untrained model in every process."""
    from diffusers import WanTransformer3DModel

    from easyteacache.reference.architectures import WAN
    from easyteacache.reference.pipeline import MovingDigitsPipeline

    torch.manual_seed(0)
    config = {**WAN.config, "num_layers": 2, "num_attention_heads": 2, "ffn_dim": 48}
    return MovingDigitsPipeline.from_transformer(WanTransformer3DModel(**config).eval())


def main() -> None:
    torch.set_num_threads(1)
    pipe, pause = pipeline(), float(sys.argv[2])
    pipe.transformer.register_forward_hook(lambda *_: time.sleep(pause))
    record_pipeline(pipe, JOBS, sys.argv[1], SETTINGS, chunk=2, progress=False)


if __name__ == "__main__":
    main()
