"""Launchers as seen in the environment: who starts the processes, and whether that fits the options.

torchrun and its like set RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; srun sets SLURM_STEP_ID,
SLURM_PROCID and SLURM_NTASKS; without one, Lightning starts the processes and sets LOCAL_RANK, NODE_RANK
and WORLD_SIZE. A variable left over from another program would make a run train twice into one directory or
wait for processes that never come, so each has to fit `--num-devices` times `--nodes`.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

Launcher = Literal["torchrun", "srun", "own"]

_INTERACTIVE = ("bash", "sh", "zsh", "interactive")
"""SLURM_JOB_NAME of an interactive allocation."""
_INTERACTIVE_STEP = "4294967290"
"""SLURM_STEP_ID of the shell that `salloc` opens as a step of its own."""
_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")


def launcher(environment: Mapping[str, str]) -> Launcher:
    """Return who starts the processes of a run: torchrun, srun, or (own) the program itself."""
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun"
    step = environment.get("SLURM_STEP_ID")
    is_shell = environment.get("SLURM_JOB_NAME") in _INTERACTIVE or step == _INTERACTIVE_STEP
    is_interactive = is_shell and environment.get("SLURM_STEP_NUM_TASKS", "1") == "1"
    return "srun" if step is not None and not is_interactive else "own"


def rank(environment: Mapping[str, str]) -> int:
    """Return this process's number among the run's; the first one, 0, writes files."""
    names = ("RANK", "SLURM_PROCID") if launcher(environment) == "srun" else ("RANK",)
    for name in names:
        if environment.get(name, "").isdecimal():
            return int(environment[name])
    node, local = (environment.get(name, "") for name in ("NODE_RANK", "LOCAL_RANK"))
    number = int(local) if local.isdecimal() else 0
    if node.isdecimal() and node != "0":
        return max(1, number) + int(node)  # not the first; its exact number is the Trainer's to know
    return number


def is_launched(environment: Mapping[str, str]) -> bool:
    """Return whether this is one of several processes of the same command."""
    counts = (environment.get(name, "") for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))
    return rank(environment) > 0 or any(count.isdecimal() and int(count) > 1 for count in counts)


def launch_faults(environment: Mapping[str, str], devices: int, nodes: int) -> Iterator[str]:
    """Yield a line for each variable that does not fit the number of processes of the run.

    Args:
        environment: the process's environment.
        devices: of `--num-devices`, processes a node.
        nodes: of `--nodes`.
    """
    yield from _lightning_faults(environment)
    if launcher(environment) == "srun":
        yield from _srun_faults(environment, devices, nodes)
        return
    if nodes > 1 and "SLURM_JOB_ID" in environment and launcher(environment) == "own":
        yield f"--nodes: {nodes} nodes of a SLURM job need srun: srun python -m main ..."
    task = environment.get("SLURM_PROCID", "0")
    if task != "0":
        yield f"SLURM_PROCID={task}: set without SLURM_STEP_ID, so srun did not start this process; unset it"
    numbers = {}
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK"):
        value = environment.get(name)
        if value is not None and not value.isdecimal():
            yield f"{name}={value}: must be a whole number; unset it, or launch the run with torchrun"
            return
        if value is not None:
            numbers[name] = int(value)
    yield from _count_faults(environment, numbers, devices, nodes)


def _count_faults(
    environment: Mapping[str, str], numbers: Mapping[str, int], devices: int, nodes: int
) -> Iterator[str]:
    """Check the variables that torchrun, a launcher like it, or Lightning sets."""
    world = devices * nodes
    expected = f"--num-devices {devices} and --nodes {nodes} make {_processes(world)}"
    counts = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": devices}
    for name, count in counts.items():
        if numbers.get(name, count) != count:
            yield f"--num-devices: {name}={numbers[name]} in the environment, but {expected}; {_advice(name)}"
            return
    for name, count in {"RANK": world, "LOCAL_RANK": devices, "NODE_RANK": nodes}.items():
        if numbers.get(name, 0) >= count:
            flag = "--nodes" if name == "NODE_RANK" else "--num-devices"
            yield f"{flag}: {name}={numbers[name]} in the environment, but {expected}; {_advice(name)}"
            return
    mpi = environment.get("OMPI_COMM_WORLD_SIZE", "1")
    if mpi != "1" and "WORLD_SIZE" not in numbers:
        yield f"OMPI_COMM_WORLD_SIZE={mpi}: mpirun is not supported; launch with torchrun or srun"
    lacking = [name for name in _ADDRESS if name not in environment]
    if world > 1 and "LOCAL_RANK" in numbers and lacking:
        yield (
            f"LOCAL_RANK={numbers['LOCAL_RANK']}: without {' and '.join(lacking)} the processes cannot find"
            " each other; unset LOCAL_RANK, or launch the run with torchrun"
        )


def _srun_faults(environment: Mapping[str, str], devices: int, nodes: int) -> Iterator[str]:
    """Check the tasks that srun started."""
    expected = f"--num-devices {devices} and --nodes {nodes} make {_processes(devices * nodes)}"
    tasks = environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1"))
    if tasks != str(devices * nodes):
        yield f"--num-devices: srun started {tasks} tasks (SLURM_NTASKS), but {expected}"
        return
    for name, flag, count in (
        ("SLURM_NTASKS_PER_NODE", "--num-devices", devices),
        ("SLURM_NNODES", "--nodes", nodes),
    ):
        if environment.get(name, str(count)) != str(count):
            yield f"{flag}: {name}={environment[name]} in the environment, but {expected}"
    if devices * nodes > 1 and "SLURM_NTASKS_PER_NODE" not in environment:
        yield "--num-devices: give srun (or sbatch) --ntasks-per-node, not only --ntasks"


def _lightning_faults(environment: Mapping[str, str]) -> Iterator[str]:
    """Refuse variables by which Lightning silently changes its Trainer's arguments."""
    for name in sorted(environment):
        if name.startswith("PL_TRAINER_"):
            yield f"{name}: in the environment it would change the Trainer; unset it and use the options"


def _processes(count: int) -> str:
    return "one process" if count == 1 else f"{count} processes"


def _advice(name: str) -> str:
    return f"unset {name}, or give the number of processes that the launcher starts"
