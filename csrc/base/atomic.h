/* Atomics with the memory order in the name.
 *
 * Store-load handshakes are written with sequentially consistent operations on both sides; where one side is a plain
 * release store on a hot path (the tail of a run queue), pg_fence_seqcst stands after it. ThreadSanitizer does not model
 * fences, but none of them orders non-atomic data.
 */
#ifndef PG_ATOMIC_H
#define PG_ATOMIC_H

#include <stdatomic.h>

#define pg_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define pg_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define pg_load_seqcst(p) atomic_load_explicit((p), memory_order_seq_cst)
#define pg_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define pg_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define pg_store_seqcst(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)
#define pg_add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define pg_add_seqcst(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define pg_exchange_acquire(p, v) atomic_exchange_explicit((p), (v), memory_order_acquire)
#define pg_exchange_acqrel(p, v) atomic_exchange_explicit((p), (v), memory_order_acq_rel)
#define pg_exchange_seqcst(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)
#define pg_cas_acqrel(p, expected, v)                                                                                 \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel, memory_order_acquire)
#define pg_cas_seqcst(p, expected, v)                                                                                 \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_seq_cst, memory_order_seq_cst)

/* Plain fields of who owns them, for the few who look at others': they make do with what is outdated at once. */
#define pg_peek(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define pg_poke(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)

#define pg_fence_seqcst() atomic_thread_fence(memory_order_seq_cst)

/* Counters with a single writer: no locked instruction, readers see a recent value. */
#define pg_count(p) pg_store_relaxed((p), pg_load_relaxed(p) + 1)

static inline void pg_cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* yield is a no-op on most cores; isb waits about as long as pause */
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

#endif
