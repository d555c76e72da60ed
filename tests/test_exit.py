"""The end of a program: whatever the tasks do, it ends at once, with the right code, and says nothing wrong."""

from __future__ import annotations

import pytest
from helpers import run_program

PARK = """
import sys, time, pygo
ch = pygo.Channel()
tasks = [pygo.spawn(ch.recv) for _ in range(100_000)]
while ch.waiting_receivers < 100_000:
    time.sleep(0.01)
"""

ENDINGS = {
    "falls off the end": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "exception": ("raise ValueError('the end')", 1, "ValueError: the end"),
    "sys.exit in a task": ("pygo.spawn(sys.exit, 4).join()", 4, ""),
    "keyboard interrupt": ("raise KeyboardInterrupt", -2, "KeyboardInterrupt"),
}

BUSINESS = {
    "busy loops": "while True: pass",
    "yielding": "while True: pygo.yield_now()",
    "in time.sleep": "time.sleep(1000)",
    "sleeping": "pygo.sleep(1000)",
    "parked": "pygo.Channel().recv()",
    "timed waits": "pygo.Channel().recv(timeout=1000)",
    "spawning": "while True: pygo.spawn(int).join()",
    "sending": "while True: shared.send(1)",
    "in a C callback": "sorted([1, 2], key=lambda value: time.sleep(1000))",
    "in os.read": "os.read(os.pipe()[0], 1)",
    "holding a lock": "threading.Lock().acquire(); threading.Event().wait()",
    "in select.select": "select.select([os.pipe()[0]], [], [])",
    "allocating": "while True: [object() for _ in range(1000)]",
    "in a finally block": "\n    try: pygo.exit_task()\n    finally: pygo.Channel().recv()",
    "printing": "while True: sys.stderr.write('')",
}


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_it_ends_with_a_hundred_thousand_tasks_parked(ending: str) -> None:
    statement, code, message = ENDINGS[ending]
    program = run_program(PARK + statement)
    assert program.code == code, program
    if message:
        assert message in program.err
    else:
        assert program.err == ""


@pytest.mark.parametrize("business", list(BUSINESS))
def test_it_ends_whatever_the_tasks_are_doing(business: str) -> None:
    program = run_program(
        f"""
import os, select, sys, threading, time, pygo
shared = pygo.Channel()

def body():
    {BUSINESS[business]}

tasks = [pygo.spawn(body) for _ in range(8)]
time.sleep(0.2)
print("end")
"""
    )
    assert (program.code, program.out, program.err) == (0, "end\n", "")


@pytest.mark.parametrize("workers", ["1", "2", "16"])
def test_it_ends_while_everything_happens_at_once(workers: str) -> None:
    bodies = "\n".join(
        f"def body_{number}():\n    {body}\n"
        for number, body in enumerate(BUSINESS.values())
        if "exit_task" not in body
    )
    program = run_program(
        f"""
import os, select, sys, threading, time, pygo
shared = pygo.Channel()
{bodies}
tasks = [pygo.spawn(body) for name, body in list(globals().items()) if name.startswith("body_") for _ in range(3)]
time.sleep(0.3)
print("end")
""",
        env={"PYGO_WORKERS": workers},
    )
    assert (program.code, program.out, program.err) == (0, "end\n", "")


class TestSystemExit:
    @pytest.mark.parametrize(("argument", "code", "err"), [("5", 5, ""), ("", 0, ""), ("'bye'", 1, "bye\n")])
    @pytest.mark.parametrize(
        "wait", ["task.join()", "pygo.Channel().recv()", "while True: time.sleep(0.05)", "pygo.sleep(1000)"]
    )
    def test_in_a_task_it_ends_the_program(self, argument: str, code: int, err: str, wait: str) -> None:
        program = run_program(
            f"""
            import sys, time, pygo

            def body():
                sys.exit({argument})

            task = pygo.spawn(body)
            {wait}
            print("not reached")
            """
        )
        assert (program.code, program.out, program.err) == (code, "", err)

    def test_it_is_raised_in_the_main_thread_which_may_catch_it(self) -> None:
        program = run_program(
            """
            import sys, threading, pygo
            ch = pygo.Channel()
            task = pygo.spawn(sys.exit, 7)
            try:
                ch.recv()
            except SystemExit as exc:
                print("caught", exc.code, threading.current_thread() is threading.main_thread())
            print(pygo.spawn(int, "3").join())
            """
        ).ok()
        assert program.out == "caught 7 True\n3\n"
        assert program.err == ""

    def test_it_interrupts_main_while_it_computes(self) -> None:
        program = run_program(
            """
            import sys, pygo
            pygo.spawn(sys.exit, 9)
            while True:
                pass
            """,
            timeout=15,
        )
        assert program.code == 9, program

    def test_finally_blocks_and_atexit_handlers_of_main_run(self) -> None:
        program = run_program(
            """
            import atexit, sys, pygo
            atexit.register(print, "atexit")
            pygo.spawn(sys.exit, 6)
            try:
                pygo.Channel().recv()
            finally:
                print("finally")
            """
        )
        assert (program.code, program.out, program.err) == (6, "finally\natexit\n", "")

    def test_keyboard_interrupt_in_a_task_is_raised_in_main(self) -> None:
        program = run_program(
            """
            import pygo

            def body():
                raise KeyboardInterrupt

            task = pygo.spawn(body)
            try:
                pygo.Channel().recv()
            except KeyboardInterrupt:
                print("caught")
            """
        ).ok()
        assert program.out == "caught\n"


