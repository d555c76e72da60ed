"""The edges of a process, as programs: what may end, fork or be signalled, in which state of its tasks.

One table, `EDGES`; `edge_runs.py` runs its entries as often as one likes, `test_edges.py` a few times each.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Ending:
    """How a program is to end: its exit code, its output, and what stands in its standard error (empty: nothing)."""

    statement: str = ""
    code: int = 0
    out: str = "end\n"
    err: str = ""


@dataclass(frozen=True)
class Edge:
    """A program and the ways in which it can end; each run takes the next one."""

    source: str
    endings: list[Ending] = field(default_factory=lambda: [Ending()])

    def program(self, run: int) -> tuple[str, Ending]:
        ending = self.endings[run % len(self.endings)]
        return PRELUDE + self.source + "\n" + ending.statement + "\n", ending


PRELUDE = '''
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which are what this is about
import atexit, ctypes, faulthandler, gc, multiprocessing, os, random, select, signal, subprocess, sys, tempfile
import threading, time
import pygo, pygo.sync

MAY_START = sys.version_info[:2] != (3, 12)  # threads and processes in handlers of the exit, which 3.12 refuses
shared, started = pygo.Channel(), pygo.WaitGroup()
keep = []

def launch(body, count=4):
    """Tasks that have begun: from here on each is in `body`."""
    def begin():
        started.done()
        body()
    started.add(count)
    tasks = [pygo.spawn(begin) for _ in range(count)]
    keep.extend(tasks)
    started.wait(timeout=25)
    return tasks

def some_time():
    """The moment differs from run to run."""
    if random.random() < 0.7:
        time.sleep(random.random() * 0.005)

def suite(threads=True):
    """Something of everything, for a runtime that must be as new."""
    ch, group, lock = pygo.Channel(2), pygo.WaitGroup(), pygo.sync.Lock()
    def locked():
        with lock:
            pygo.yield_now()
    tasks = [pygo.spawn(ch.recv, timeout=25) for _ in range(8)]
    for number in range(8):
        ch.send(number, timeout=25)
    assert sorted(task.join(timeout=25) for task in tasks) == list(range(8))
    for _ in range(4):
        group.go(time.sleep, 0.0005)
        group.go(pygo.sleep, 0.0005)
        group.go(locked)
    group.wait(timeout=25)
    assert isinstance(pygo.after(0.0005).recv(timeout=25), float)
    fired = pygo.Channel(1)
    pygo.Timer(0.0005, lambda: fired.send(7))
    assert fired.recv(timeout=25) == 7
    with pygo.timeout(25), pygo.TaskGroup() as tg:
        got = [tg.spawn(int, n) for n in range(4)]
    assert [task.join() for task in got] == [0, 1, 2, 3]
    assert pygo.select(pygo.send(ch, 1), timeout=25).index == 0
    receive = lambda: pygo.spawn(ch.recv).join(timeout=25)
    if threads:
        thread = threading.Thread(target=receive)
        thread.start()
        thread.join()
    else:
        receive()
    assert len(ch) == 0

def wait_for(pid, code=0):
    """As a task or as a thread, for the end of a child."""
    deadline = time.monotonic() + 25
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == code, (os.waitstatus_to_exitcode(status), code)
            return
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGABRT)
            raise AssertionError("the child hangs")
        pygo.sleep(0.001)

def fork(body=suite, code=0, leave=os._exit):
    pid = os.fork()
    if pid:
        return wait_for(pid, code)
    signal.alarm(20)  # should the parent be killed
    status = 99
    try:
        body()
        status = code
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        leave(status)

def thread(body):
    """Run it on a thread of its own and wait for that."""
    ended = []
    def run():
        body()
        ended.append(True)
    made = threading.Thread(target=run)
    made.start()
    made.join()
    assert ended

def task(body):
    pygo.spawn(body).join(timeout=28)
'''

# ---- exit: what the tasks are doing

STATES = {
    "ready": "launch(lambda: [pygo.yield_now() for _ in iter(int, 1)])",
    "running": "launch(lambda: [None for _ in iter(int, 1)], 2)",
    "parked": "launch(lambda: pygo.Channel().recv(), 300)",
    "selecting": "launch(lambda: pygo.select(pygo.recv(shared), pygo.recv(pygo.Channel())), 50)",
    "sleeping": "launch(lambda: pygo.sleep(1000), 50)",
    "timers ring": "launch(lambda: [pygo.sleep(0.0001) for _ in iter(int, 1)], 20)",
    "timers pending": "keep += [pygo.Timer(1000), pygo.Timer(1000, print), pygo.after(1000)]",
    "timers start tasks": "keep += [pygo.Timer(0.0005 * n, gc.collect) for n in range(20)]",
    "tickers": "keep += [pygo.Ticker(0.0002) for _ in range(20)]\nlaunch(lambda: list(keep[0].channel), 1)",
    "in blocking calls": "launch(lambda: time.sleep(1000))",
    "in blocking calls that end": "launch(lambda: [time.sleep(0.0005) for _ in iter(int, 1)])",
    "in os.read": "launch(lambda: os.read(os.pipe()[0], 1))",
    "in select.select": "launch(lambda: select.select([os.pipe()[0]], [], []))",
    "in finally": """
