"""Training, evaluation and cross-validation."""

import logging

# At import it warns that it cannot save figures without torchvision: none of ours are its own.
logging.getLogger("speechbrain.utils.train_logger").addFilter(lambda record: "torchvision" not in record.getMessage())
