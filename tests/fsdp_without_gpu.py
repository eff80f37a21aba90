"""Runs run_stage2.py in shards on processors: accelerate shards on accelerators only, although torch can do either."""

import sys
from pathlib import Path

import accelerate.state

make_state = accelerate.state.PartialState.__init__


def as_if_on_gpus(state, *args, **kwargs):
    make_state(state, *args, **kwargs)
    if state.distributed_type == accelerate.state.DistributedType.MULTI_CPU:
        state.distributed_type = accelerate.state.DistributedType.MULTI_GPU


if __name__ == "__main__":
    accelerate.state.PartialState.__init__ = as_if_on_gpus
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import run_stage2

    sys.exit(run_stage2.main())
