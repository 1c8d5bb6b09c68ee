"""One thread for each worker, cheap builds, quick tests before slow ones and these by length."""

import os

# Before numpy and torch are imported: their threads would spin against each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What takes longest comes first among the slow ones, so that no worker is left alone with it.
LONGEST = (
    "test_photographs[", "test_more_channels_per_write", "test_the_engine_reads_clips",
    "test_gates_in_four_states", "test_around_a_stand_in[0", "test_bitstreams[icebreaker",
    "test_around_an_engine[all outputs", "test_large_arrays[0",
    "test_simulate_and_leave_a_waveform", "test_an_engine_is_placed_and_routed",
    "test_kill_9", "test_a_reset_in_the_middle_of_a_clip", "test_two_processes",
    "test_two_tasks", "test_random_designs_in_four_states", "test_both_programs_run",
    "test_photographs_through_the_pins", "test_host_and_verilog",
    "test_simulate_names_the_first_difference", "test_clips_and_moving_pictures",
    "test_programs_over_the_line")


def pytest_configure(config):
    from hw import tools
    from sim.runner import VERILATOR_OPTIONS
    tools.OPTIMISATION = "-O0"  # frames are few and small: it takes longer than it saves
    # One file of C++ for each model: half the work of twenty, as the workers take all cores anyway.
    VERILATOR_OPTIONS += ["--output-split", "0"]


def pytest_collection_modifyitems(items):
    """No quick test waits behind one that builds Verilog, in any worker."""
    def order(item) -> int:
        if item.get_closest_marker("slow") is None:
            return -1
        return next((n for n, name in enumerate(LONGEST) if item.name.startswith(name)),
                    len(LONGEST))
    items.sort(key=order)
