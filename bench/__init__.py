"""Benchmarks of pygo beside its peers.

    python -m bench list                     the workloads, and the systems installed here
    python -m bench compare --markdown FILE --svg FILE --json FILE
                                             everything, interleaved: one table of figures and ratios
    python -m bench bars                     what the project promises, and whether this machine shows it
    python -m bench run pygo ping-pong       one measurement, as JSON
    pytest bench --benchmark-only            small sizes, for comparing one commit with another

`--quick` takes small sizes, `--only WORKLOAD ...` some workloads, `--rounds N` other than five measurements of each.
Needs the extra `bench`; a peer that is not installed is left out and named.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What is measured is the installed pygo. The tree beside this package has the same name but, after a plain
# `pip install .`, no compiled core: it must not come first.
sys.path[:] = [*(entry for entry in sys.path if Path(entry).resolve() != ROOT), str(ROOT)]