class TestUnjoinedFailures:
    def test_one_that_nobody_joined_is_printed_once_at_the_end(self) -> None:
        program = run_program(
            """
            import pygo

            def broken():
                raise ValueError("what went wrong")

            task = pygo.Task(broken, name="the-broken-task")
            while not task.done():
                pygo.sleep(0.001)
            print("end")
            """
        ).ok()
        assert program.out == "end\n"
        assert program.err.count("ValueError: what went wrong") == 1
        assert "the-broken-task" in program.err

    def test_one_that_was_joined_is_not_printed(self) -> None:
        program = run_program(
            """
            import pygo
            task = pygo.spawn(int, "x")
            try:
                task.join()
            except ValueError:
                print("joined")
            """
        ).ok()
        assert program.out == "joined\n"
        assert program.err == ""

    def test_one_whose_exception_ends_main_is_printed_once(self) -> None:
        program = run_program(
            """
            import pygo

            def broken():
                raise ValueError("what went wrong")

            task = pygo.spawn(broken)
            task.join()
            """
        )
        assert program.code == 1
        assert program.err.count("ValueError: what went wrong") == 1

    def test_the_users_hook_gets_it_at_the_end(self) -> None:
        program = run_program(
            """
            import pygo
            pygo.excepthook = lambda task, exc: print(task.name, repr(exc))
            task = pygo.Task(int, ("x",), name="kept")
            while not task.done():
                pygo.sleep(0.001)
            print("end")
            """
        ).ok()
        assert program.out.startswith("end\nkept ValueError(")
        assert program.err == ""


class TestAtExit:
    def test_handlers_may_spawn_and_wait(self) -> None:
        program = run_program(
            """
            import atexit, time, pygo

            def handler():
                ch = pygo.Channel()
                group = pygo.WaitGroup()
                for number in range(100):
                    group.go(ch.send, number)
                total = sum(ch.recv(timeout=10) for _ in range(100))
                group.wait(timeout=10)
                pygo.sleep(0.01)
                pygo.spawn(time.sleep, 0.01).join(timeout=10)
                print("handled", total)

            atexit.register(handler)
            tasks = [pygo.spawn(pygo.sleep, 1000) for _ in range(100)]
            print("end")
            """
        )
        assert (program.code, program.out, program.err) == (0, "end\nhandled 4950\n", "")

    def test_the_first_use_may_be_in_a_handler(self) -> None:
        program = run_program(
            """
            import atexit, pygo

            @atexit.register
            def handler():
                print(pygo.spawn(int, "3").join(timeout=10))
            """
        )
        assert (program.code, program.out, program.err) == (0, "3\n", "")

    def test_a_handler_registered_before_the_import_may_use_it_too(self) -> None:
        """It runs after pygo's own handlers, if there are any."""
        program = run_program(
            """
            import atexit

            @atexit.register
            def handler():
                print(pygo.spawn(int, "3").join(timeout=10))

            import pygo
            pygo.spawn(int).join()
            """
        )
        assert (program.code, program.out, program.err) == (0, "3\n", "")

    def test_a_handler_may_wake_tasks_parked_before(self) -> None:
        program = run_program(
            """
            import atexit, pygo
            ch = pygo.Channel()
            task = pygo.spawn(ch.recv)

            @atexit.register
            def handler():
                ch.send("woken")
                print(task.join(timeout=10))
            """
        )
        assert (program.code, program.out, program.err) == (0, "woken\n", "")

    def test_timers_that_are_due_then_use_no_cpu(self, workers: int) -> None:
        """Tasks rest for good in the handlers that were there before pygo, however long those take."""
        program = run_program(
            """
            import atexit, time

            @atexit.register
            def handler():
                begin, used = time.monotonic(), time.process_time()
                while time.monotonic() < begin + 0.4:
                    time.sleep(0.1)
                print((time.process_time() - used) / (time.monotonic() - begin))

            import pygo
            tasks = [pygo.spawn(pygo.sleep, 0.1) for _ in range(3)]
            pygo.sleep(0.01)
            """,
            env={"PYGO_WORKERS": str(workers)},
        ).ok()
        assert float(program.out) < 0.2

    def test_a_task_may_register_handlers(self) -> None:
        program = run_program(
            """
            import atexit, pygo
            pygo.spawn(atexit.register, print, "handled").join()
            """
        )
        assert (program.code, program.out, program.err) == (0, "handled\n", "")