def body():
    try:
        pygo.exit_task()
    finally:
        pygo.Channel().recv()
launch(body)
""",
    "holding locks": """
lock, rlock, outer = pygo.sync.Lock(), threading.RLock(), threading.Lock()
def body():
    with lock, rlock, outer:
        pygo.Channel().recv()
launch(body, 1)
launch(lambda: lock.acquire())
launch(lambda: rlock.acquire(), 2)
""",
    "waiting in sync": """
event, barrier, queue = pygo.sync.Event(), pygo.sync.Barrier(99), pygo.sync.Queue(1)
semaphore, condition = pygo.sync.Semaphore(0), pygo.sync.Condition()
def condition_wait():
    with condition:
        condition.wait()
for wait in (event.wait, barrier.wait, queue.get, semaphore.acquire, condition_wait):
    launch(wait, 2)
""",
    "being cancelled": """
def body():
    while True:
        try:
            pygo.sleep(1000)
        except pygo.Cancelled:
            with pygo.shield():
                pygo.sleep(0.001)
for one in launch(body, 20):
    one.cancel()
""",
    "in a TaskGroup": """
def body():
    with pygo.TaskGroup() as tg:
        for _ in range(5):
            tg.spawn(pygo.sleep, 1000)
launch(body)
""",
    "under a timeout": """
def body():
    with pygo.timeout(1000), pygo.timeout(0.001), pygo.shield():
        pygo.sleep(1000)
launch(body)
""",
    "in to_thread": """
inside = pygo.WaitGroup()
inside.add(4)
launch(lambda: pygo.to_thread(lambda: (inside.done(), time.sleep(0.01))))
inside.wait(timeout=25)
""",
    "in call_on_stack": "launch(lambda: pygo.call_on_stack(1 << 20, pygo.Channel().recv))",
    "in a C callback": """
compare_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
def body():
    items = (ctypes.c_int * 4)(3, 1, 2, 0)
    ctypes.CDLL(None).qsort(items, 4, 4, compare_type(lambda a, b: pygo.Channel().recv()))
launch(body)
""",
    "in a C callback that blocks": "launch(lambda: sorted([2, 1], key=lambda one: time.sleep(1000)))",
    "in __del__": """
class Late:
    def __del__(self):
        started.done()
        pygo.Channel().recv()
started.add(4)
keep += [pygo.spawn(lambda: Late() and None) for _ in range(4)]
started.wait(timeout=25)
""",
    "importing": """
folder = tempfile.TemporaryDirectory()
with open(os.path.join(folder.name, "slow_module.py"), "w") as file:
    file.write("import __main__\\n__main__.started.done()\\n__main__.shared.recv()\\n")
sys.path.insert(0, folder.name)
started.add()
keep += [pygo.spawn(__import__, "slow_module") for _ in range(4)]
started.wait(timeout=25)
""",
    "exchanging": """
launch(lambda: [shared.send(1) for _ in iter(int, 1)])
launch(lambda: list(shared))
""",
    "spawning": "launch(lambda: [pygo.spawn(int).join() for _ in iter(int, 1)])",
    "spawned, not begun": "keep += [pygo.spawn(int) for _ in range(5000)]",
    "failing": "keep += [pygo.spawn(lambda: pygo.exit_task(1 / len(keep))) for _ in range(50)]",
    "collecting": "launch(lambda: [gc.collect() for _ in iter(int, 1)], 2)",
    "pinned": """
