"""The reference model: a small trained video DiT of diffusers' own Wan class that everybody can run.

    from easyteacache.reference import load_pipeline

    pipe = load_pipeline()
    videos = pipe(["3 right", 7], num_frames=4, height=16, width=16, seeds=[0, 1]).frames

Importing this package needs torch and diffusers (`pip install "easyteacache[diffusers]"`); only training and
evaluating need scikit-learn.
"""

from easyteacache.errors import MissingPackage

try:
    from easyteacache.reference.classifier import DigitClassifier, load_classifier
    from easyteacache.reference.pipeline import MovingDigitsOutput, MovingDigitsPipeline, load_pipeline
except ModuleNotFoundError as error:
    if error.name not in ("diffusers", "accelerate", "transformers"):
        raise
    raise MissingPackage(error.name, "the reference model", 'pip install "easyteacache[diffusers]"') from error

__all__ = ["DigitClassifier", "MovingDigitsOutput", "MovingDigitsPipeline", "load_classifier", "load_pipeline"]
