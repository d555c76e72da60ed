"""For gdb: the stacks of suspended tasks.

    gdb -p PID -x tasks_in_gdb.py -ex pygo-bt -batch

`pygo-bt` prints the C stack of each task that is suspended, and `pygo-bt COMMAND` runs another command of gdb
(`py-bt`, say) on each. Running tasks are on their OS threads: `thread apply all bt`.

The frame of pg_switch at a suspended stack pointer is that of csrc/machine/switch_*.S: its registers are put into the
selected thread's for the time of the command, and then back.
"""

import gdb  # pyright: ignore[reportMissingImports]

# register: offset from the suspended stack pointer; and the size of the frame
FRAMES = {
    "i386:x86-64": ({"r15": 8, "r14": 16, "r13": 24, "r12": 32, "rbx": 40, "rbp": 48, "rip": 56}, "rsp", 64),
    "aarch64": ({f"x{n}": 16 + 8 * (n - 19) for n in range(19, 30)} | {"pc": 104, "x30": 104}, "sp", 176),
}


def suspended_fibers():
    """Those with a task that no worker runs."""
    sched = gdb.parse_and_eval("&pg_the_sched")
    fiber_type = gdb.lookup_type("pg_fiber")
    offset = next(field.bitpos // 8 for field in fiber_type.fields() if field.name == "all")
    head = sched["fibers"].address
    node = sched["fibers"]["next"]
    while node != head:
        fiber = gdb.Value(int(node) - offset).cast(fiber_type.pointer())
        if fiber["task"] and fiber["worker"]["current"] != fiber:
            yield fiber
        node = node["next"]


class PygoBacktrace(gdb.Command):
    """pygo-bt [COMMAND]: run a command of gdb, `bt` if none is given, on the stack of each suspended task."""

    def __init__(self):
        super().__init__("pygo-bt", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        frame = gdb.newest_frame()
        registers, stack_pointer, size = FRAMES[frame.architecture().name()]
        names = [*registers, stack_pointer]
        frame.select()
        before = {name: int(frame.read_register(name)) for name in names}
        for fiber in list(suspended_fibers()):
            print(f"\nFiber {int(fiber):#x}, task record {int(fiber['task']):#x}")
            pointer = int(fiber["sp"])
            words = gdb.selected_inferior().read_memory(pointer, size)
            values = {name: int.from_bytes(words[at : at + 8], "little") for name, at in registers.items()}
            try:
                self.load(values | {stack_pointer: pointer + size})
                gdb.execute(argument or "bt")
            finally:
                self.load(before)

    def load(self, values):
        for name, value in values.items():
            gdb.execute(f"set ${name} = {value:#x}")


PygoBacktrace()