def body():
    with pygo.lock_thread():
        pygo.Channel().recv()
launch(body)
""",
    "deep": """
def deep(n):
    return deep(n - 1) if n else pygo.Channel().recv()
launch(lambda: deep(150))
""",
    "beside daemon threads": """
def body():
    while True:
        try:
            shared.recv(timeout=0.0005)
        except TimeoutError:
            pass
for _ in range(4):
    threading.Thread(target=body, daemon=True).start()
launch(lambda: [shared.try_send(1) or pygo.yield_now() for _ in iter(int, 1)])
""",
    "beside threads in core calls": """
def body():
    while True:
        pygo.spawn(int).join()
        pygo.sleep(0.0001)
for _ in range(3):
    threading.Thread(target=body, daemon=True).start()
""",
    "nothing was started": "",
    "many workers come and go": """
def body():
    while True:
        pygo.runtime.set_workers(random.randrange(1, 20))
        time.sleep(0.0003)
launch(body)
""",
}

ENDINGS = [
    Ending('print("end")'),
    Ending("sys.exit(3)", 3, ""),
    Ending('raise ValueError("the end")', 1, "", "ValueError: the end"),
    Ending("pygo.spawn(sys.exit, 4)\npygo.sleep(30)", 4, ""),
    Ending("last = pygo.spawn(sys.exit, 'bye')\nlast.join()", 1, "", "bye"),
    Ending("os._exit(5)", 5, ""),
    Ending("pygo.spawn(os._exit, 6)\npygo.sleep(30)", 6, ""),
    Ending(
        "pygo.spawn(os.kill, os.getpid(), signal.SIGINT)\npygo.Channel().recv(timeout=30)", -2, "", "KeyboardInterrupt"
    ),
    Ending(
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(8))\nos.kill(os.getpid(), signal.SIGUSR1)\npygo.sleep(30)",
        8,
        "",
    ),
    Ending("atexit.register(lambda: (suite(MAY_START), print('end')))"),
    Ending(
        "atexit.register(lambda: (pygo.spawn(print, 'end').join(timeout=25), sys.exit(9)))", 0, "end\n", "SystemExit: 9"
    ),
    Ending("pygo.spawn(lambda: exec('import signal; signal.raise_signal(15)'))\npygo.sleep(30)", -15, ""),
    Ending(
        "pygo.spawn(lambda: (pygo.sleep(0.002), last.send(1)))\nlast = pygo.Channel()\n"
        "threading.Thread(target=lambda: (last.recv(timeout=25), print('end'))).start()"
    ),
    Ending("fork(lambda: None)\nprint('end')"),
    Ending("task(lambda: fork(lambda: None, leave=sys.exit))\nprint('end')"),
]

# ---- the ends of programs otherwise

PROGRAMS = {
    "exit during an import": Edge(
        """
folder = tempfile.TemporaryDirectory()
with open(os.path.join(folder.name, "ends.py"), "w") as file:
    file.write("import pygo, sys\\npygo.spawn(pygo.yield_now).join()\\nsys.exit(3)\\n")
sys.path.insert(0, folder.name)
""",
        [Ending("import ends", 3, ""), Ending("pygo.spawn(__import__, 'ends')\npygo.sleep(30)", 3, "")],
    ),
    "exit while a thread ends late": Edge(
        """
def late():
    done = pygo.Channel()
    pygo.spawn(lambda: (pygo.sleep(0.002), done.send(5)))
    print("end" if done.recv(timeout=25) == 5 else "lost")
threading.Thread(target=late).start()
""",
        [Ending(), Ending("sys.exit(3)", 3), Ending("1 / 0", 1, err="ZeroDivisionError")],
    ),
    "exit from a task while main joins a thread": Edge(
        """
gate = pygo.Channel()
other = threading.Thread(target=lambda: gate.recv(timeout=25))
other.start()
pygo.spawn(sys.exit, 4)
keep.append(pygo.Timer(0.01, lambda: gate.send(1)))
""",
        [Ending("other.join()\ntime.sleep(30)", 4, "")],
    ),
    "exit: finalizers wait and raise": Edge(
        """
