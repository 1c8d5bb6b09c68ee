"""One Verilog, many programs: loaded and run in turn, each as exact and as fast as alone."""

import numpy as np
import pytest

from export.build import build
from export.config import MachineConfig, load_config, parse_config
from export.cost import Cost
from export.file import load_network
from export.image import build_image
from export.loader import Loader
from export.machine import Machine, describe_machine
from export.pack import empty
from hw.engine import Engine
from hw.verilog import write_verilog
from sim import golden
from sim.samples import random_images, random_network
from sim.verilog import Job, Load, run_jobs
from tests.designs import SMALL, buffered


def machine_for(configs, **machine):
    """The hardware that runs all, and its programs."""
    first = configs[0].model_copy(update={"machine": MachineConfig(memory="ram", **machine)})
    return build([first, *configs[1:]], [None] * len(configs))


def swapped(machine, configs, networks, frames: int):
    """Four programs in two places: what is loaded when, and the frames.

    The second is loaded while the first runs, the third while the second does, over the first; the
    fourth over the second, while nothing runs.
    """
    description = Machine(**describe_machine(machine.hardware))
    loader, loads, total = Loader(description), [], 0
    jobs, images = [], []
    for k, (config, network) in enumerate(zip(configs, networks, strict=True)):
        slot = k % 2
        image = build_image(description, config, network)
        _, placed = loader.place(image, slot, replace=slot in loader.programs)
        words = [*loader.load(slot, placed)]
        loader.programs[slot] = placed
        loads.append(Load(words=words, after=[0, 2, frames + 2, 3 * frames][k]))
        total += len(words)
        images.append(random_images(config.network, frames, k))
        jobs += [Job(program=machine.programs[k], image=image, number=slot, needs=total)
                 for image in images[-1]]
    return jobs, loads, images


def check(machine, networks, images, found):
    """Every layer, result and cycle of every frame; no word refused."""
    assert found.refused == 0
    n = 0
    for program, network, pixels in zip(machine.programs, networks, images, strict=True):
        trace, cost = golden.run(network, pixels), Cost(program, machine.hardware)
        cycles = [cost.layer_cycles(layer) for layer in program.layers]
        for m in range(len(pixels)):
            assert found.difference(n, trace, m) is None
            assert found.cycles[n][:-1] == cycles[:-1]
            waited = found.cycles[n][-1] - cycles[-1]
            assert 0 <= waited <= (cost.output_wait if m else 10**6)
            if m > 1:
                assert found.left[n] - found.left[n - 1] == cost.frame_period
            n += 1
    assert n == len(found.results)


@pytest.mark.slow
@pytest.mark.parametrize("buffers", [1, 2])
def test_programs_are_swapped_between_and_beside_frames(tmp_path, buffers):
    machine = machine_for(SMALL, hold=2, pixel_buffers=buffers)
    networks = [random_network(config.network, k) for k, config in enumerate(SMALL)]
    write_verilog(Engine(machine.hardware, empty(machine.hardware)), tmp_path, "engine")
    jobs, loads, images = swapped(machine, SMALL, networks, 4)
    found = run_jobs(machine.hardware, tmp_path, jobs, loads)
    check(machine, networks, images, found)
    # Between frames of two programs that are both there passes no cycle.
    cost = Cost(machine.programs[1], machine.hardware)
    assert found.left[4] - found.left[3] == cost.frame_period


@pytest.mark.long
def test_four_networks_in_one_verilog(tmp_path):
    """`cifar10`, `heq_residual`, `mognet` and codes: ten frames each."""
    names = "cifar10", "heq_residual", "mognet"
    configs = [load_config(f"configs/{name}.toml") for name in names]
    configs.append(load_config("tests/codes.toml"))
    networks = [load_network(f"weights/{name}.npz") for name in names]
    networks.append(random_network(configs[-1].network, 1))
    machine = machine_for(configs, hold=2)
    write_verilog(Engine(machine.hardware, empty(machine.hardware)), tmp_path, "engine")
    jobs, loads, images = swapped(machine, configs, networks, 10)
    found = run_jobs(machine.hardware, tmp_path, jobs, loads)
    check(machine, networks, images, found)
    for load, (first, last) in zip(loads, found.loaded, strict=True):
        assert last - first == len(load.words) - 1  # a word per cycle
    print({config.name: len(load.words) for config, load in zip(configs, loads, strict=True)})


@pytest.mark.slow
@pytest.mark.parametrize("config", [SMALL[0], buffered(SMALL[0])])
def test_several_programs_in_rom(tmp_path, config):
    """Chosen frame by frame, in any order."""
    networks = [random_network(config.network, k) for k, config in enumerate(SMALL)]
    machine = build([config, *SMALL[1:]], networks)
    write_verilog(Engine(machine.hardware, machine.images), tmp_path, "engine")
    order = np.random.default_rng(1).integers(0, 4, 14).tolist()
    images = [random_images(config.network, 1, k) for k, config in enumerate(SMALL)]
    traces = [golden.run(*each) for each in zip(networks, images, strict=True)]
    found = run_jobs(machine.hardware, tmp_path, [
        Job(program=machine.programs[k], image=images[k][0], number=k) for k in order], gaps=2)
    for n, k in enumerate(order):
        assert found.difference(n, traces[k], 0) is None


def test_a_machine_of_rom_wants_all_weights():
    config = parse_config(SMALL[0].model_dump())
    with pytest.raises(Exception, match=r"^test: ROM needs weights$"):
        build([config, config], [random_network(config.network, 1), None])