class TestDaemonness:
    def test_main_does_not_wait_for_tasks(self) -> None:
        program = run_program(
            """
            import pygo

            def body():
                pygo.sleep(5)
                print("not reached")

            pygo.spawn(body)
            print("end")
            """,
            timeout=4,
        )
        assert (program.code, program.out, program.err) == (0, "end\n", "")

    def test_but_for_ordinary_threads_it_does(self) -> None:
        program = run_program(
            """
            import threading, pygo
            ch = pygo.Channel()

            def thread():
                print(ch.recv(timeout=10))

            threading.Thread(target=thread).start()

            def task():
                pygo.sleep(0.2)
                ch.send("from a task, after the end of main")

            pygo.spawn(task)
            """
        )
        assert (program.code, program.out, program.err) == (0, "from a task, after the end of main\n", "")

    def test_os_exit_ends_it_from_anywhere(self) -> None:
        for statement in ("os._exit(5)", "pygo.spawn(os._exit, 5).join()"):
            program = run_program(
                f"""
                import os, time, pygo
                tasks = [pygo.spawn(time.sleep, 1000) for _ in range(5)]
                tasks += [pygo.spawn(pygo.sleep, 1000) for _ in range(1000)]
                {statement}
                """
            )
            assert (program.code, program.out, program.err) == (5, "", "")


def test_objects_used_after_the_end_do_no_harm() -> None:
    """Finalizers run during shutdown touch channels, tasks and groups; modules may be gone by then."""
    program = run_program(
        """
        import sys, pygo

        class Late:
            def __init__(self):
                self.ch = pygo.Channel(2)
                self.group = pygo.WaitGroup()
                self.task = pygo.spawn(pygo.Channel().recv)

            def __del__(self):
                self.ch.try_send(1)
                self.ch.try_recv()
                self.ch.close()
                self.group.add(1)
                self.group.done()
                self.task.done()
                repr(self.task), repr(self.ch), repr(self.group)

        kept = Late()
        sys.modules["kept in a module"] = Late()
        cycle = Late()
        cycle.itself = cycle
        print("end")
        """
    )
    assert (program.code, program.out, program.err) == (0, "end\n", "")


def test_a_wait_in_a_finalizer_at_shutdown_does_not_hang() -> None:
    """Any error is fine there, even none; only a hang or a crash is not."""
    program = run_program(
        """
        import pygo

        class Late:
            def __del__(self, pygo=pygo):
                for call in (
                    lambda: pygo.Channel().recv(timeout=0.1),
                    lambda: pygo.spawn(int).join(timeout=0.1),
                    lambda: pygo.sleep(0.01),
                ):
                    try:
                        call()
                    except BaseException:
                        pass

        kept = Late()
        pygo.spawn(int).join()
        """
    )
    assert program.code == 0, program


def test_no_task_begins_at_shutdown_any_more() -> None:
    """A wait in a finalizer let fresh tasks run in an interpreter half taken apart, which now and then aborted."""
    program = run_program(
        """
        import pygo

        class Late:
            def __del__(self, pygo=pygo, TimeoutError=TimeoutError):
                try:
                    pygo.spawn(print, "begun", flush=True).join(timeout=0.3)
                except TimeoutError:
                    print("timed out", flush=True)

        kept = Late()
        """
    )
    assert (program.code, program.out, program.err) == (0, "timed out\n", "")


@pytest.mark.parametrize(
    "wait",
    ["pygo.Channel().recv()", "pygo.spawn(int).join()", "parked.join()", "pygo.select()", "pygo.sync.Event().wait()"],
)
def test_a_wait_without_end_in_a_finalizer_at_shutdown_raises(wait: str) -> None:
    """No task runs any more, so nothing could end it."""
    program = run_program(
        f"""
        import pygo, pygo.sync
        parked = pygo.spawn(pygo.Channel().recv)

        class Late:
            def __del__(self, pygo=pygo, parked=parked, sync=pygo.sync):
                try:
                    parked.cancel()
                    {wait}
                except RuntimeError as error:
                    print(error, flush=True)

        kept = Late()
        """
    )
    assert (program.code, program.out, program.err) == (
        0,
        "no task runs any more: the interpreter is shutting down\n",
        "",
    )


def test_importing_only_ends_silently() -> None:
    program = run_program("import pygo")
    assert (program.code, program.out, program.err) == (0, "", "")


@pytest.mark.parametrize(
    "waits", ["ch.recv()", "pygo.sleep(1000)", "group.wait()", "pygo.select(pygo.recv(ch))", "parked.join()"]
)
def test_tasks_abandoned_at_every_kind_of_wait_run_none_of_their_code(waits: str) -> None:
    """Like daemon threads: no ``finally`` block of a parked task runs after main has ended."""
    program = run_program(
        f"""
        import time, pygo
        ch, group = pygo.Channel(), pygo.WaitGroup()
        group.add()
        parked = pygo.spawn(pygo.Channel().recv)

        def body():
            try:
                {waits}
            finally:
                print("not reached")

        tasks = [pygo.spawn(body) for _ in range(50)]
        while any(task.state != "waiting" for task in tasks):
            time.sleep(0.001)
        print("end")
        """
    )
    assert (program.code, program.out, program.err) == (0, "end\n", "")