class Late:
    def __init__(self):
        self.ch, self.task = pygo.Channel(1), pygo.spawn(pygo.Channel().recv)
    def __del__(self, pygo=pygo, spawn=pygo.spawn):
        self.ch.try_send(1)
        self.task.cancel()
        pygo.sleep(0.001)
        for wait in (self.task.join, pygo.Channel().recv, lambda: spawn(int).join(), pygo.sync.Event().wait):
            try:
                wait()
            except RuntimeError as error:
                assert "shutting down" in str(error), error
            except BaseException as error:  # before the very end
                assert isinstance(error, pygo.TaskCancelled), error
        raise ValueError("in a finalizer")
kept, cycle = Late(), Late()
cycle.itself = cycle
print("end", flush=True)
""",
        [Ending(err="ValueError: in a finalizer")],
    ),
    "exit: threads' own finalizers wait": Edge(
        """
own = threading.local()
class Late:
    def __del__(self):
        pygo.spawn(int).join(timeout=25)
        print("end")
def body():
    own.late = Late()
threading.Thread(target=body).start()
""",
    ),
    "exit: Ctrl-C twice while joining": Edge(
        """
def again():
    try:
        pygo.Channel().recv(timeout=30)
    finally:
        pygo.spawn(os.kill, os.getpid(), signal.SIGINT)
        pygo.Channel().recv(timeout=30)
pygo.spawn(os.kill, os.getpid(), signal.SIGINT)
""",
        [Ending("again()", -2, "", "KeyboardInterrupt")],
    ),
    "exit: handlers registered everywhere": Edge(
        """
@atexit.register
def first():
    print("end")

pygo.spawn(atexit.register, lambda: pygo.spawn(suite, MAY_START).join(timeout=25)).join()

@atexit.register
def last():
    suite(MAY_START)
    pygo.spawn(fork if MAY_START else int).join(timeout=28)
""",
    ),
    "exit: very many parked": Edge(
        "many = int(os.environ.get('EDGE_MANY', '2000'))\n"
        "keep += [pygo.spawn(shared.recv) for _ in range(many)]\n"
        "while shared.waiting_receivers < many:\n    time.sleep(0.002)",
        ENDINGS,
    ),
    # ---- fork
    "fork: three deep": Edge(
        """
def deeper(depth):
    suite()
    if depth:
        for place in (thread, task, lambda body: body()):
            place(lambda: fork(lambda: deeper(depth - 1)))
deeper(2)
print("end")
""",
    ),
    "fork: the child of a task ends by itself": Edge(
        """
def body(leave):
    pid = os.fork()
    if pid:
        return wait_for(pid, 7)
    suite()
    leave(7)
keep += [pygo.spawn(pygo.sleep, 1000) for _ in range(20)]
for leave in (sys.exit, os._exit, lambda code: fork(lambda: None, leave=sys.exit) or sys.exit(code)):
    task(lambda: body(leave))
print("end")
""",
    ),
    "fork: while workers start": Edge(
        """
for place in (lambda body: body(), thread):
    for _ in range(3):
        pygo.runtime.set_workers(random.randrange(1, 9))
        keep += [pygo.spawn(time.sleep, 0.001) for _ in range(10)]
        some_time()
        place(fork)
print("end")
""",
    ),
    "fork: in callbacks": Edge(
        """
class Late:
    def __del__(self):
        fork()
def callback(_):
    fork()
    shared.send(1)
task(lambda: Late() and None)
del_in_main = Late()
del del_in_main
pygo.spawn(int).add_done_callback(callback)
shared.recv(timeout=28)
pygo.Timer(0.001, lambda: callback(None))
shared.recv(timeout=28)
signal.signal(signal.SIGUSR1, lambda *_: fork())
os.kill(os.getpid(), signal.SIGUSR1)
pygo.spawn(sorted, [2, 1], key=lambda one: fork() or one).join(timeout=28)
task(lambda: pygo.call_on_stack(1 << 20, fork))
with pygo.timeout(25):
    task(fork)
""",
        [Ending("print('end')"), Ending("atexit.register(lambda: (MAY_START and fork(), print('end')))")],
    ),
    "fork: under scopes": Edge(
        """
def child():
    try:
        with pygo.timeout(0.005):
            fork(lambda: None)
            pygo.sleep(30)
    except TimeoutError:
        pass
    inner()
