"""recipes/train.py, with a second process that is late whenever it reads a checkpoint."""

import os
import runpy
import sys
import time

from ser_plugins.training.checkpoints import WholeCheckpointer

recover = WholeCheckpointer.recover_if_possible


def late(self, *args, **kwargs):
    if os.environ["RANK"] == "1":
        time.sleep(3)
    return recover(self, *args, **kwargs)


if __name__ == "__main__":
    WholeCheckpointer.recover_if_possible = late
    sys.argv[0] = "recipes/train.py"
    runpy.run_path("recipes/train.py", run_name="__main__")
