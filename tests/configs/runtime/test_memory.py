"""What does not fit is said with both sizes."""

from configs.runtime.memory import machine_memory, memory_fault


def test_both_sizes_are_named_where_it_does_not_fit():
    assert memory_fault(3 * 2**30, 2**31) == "at least 3.0 GiB, this machine has 2.0"
    assert memory_fault(2**31, 2**31) is None


def test_this_machine_has_memory_for_a_page_and_not_for_an_exabyte():
    assert machine_memory() > 2**20
    assert memory_fault(4096) is None
    assert memory_fault(2**60).startswith("at least 1,073,741,824.0 GiB")
