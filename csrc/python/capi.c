/* The functions that cffi exposes. */
#include "python/capi.h"

#include "machine/switch_config.h"
#include "os/os.h"
#include "python/objects.h"

void pygo_read_stats(pygo_stats *stats)
{
    pg_sched_stats core;
    pg_sched_read_stats(&core);
    *stats = (pygo_stats){
        .workers = core.workers,
        .threads = core.threads,
        .blocked = core.blocked,
        .idle = core.idle,
        .permits_free = core.permits_free,
        .spawned = task_started_count(),
        .finished = task_started_count() - task_live_count(),
        .switches = core.switches,
        .steals = core.steals,
        .handoffs = core.handoffs,
        .parks = core.parks,
        .fresh_starts = core.fresh_starts,
        .ready = core.ready,
        .fibers = core.fibers,
        .fibers_pooled = core.fibers_pooled,
        .timers = core.timers,
        .starved = core.starved,
        .stacks = core.stacks.in_use,
        .stacks_cached = core.stacks.cached,
        .stack_bytes = core.stacks.mapped_bytes,
        .stacks_unguarded = core.stacks.unguarded,
        .live = task_live_count(),
    };
}

int pygo_workers(void) { return pg_sched_workers(); }
int pygo_set_workers(int workers) { return pg_sched_set_workers(workers); }
int pygo_cpu_count(void) { return pg_cpu_count(); }

int pygo_set_default_stack_size(size_t size)
{
    enum { LEAST_ASKED = 64 * 1024 }; /* the same in all versions */
    if (size >= LEAST_ASKED && size < INTERP_LEAST_STACK) size = INTERP_LEAST_STACK;
    return pg_stack_set_default_size(size);
}

size_t pygo_default_stack_size(void) { return pg_stack_default_size(); }
void pygo_set_seed(int on, unsigned long long seed) { pg_sched_set_seed(on != 0, seed); }
void pygo_inject_stale_wakes(unsigned every) { pg_sched_inject_stale_wakes(every); }
void pygo_hold_monitor(int on) { pg_sched_hold_monitor(on != 0); }
void pygo_set_signal_slice(int64_t nanos) { pg_sched_set_signal_slice(nanos); }
void pygo_outside_add(int change) { pg_sched_outside_add(change); }
void pygo_set_scavenge_interval(int64_t nanos) { pg_sched_set_scavenge_interval(nanos); }
int pygo_set_watchdog(int64_t nanos) { return pg_sched_set_watchdog(nanos); }
void pygo_set_trace(int64_t nanos) { pg_sched_set_trace(nanos); }

int pygo_switch_keeps_gil(void) { return interp_switch_keeps_gil(); }

int pygo_has_portable_switch(void)
{
#ifdef PG_SWITCH_PORTABLE
    return 1;
#else
    return 0;
#endif
}
