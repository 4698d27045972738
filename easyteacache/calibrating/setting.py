"""What a calibration made here holds for: one model as it runs, one sampler, one sequence length."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from easyteacache.policy.request import RunContext
from easyteacache.records.model_identity import ModelIdentity

#: Decimals of a sampler's signature that a setting is told apart by; the tolerance of two signatures is 1e-4.
DECIMALS = 4
#: Before the digest in ``model.checkpoint_commit``, so that it is not taken for a commit.
WEIGHTS = "weights:"


@dataclass(frozen=True)
class Setting:
    """One setting; runs of another one are recorded and solved apart.

    Attributes:
        key: of the model.
        model: class, configuration, number type, quantisation, adapters; its weights as ``checkpoint_commit``.
        run: sampler, step count, shift and length.
    """

    key: str
    model: ModelIdentity
    run: RunContext

    @classmethod
    def of(cls, key: str, run: RunContext, weights: str | None) -> Setting:
        """The setting of a run whose length is known.

        Args:
            key: of the model.
            run: what is known of it.
            weights: digest of the transformer's weights; None where they cannot be read.
        """
        model = run.model or ModelIdentity.model_construct()
        if weights is not None:
            model = model.model_copy(update={"checkpoint_commit": f"{WEIGHTS}{weights}"})
        return cls(key, model, run)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that tell it from the model's other settings, whatever their lengths."""
        sampler = self.run.sampler
        states = None if sampler is None else sampler.signature or sampler.levels
        content = {
            "class": self.model.class_name,
            "configuration": self.model.configuration_sha256,
            "weights": self.model.checkpoint_commit,
            "dtype": self.model.dtype,
            "quantization": self.model.quantization,
            "adapters": [[one.name, None if one.scale is None else round(one.scale, 3)] for one in self.model.adapters],
            "sampler": None if sampler is None else sampler.name,
            "states": None if states is None else [round(state, DECIMALS) + 0.0 for state in states],
            "shift": self.run.shift,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def record_key(self) -> str:
        """Key of its record, one of the model's: ``wan2.1/t2v-14b/teacache-50-steps-32760-tokens-1f2e3d4c``."""
        return f"{self.key}/teacache-{self.run.num_steps}-steps-{self.run.sequence_length}-tokens-{self.digest}"

    def made_with(self, recorded: ModelIdentity | None) -> bool:
        """Was a record of ``recorded`` made with these weights? True where either does not say."""
        theirs = None if recorded is None else recorded.checkpoint_commit
        mine = self.model.checkpoint_commit
        if theirs is None or mine is None or not theirs.startswith(WEIGHTS):
            return True
        return theirs == mine
