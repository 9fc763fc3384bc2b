"""Variables that launchers set fit the run, or it is refused."""

import pytest

from configs.runtime.launcher import launch_faults, launcher, rank

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "train",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "1",
    "SLURM_NTASKS": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "1",
}
CHILD = {"NODE_RANK": "0", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"}
ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "interactive", "SLURM_NTASKS": "4"}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
SHELL = {**ALLOCATION, "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("environment", "devices", "nodes", "by", "number"),
    [
        ({}, 1, 1, "own", 0),
        ({}, 2, 1, "own", 0),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, 1, 1, "own", 0),
        (CHILD, 2, 1, "own", 1),
        ({**CHILD, "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}, 2, 1, "own", 1),
        (TORCHRUN, 2, 1, "torchrun", 1),
        ({**TORCHRUN, "RANK": "3", "WORLD_SIZE": "4"}, 2, 2, "torchrun", 3),
        (SRUN, 2, 1, "srun", 1),
        (ALLOCATION, 1, 1, "own", 0),
        (ALLOCATION, 2, 1, "own", 0),
        (BATCH, 2, 1, "own", 0),
        (SHELL, 2, 1, "own", 0),
        ({"NODE_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "1"}, 1, 2, "own", 2),
    ],
)
def test_a_matching_environment_is_accepted(environment, devices, nodes, by, number):
    assert list(launch_faults(environment, devices, nodes)) == []
    assert (launcher(environment), rank(environment)) == (by, number)


@pytest.mark.parametrize(
    ("environment", "devices", "nodes", "words"),
    [
        ({"RANK": "1"}, 1, 1, ("--num-devices", "RANK=1", "one process")),
        ({"LOCAL_RANK": "1"}, 1, 1, ("--num-devices", "LOCAL_RANK=1")),
        ({"NODE_RANK": "1"}, 1, 1, ("--nodes", "NODE_RANK=1")),
        ({"WORLD_SIZE": "2"}, 1, 1, ("--num-devices", "WORLD_SIZE=2")),
        ({"RANK": "one"}, 1, 1, ("RANK=one", "whole number")),
        ({"RANK": "-1"}, 1, 1, ("RANK=-1", "whole number")),
        ({"SLURM_PROCID": "1"}, 1, 1, ("SLURM_PROCID=1", "SLURM_STEP_ID")),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, 1, 1, ("OMPI_COMM_WORLD_SIZE=2", "torchrun")),
        (TORCHRUN, 1, 1, ("--num-devices", "WORLD_SIZE=2", "one process")),
        (TORCHRUN, 1, 2, ("--num-devices", "LOCAL_WORLD_SIZE=2")),
        (TORCHRUN, 4, 1, ("--num-devices", "WORLD_SIZE=2", "4 processes")),
        ({"LOCAL_RANK": "0"}, 2, 1, ("LOCAL_RANK=0", "MASTER_ADDR and MASTER_PORT")),
        (SRUN, 1, 1, ("--num-devices", "srun started 2 tasks")),
        ({**SRUN, "SLURM_NNODES": "2"}, 2, 1, ("--nodes", "SLURM_NNODES=2")),
        ({k: v for k, v in SRUN.items() if "PER_NODE" not in k}, 2, 1, ("--ntasks-per-node",)),
        ({**SRUN, "SLURM_JOB_NAME": "interactive"}, 1, 1, ("srun started 2 tasks",)),
        (BATCH, 2, 2, ("--nodes", "srun python -m main")),
        ({"PL_TRAINER_FAST_DEV_RUN": "1"}, 1, 1, ("PL_TRAINER_FAST_DEV_RUN",)),
    ],
)
def test_a_variable_that_does_not_match_is_refused_by_name(environment, devices, nodes, words):
    found = list(launch_faults(environment, devices, nodes))
    assert len(found) == 1
    assert [word for word in words if word not in found[0]] == []
