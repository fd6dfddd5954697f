"""Which stack belongs to which thread, also where a server forks without telling Python."""

from __future__ import annotations

from agent.stacks import Stack, Thread
from agent.stillness import by_thread


def thread(os_id: int) -> Thread:
    return Thread("", os_id, False, False, ())


def test_each_thread_has_its_own_stack() -> None:
    main, other = thread(10), thread(11)
    assert by_thread(Stack((main, other)), {10: 10, 11: 11, 12: 12}, 10) == {10: main, 11: other}


def test_in_a_container_the_process_knows_its_threads_by_other_ids() -> None:
    main, other = thread(1), thread(7)
    assert by_thread(Stack((main, other)), {4100: 1, 4107: 7}, 4100) == {4100: main, 4107: other}


def test_a_main_thread_with_the_id_that_it_had_before_the_fork_is_the_main_thread() -> None:
    main, other = thread(9), thread(11)
    assert by_thread(Stack((main, other)), {10: 10, 11: 11}, 10) == {10: main, 11: other}


def test_with_two_such_stacks_nobody_knows_which_is_the_main_threads() -> None:
    assert by_thread(Stack((thread(8), thread(9))), {10: 10}, 10) == {}
    assert by_thread(Stack((thread(8),)), {10: 10}, 99) == {}
