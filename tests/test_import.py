"""Importing: pygo itself costs no thread, and modules imported by many tasks are whole and executed once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers import run_program


def test_importing_pygo_starts_nothing() -> None:
    program = run_program(
        """
        import os, signal, sys, threading
        before = [signal.getsignal(number) for number in signal.valid_signals()]
        import pygo, pygo.runtime
        print(len(os.listdir("/proc/self/task")), threading.active_count())
        print(before == [signal.getsignal(number) for number in signal.valid_signals()])
        """
    ).ok()
    threads, signals = program.out.splitlines()
    assert threads == "1 1"
    assert signals == "True"


def test_an_unused_runtime_can_be_asked_about() -> None:
    program = run_program(
        """
        import io, pygo
        pygo.runtime.workers()
        pygo.runtime.stats()
        pygo.runtime.dump(file=io.StringIO())
        assert pygo.all_tasks() == []
        assert pygo.current_task() is None
        pygo.Channel(1).try_send(1)
        pygo.WaitGroup().wait()
        print(pygo.runtime.stats().live, pygo.runtime.stats().spawned)
        """
    ).ok()
    assert program.out == "0 0\n"


def test_every_name_of_all_exists_and_star_import_works() -> None:
    program = run_program(
        """
        from pygo import *
        import pygo
        assert pygo.__all__, "no __all__"
        for name in pygo.__all__:
            assert getattr(pygo, name) is globals()[name], name
        print(spawn(int, "3").join())
        """
    ).ok()
    assert program.out == "3\n"


def test_the_version_is_a_text() -> None:
    import pygo

    assert isinstance(pygo.__version__, str)
    assert pygo.__version__[0].isdigit()


def test_reloading_and_importing_twice_keep_one_runtime() -> None:
    program = run_program(
        """
        import importlib, sys, pygo
        ch = pygo.Channel()
        task = pygo.spawn(ch.recv)
        try:
            importlib.reload(pygo)
        except ImportError:
            pass
        ch.send(3)
        print(task.join())
        names = [name for name in sys.modules if name == "pygo" or name.startswith("pygo.")]
        saved = {name: sys.modules.pop(name) for name in names}
        try:
            import pygo as again
            print(again.spawn(int, "4").join())
        except ImportError:
            print(4)
        """
    ).ok()
    assert program.out == "3\n4\n"


@pytest.mark.parametrize("workers", ["1", "2", "4", "16"])
def test_a_hundred_tasks_import_one_slow_and_two_cyclic_modules(workers: str, tmp_path: Path) -> None:
    """No false deadlock, no half-built module, each executed once; once yielding, once blocking while they load."""
    for name, pause in (("yielding", "pygo.sleep(0.05)"), ("blocking", "time.sleep(0.05)")):
        (tmp_path / f"slow_{name}.py").write_text(
            f"import time, pygo, counter\ncounter.executed.append(__name__)\n"
            f"first = 1\n{pause}\npygo.yield_now()\nlast = 2\n"
        )
        for one, other in (("left", "right"), ("right", "left")):
            (tmp_path / f"{one}_{name}.py").write_text(
                f"import time, pygo, counter\ncounter.executed.append(__name__)\n{pause}\n"
                f"import {other}_{name} as other\npygo.yield_now()\ncomplete = True\n"
            )
    (tmp_path / "counter.py").write_text("executed = []\n")
    program = run_program(
        """
        import collections, importlib, sys
        sys.path.insert(0, sys.argv[1])
        import counter, pygo

        def slow(name):
            module = importlib.import_module(name)
            return module.first + module.last

        def cyclic(name):
            return importlib.import_module(name).complete

        for kind in ("yielding", "blocking"):
            tasks = [pygo.spawn(slow, f"slow_{kind}") for _ in range(100)]
            assert [task.join(timeout=20) for task in tasks] == [3] * 100
            tasks = [pygo.spawn(cyclic, f"{side}_{kind}") for _ in range(50) for side in ("left", "right")]
            assert all(task.join(timeout=20) for task in tasks)
        print(sorted(collections.Counter(counter.executed).items()))
        """,
        str(tmp_path),
        env={"PYGO_WORKERS": workers},
        timeout=60,
    ).ok()
    names = sorted(f"{module}_{kind}" for module in ("slow", "left", "right") for kind in ("yielding", "blocking"))
    assert program.out == f"{[(name, 1) for name in names]}\n"


def test_tasks_import_different_modules_of_the_library_at_once() -> None:
    program = run_program(
        """
        import importlib, sys, pygo
        names = '''
        argparse ast base64 calendar cmd code codecs configparser copy csv ctypes dataclasses
        datetime decimal difflib dis doctest email.message fractions ftplib getpass gettext glob
        gzip hashlib html.parser http.client http.server imaplib ipaddress json locale logging
        logging.config lzma mailbox mimetypes multiprocessing.pool optparse pdb pickle platform
        plistlib pprint pydoc queue random secrets shelve shlex smtplib socketserver sqlite3 ssl
        statistics subprocess tarfile tempfile timeit tokenize trace unittest urllib.request uuid
        wave xml.dom.minidom xml.etree.ElementTree xmlrpc.client zipfile zoneinfo asyncio
        concurrent.futures
        '''.split()
        tasks = {name: pygo.spawn(importlib.import_module, name) for name in names * 3}
        for name, task in tasks.items():
            assert task.join(timeout=60).__name__ == name
        print("end")
        """,
        timeout=70,
    ).ok()
    assert program.out == "end\n"


def test_a_thread_and_tasks_import_one_module_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\nfirst = 1\ntime.sleep(0.2)\nlast = 2\n")
    program = run_program(
        """
        import importlib, sys, threading
        sys.path.insert(0, sys.argv[1])
        import pygo
        seen = pygo.Channel(30)

        def body():
            seen.send(importlib.import_module("slow").last)

        threads = [threading.Thread(target=body) for _ in range(10)]
        tasks = []
        for thread in threads:
            thread.start()
            tasks.append(pygo.spawn(body))
        body()
        for thread in threads:
            thread.join()
        for task in tasks:
            task.join(timeout=20)
        print([seen.recv() for _ in range(21)])
        """,
        str(tmp_path),
    ).ok()
    assert program.out == f"{[2] * 21}\n"


def test_a_failing_import_fails_in_every_task(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import pygo\npygo.sleep(0.02)\nraise ValueError('broken')\n")
    program = run_program(
        """
        import importlib, sys
        sys.path.insert(0, sys.argv[1])
        import pygo
        tasks = [pygo.spawn(importlib.import_module, "broken") for _ in range(20)]
        print({repr(task.exception(timeout=20)) for task in tasks})
        """,
        str(tmp_path),
    ).ok()
    assert program.out == "{\"ValueError('broken')\"}\n"


SUBINTERPRETER = """
import os, sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
{before}
readable, writable = os.pipe()
source = '''
import os, sys
sys.path[:] = {path!r}
try:
    import pygo
except ImportError as exc:
    text = "refused: " + str(exc)
else:
    text = "imported"
os.write({writable}, text.encode())
'''.replace("{path!r}", repr(sys.path)).replace("{writable}", str(writable))
for arguments in {arguments}:
    interpreter = interpreters.create(*arguments)
    if sys.version_info >= (3, 13):
        interpreters.exec(interpreter, source)
    else:
        interpreters.run_string(interpreter, source)
    print(os.read(readable, 1000).decode())
    interpreters.destroy(interpreter)
{after}
"""


@pytest.mark.parametrize("main_too", [False, True])
def test_subinterpreters_are_refused_with_a_clear_message(main_too: bool) -> None:
    arguments = "[(), ('legacy',)]" if sys.version_info >= (3, 13) else "[()]"
    source = (
        SUBINTERPRETER.replace("{arguments}", arguments)
        .replace("{before}", "import pygo; pygo.spawn(int).join()" if main_too else "")
        .replace("{after}", "import pygo; assert pygo.spawn(int, '3').join() == 3")
    )
    program = run_program(source, options=("-W", "ignore")).ok()
    lines = program.out.splitlines()
    assert len(lines) == (2 if sys.version_info >= (3, 13) else 1)
    for line in lines:
        assert line.startswith("refused: ")
        assert "interpreter" in line
