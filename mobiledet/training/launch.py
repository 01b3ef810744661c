"""Starting the processes that train together on this machine, by PyTorch's elastic launcher."""

from __future__ import annotations

import logging
import signal
import sys
import uuid
from collections.abc import Sequence

from mobiledet.utils.processes import EXIT_SIGNAL

logger = logging.getLogger(__name__)

RESTARTS = 3
"""How often lost processes are started again."""

SECONDS_TO_SAVE = 120
"""What the processes have to finish their step and save after Ctrl-C, before they are killed."""


def launch(devices: int, words: Sequence[str]) -> int:
    """Run ``mobiledet train`` with these arguments in ``devices`` processes.

    When one of them is killed, all are started again and go on from the last checkpoint.

    Returns:
        The exit status, that of the process which ended first with another than 0.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it reports is reported below
    for restarts_left in reversed(range(RESTARTS + 1)):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,  # it can't tell a killed process from one that has reported what is wrong
            shutdown_timeout=SECONDS_TO_SAVE,
        )
        try:
            elastic_launch(config, sys.executable)("-m", "mobiledet", "train", *words)
            return 0
        except SignalException as error:
            return EXIT_SIGNAL + int(error.sigval)
        except ChildFailedError as error:
            failures = sorted(error.failures.values(), key=lambda failure: failure.timestamp)
            # The launcher itself ends the remaining ones by SIGTERM.
            killed = next((lost for lost in failures if lost.exitcode < 0 and lost.exitcode != -signal.SIGTERM), None)
            if killed is None:
                return next((int(failed.exitcode) for failed in failures if failed.exitcode > 0), 1)
            logger.warning("process %d was killed by signal %d", killed.local_rank, -killed.exitcode)
            if restarts_left == 0:
                return EXIT_SIGNAL - int(killed.exitcode)
            logger.warning("starting all %d processes again", devices)
    raise AssertionError("the loop ends by a return")