def inner():
    pid = -1
    try:
        with pygo.timeout(0.01):
            pid = os.fork()
            if pid == 0:
                pygo.Channel().recv()
            pygo.sleep(30)
    except TimeoutError:
        if pid == 0:
            os._exit(7)
    wait_for(pid, 7)
task(child)
inner()
print("end")
""",
    ),
    "posix_spawn and vfork": Edge(
        """
launch(lambda: [pygo.sleep(0.0001) for _ in iter(int, 1)])
launch(lambda: [pygo.spawn(int).join() for _ in iter(int, 1)])
def run():
    wait_for(os.posix_spawn("/bin/true", ["true"], {}))
    assert subprocess.run(["/bin/true"]).returncode == 0
    assert subprocess.run(["/bin/echo", "x"], capture_output=True).stdout == b"x\\n"
for place in (lambda body: body(), thread, task):
    place(run)
subprocess._USE_VFORK = subprocess._USE_POSIX_SPAWN = False
task(run)
run()
assert subprocess.run(["/bin/true"], preexec_fn=lambda: pygo.Channel(1).send(1)).returncode == 0
pygo.spawn(subprocess.run, ["/bin/true"], preexec_fn=lambda: pygo.Channel(1).send(1)).join(timeout=28)
print("end")
""",
    ),
    "subprocesses from many tasks": Edge(
        """
semaphore, ends = pygo.sync.Semaphore(8), []
def run(number):
    with semaphore:
        ends.append(subprocess.run(["/bin/sh", "-c", f"exit {number % 7}"]).returncode - number % 7)
with pygo.TaskGroup() as tg:
    for number in range(int(os.environ.get("EDGE_MANY", "2000")) // 100):
        tg.spawn(run, number)
assert len(ends) >= 20 and not any(ends)
print("end")
""",
    ),
}

for _place in ("main", "task", "thread"):
    _call = {"main": "fork()", "task": "task(fork)", "thread": "thread(fork)"}[_place]
    PROGRAMS[f"fork from a {_place}"] = Edge(
        "\n".join(
            [
                "chosen = random.sample(list(BUSINESS), 3)",
                "for name in chosen:",
                "    exec(BUSINESS[name], dict(globals(), keep=[]))",
                "for _ in range(3):",
                "    some_time()",
                f"    {_call}",
                "pygo.spawn(int).join(timeout=25)",
                "print('end')",
                "sys.stdout.flush()",
                "os._exit(0)",
            ]
        )
    )

# What forks meet: the states above but those that cannot be left by os._exit without a word.
BUSINESS = {name: source for name, source in STATES.items() if name not in ("failing",)}
for _name, _edge in list(PROGRAMS.items()):
    if "BUSINESS" in _edge.source:
        PROGRAMS[_name] = Edge(f"BUSINESS = {BUSINESS!r}\n" + _edge.source, _edge.endings)

_MULTIPROCESSING = """
def double(number):
    return pygo.spawn(lambda: number * 2).join(timeout=25)

def put(queue, number):
    suite()
    queue.put(double(number))

def use(method):
    from concurrent.futures import ProcessPoolExecutor
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    processes = [context.Process(target=put, args=(queue, n)) for n in range(2)]
    for process in processes:
        process.start()
    assert sorted(queue.get(timeout=28) for _ in processes) == [0, 2]
    for process in processes:
        process.join(28)
        assert process.exitcode == 0
    with context.Pool(2) as pool:
        assert pool.map(double, range(5)) == [0, 2, 4, 6, 8]
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(double, range(5))) == [0, 2, 4, 6, 8]

if __name__ == "__main__":
    launch(lambda: [pygo.sleep(0.001) for _ in iter(int, 1)])
"""
for _method in ("fork", "forkserver", "spawn"):
    PROGRAMS[f"multiprocessing with {_method}"] = Edge(
        _MULTIPROCESSING,
        [
            Ending(f"    use({_method!r})\n    print('end')"),
            Ending(f"    task(lambda: use({_method!r}))\n    print('end')"),
            Ending(f"    thread(lambda: use({_method!r}))\n    print('end')"),
        ],
    )

# ---- signals

PROGRAMS |= {
    "signals by the thousand": Edge(
        """
