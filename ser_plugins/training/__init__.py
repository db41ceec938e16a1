"""Training: the Brain, its collaborators, and the steps of a run."""

import logging

from ser_plugins.training.brain import EncoderBrain
from ser_plugins.training.checkpoints import EpochCounter
from ser_plugins.training.distillation import DistillationLoss
from ser_plugins.training.graphs import EncoderGraphs
from ser_plugins.training.mixup import Mixup
from ser_plugins.training.reconstruction import AutoEncoder, ReconstructionLoss
from ser_plugins.training.schedule import CosineSchedule, StepSchedule
from ser_plugins.training.step_seeds import StepSeeds
from ser_plugins.training.teacher import Teacher
from ser_plugins.training.weight_average import WeightAverage

__all__ = [
    "AutoEncoder",
    "CosineSchedule",
    "DistillationLoss",
    "EncoderBrain",
    "EncoderGraphs",
    "EpochCounter",
    "Mixup",
    "ReconstructionLoss",
    "StepSchedule",
    "StepSeeds",
    "Teacher",
    "WeightAverage",
]

# At import it warns that it cannot save figures without torchvision; no recipe here saves figures through it.
logging.getLogger("speechbrain.utils.train_logger").addFilter(lambda record: "torchvision" not in record.getMessage())
