/* What cffi declares of the core: native channels and counters, for native code and for introspection. */
#pragma once
#include "sched/sched.h"

typedef struct pygo_stats {
    uint32_t workers, threads, blocked, idle, permits_free;
    uint64_t spawned, finished, switches, steals, handoffs, parks, fresh_starts;
    uint64_t ready, fibers, fibers_pooled, timers, starved;
    uint64_t stacks, stacks_cached, stack_bytes, stacks_unguarded, live;
} pygo_stats;

void pygo_read_stats(pygo_stats *stats);
int pygo_workers(void);
int pygo_set_workers(int workers);
int pygo_cpu_count(void);
int pygo_set_default_stack_size(size_t size);
size_t pygo_default_stack_size(void);
void pygo_set_seed(int on, unsigned long long seed);
void pygo_inject_stale_wakes(unsigned every);
void pygo_hold_monitor(int on);
void pygo_set_signal_slice(int64_t nanos);
void pygo_outside_add(int change);
void pygo_set_scavenge_interval(int64_t nanos);
int pygo_set_watchdog(int64_t nanos);
void pygo_set_trace(int64_t nanos);
int pygo_has_portable_switch(void);
int pygo_switch_keeps_gil(void);