handled = []
def handler(number, frame):
    handled.append(number)
    shared.try_send(number)
for number in (signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
def body():
    for _ in range(30):
        os.kill(os.getpid(), random.choice([signal.SIGUSR1, signal.SIGUSR2]))
        time.sleep(0.0005)
        pygo.sleep(0.0005)
        pygo.spawn(os.read, os.open("/dev/zero", os.O_RDONLY), 10).join(timeout=25)
launch(body)
for one in keep:
    one.join(timeout=28)
signal.setitimer(signal.ITIMER_REAL, 0)
assert set(handled) == {signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2}
print("end")
""",
    ),
    "SIGCHLD beside tasks that wait for children": Edge(
        """
deaths = []
signal.signal(signal.SIGCHLD, lambda *_: deaths.append(1))
group = pygo.WaitGroup()
for number in range(10):
    group.go(subprocess.run, ["/bin/true"])
    group.go(task, fork) if number < 2 else None
group.wait(timeout=28)
while not deaths:
    pygo.sleep(0.001)
print("end")
""",
    ),
    "set_wakeup_fd read by a task": Edge(
        """
readable, writable = os.pipe()
os.set_blocking(writable, False)
signal.set_wakeup_fd(writable)
signal.signal(signal.SIGUSR1, lambda *_: None)
def body():
    return b"".join(os.read(readable, 1) for _ in range(5))
reader = pygo.spawn(body)
for _ in range(5):
    os.kill(os.getpid(), signal.SIGUSR1)
    pygo.sleep(0.001)
assert reader.join(timeout=25) == bytes([signal.SIGUSR1]) * 5
print("end")
""",
    ),
    "a mask set before the first task": Edge(
        """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
task(suite)
launch(lambda: [pygo.sleep(0.001) for _ in iter(int, 1)])
for _ in range(5):
    pygo.spawn(os.kill, os.getpid(), signal.SIGUSR1).join(timeout=25)
    assert signal.sigwait({signal.SIGUSR1}) == signal.SIGUSR1
os.kill(os.getpid(), signal.SIGTERM)
assert signal.sigpending() == {signal.SIGTERM}
print("end")
""",
    ),
    "handlers raise out of every wait": Edge(
        """
class Stop(Exception):
    pass
def handler(number, frame):
    raise Stop
signal.signal(signal.SIGALRM, handler)
group = pygo.WaitGroup()
group.add()
launch(lambda: [pygo.yield_now() for _ in iter(int, 1)], 2)
for wait in (shared.recv, lambda: shared.send(1), group.wait, keep[0].join, lambda: pygo.sleep(30),
             lambda: pygo.select(pygo.recv(shared)), pygo.sync.Event().wait, pygo.sync.Queue().get):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        wait()
    except Stop:
        continue
    raise AssertionError(wait)
assert (shared.waiting_receivers, shared.waiting_senders) == (0, 0)
print("end")
""",
    ),
    "faulthandler dumps many tasks": Edge(
        """
log = tempfile.TemporaryFile()
faulthandler.enable(log)
faulthandler.register(signal.SIGUSR1, log, all_threads=True)
launch(lambda: pygo.Channel().recv(), 150)
launch(lambda: time.sleep(1000))
faulthandler.dump_traceback_later(0.001, repeat=True, file=log)
for _ in range(10):
    os.kill(os.getpid(), signal.SIGUSR1)
    faulthandler.dump_traceback(log)
    pygo.sleep(0.001)
faulthandler.cancel_dump_traceback_later()
assert log.seek(0, 2) > 10_000
print("end")
""",
        [Ending(), Ending("faulthandler._sigabrt()", -6)],
    ),
    "subinterpreters are refused": Edge(
        """
code = "try:\\n import pygo\\nexcept ImportError:\\n pass\\nelse:\\n raise AssertionError"
launch(lambda: [pygo.sleep(0.0005) for _ in iter(int, 1)])
from test.support import run_in_subinterp
assert run_in_subinterp(code) == 0
task(suite)
print("end")
""",
        [Ending()],
    ),
}

EDGES: dict[str, Edge] = {
    **{f"exit: {name}": Edge(f"{source}\nsome_time()", ENDINGS) for name, source in STATES.items()},
    **PROGRAMS,
}
