/* The explorer itself, with the classical small programs: exactly the outcomes that C11 allows are found, and bugs of
 * each kind. Run with and without --unreduced; the outcomes must be the same. */
#include "explore.h"

#include <stdio.h>
#include <string.h>

#include "base/atomic.h"
#include "os/os.h"

static atomic_uint x, y, z;
static int plain, other;
static unsigned a, b, c, d; /* what was read */
static uint64_t outcomes;   /* bit set of a + 2b + 4c + 8d, or what `check` says */

static void setup(void)
{
    x = y = z = 0;
    plain = other = 0;
    a = b = c = d = 0;
}

static void note(void) { outcomes |= 1ull << (a + 2 * b + 4 * c + 8 * d); }
static void nothing(void) {}

static void expect(uint64_t expected)
{
    unsigned long long found = outcomes, allowed = expected;
    if (found != allowed) mc_fail("outcomes %#llx, not %#llx", found, allowed);
    outcomes = 0;
}
enum { OUT_00 = 1, OUT_10 = 2, OUT_01 = 4, OUT_11 = 8 }; /* a b */

/* ---- store buffering ---- */

#define THREAD(name, body)                                                                                            \
    static void name(void) { body; }
#define EXPECT(name, set)                                                                                             \
    static void name(void) { expect(set); }

THREAD(sb_relaxed_1, pg_store_relaxed(&x, 1); a = pg_load_relaxed(&y))
THREAD(sb_relaxed_2, pg_store_relaxed(&y, 1); b = pg_load_relaxed(&x))
THREAD(sb_weak_1, pg_store_release(&x, 1); a = pg_load_acquire(&y))
THREAD(sb_weak_2, pg_store_release(&y, 1); b = pg_load_acquire(&x))
THREAD(sb_strong_1, pg_store_seqcst(&x, 1); a = pg_load_seqcst(&y))
THREAD(sb_strong_2, pg_store_seqcst(&y, 1); b = pg_load_seqcst(&x))
THREAD(sb_fence_1, pg_store_relaxed(&x, 1); pg_fence_seqcst(); a = pg_load_relaxed(&y))
THREAD(sb_fence_2, pg_store_relaxed(&y, 1); pg_fence_seqcst(); b = pg_load_relaxed(&x))
THREAD(sb_change_1, pg_exchange_acqrel(&x, 1); a = pg_load_relaxed(&y))
THREAD(sb_change_2, pg_exchange_acqrel(&y, 1); b = pg_load_relaxed(&x))
EXPECT(any_two, OUT_00 | OUT_01 | OUT_10 | OUT_11)
EXPECT(not_both_old, OUT_01 | OUT_10 | OUT_11)

/* ---- message passing ---- */

THREAD(mp_relaxed_put, pg_store_relaxed(&x, 1); pg_store_relaxed(&y, 1))
THREAD(mp_relaxed_get, a = pg_load_relaxed(&y); b = pg_load_relaxed(&x))
THREAD(mp_put, pg_store_relaxed(&x, 1); pg_store_release(&y, 1))
THREAD(mp_get, a = pg_load_acquire(&y); b = pg_load_relaxed(&x))
THREAD(mp_fence_get, a = pg_load_relaxed(&y); pg_fence_seqcst(); b = pg_load_relaxed(&x))
THREAD(mp_fence_put, pg_store_relaxed(&x, 1); pg_fence_seqcst(); pg_store_relaxed(&y, 1))
EXPECT(no_flag_without_message, OUT_00 | OUT_01 | OUT_11)

THREAD(plain_put, plain = 1; pg_store_release(&y, 1))
THREAD(plain_put_relaxed, plain = 1; pg_store_relaxed(&y, 1))
THREAD(plain_get, if (pg_load_acquire(&y)) a = (unsigned)plain)
THREAD(plain_get_relaxed, if (pg_load_relaxed(&y)) a = (unsigned)plain)
THREAD(plain_get_fence, if (pg_load_relaxed(&y)) { pg_fence_seqcst(); a = (unsigned)plain; })

/* A change in between carries the release on, a store does not. */
THREAD(between_add, pg_add_relaxed(&y, 1))
THREAD(between_store, if (pg_load_relaxed(&y) == 1) pg_store_relaxed(&y, 2))
THREAD(plain_get_2, if (pg_load_acquire(&y) == 2) a = (unsigned)plain)

/* ---- coherence, causality, independent reads ---- */

THREAD(one, pg_store_relaxed(&x, 1))
THREAD(read_twice, a = pg_load_relaxed(&x); b = pg_load_relaxed(&x))
THREAD(wrc_2, a = pg_load_acquire(&x); if (a) pg_store_release(&y, 1))
THREAD(wrc_3, b = pg_load_acquire(&y); c = pg_load_relaxed(&x))
EXPECT(never_back, OUT_00 | OUT_01 | OUT_11)
EXPECT(wrc_outcomes, 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7)

THREAD(iriw_x, pg_store_release(&x, 1))
THREAD(iriw_y, pg_store_release(&y, 1))
THREAD(iriw_xy, a = pg_load_acquire(&x); b = pg_load_acquire(&y))
THREAD(iriw_yx, c = pg_load_acquire(&y); d = pg_load_acquire(&x))
THREAD(iriw_strong_x, pg_store_seqcst(&x, 1))
THREAD(iriw_strong_y, pg_store_seqcst(&y, 1))
THREAD(iriw_strong_xy, a = pg_load_seqcst(&x); b = pg_load_seqcst(&y))
THREAD(iriw_strong_yx, c = pg_load_seqcst(&y); d = pg_load_seqcst(&x))
EXPECT(any_four, 0xffff)
EXPECT(but_one_way_only, 0xffff & ~(1 << 5)) /* a = 1, b = 0, c = 1, d = 0 */

THREAD(count_up, pg_add_relaxed(&x, 1))
static void three(void) { MC_CHECK(x == 3); }

/* ---- locks, futexes, tokens ---- */

static pg_lock lock, second_lock;
THREAD(lock_both, pg_lock_acquire(&lock); pg_lock_acquire(&second_lock); plain++; pg_lock_release(&second_lock);
       pg_lock_release(&lock))
THREAD(lock_both_reversed, pg_lock_acquire(&second_lock); pg_lock_acquire(&lock); plain++; pg_lock_release(&lock);
       pg_lock_release(&second_lock))
static void two(void) { MC_CHECK(plain == 2); }
THREAD(futex_wait, while (pg_load_acquire(&x) == 0) (void)pg_futex_wait(&x, 0, PG_FOREVER); a = (unsigned)plain)
THREAD(futex_wake, plain = 1; pg_store_release(&x, 1); pg_futex_wake(&x, 1))
THREAD(futex_wake_early, pg_futex_wake(&x, 1); plain = 1; pg_store_release(&x, 1))
static void got(void) { MC_CHECK(a == 1); }
THREAD(spin, while (pg_load_acquire(&x) == 0) pg_cpu_relax(); a = (unsigned)plain)
THREAD(loop, pg_store_relaxed(&x, 1); for (;;) __asm__ volatile(""))
THREAD(token_put, plain = 1; mc_token_put(&x))
THREAD(token_take, mc_token_take(&x); a = (unsigned)plain)

static atomic_uint *frame;
PG_NOINLINE static void leave_frame(void)
{
    atomic_uint here;
    pg_store_relaxed(&here, 0);
    frame = &here;
    pg_store_release(&x, 1);
    while (pg_load_acquire(&here) == 0) pg_cpu_relax();
}
static void framed(void)
{
    mc_frame_begin();
    leave_frame();
    mc_frame_end();
    pg_store_relaxed(&z, 1);
}
THREAD(touch_frame, while (pg_load_acquire(&x) == 0) pg_cpu_relax(); pg_store_release(frame, 1))
/* Found whichever comes first. */
THREAD(touch_frame_late, while (pg_load_acquire(&x) == 0) pg_cpu_relax(); pg_store_release(frame, 1);
       pg_store_release(frame, 2))

const mc_scenario mc_scenarios[] = {
    {"sb_relaxed", setup, {sb_relaxed_1, sb_relaxed_2}, note, any_two},
    {"sb_release_acquire", setup, {sb_weak_1, sb_weak_2}, note, any_two},
    {"sb_exchange", setup, {sb_change_1, sb_change_2}, note, any_two},
    {"sb_seqcst", setup, {sb_strong_1, sb_strong_2}, note, not_both_old},
    {"sb_fence", setup, {sb_fence_1, sb_fence_2}, note, not_both_old},
    {"sb_fence_and_seqcst", setup, {sb_fence_1, sb_strong_2}, note, not_both_old},
    {"sb_one_fence", setup, {sb_fence_1, sb_relaxed_2}, note, any_two},
    {"mp_relaxed", setup, {mp_relaxed_put, mp_relaxed_get}, note, any_two},
    {"mp_half_release", setup, {mp_put, mp_relaxed_get}, note, any_two},
    {"mp_half_acquire", setup, {mp_relaxed_put, mp_get}, note, any_two},
    {"mp", setup, {mp_put, mp_get}, note, no_flag_without_message},
    {"mp_fence", setup, {mp_put, mp_fence_get}, note, no_flag_without_message},
    {"mp_fences", setup, {mp_fence_put, mp_fence_get}, note, no_flag_without_message},
    {"corr", setup, {one, read_twice}, note, never_back},
    {"wrc", setup, {one, wrc_2, wrc_3}, note, wrc_outcomes},
    {"iriw", setup, {iriw_x, iriw_y, iriw_xy, iriw_yx}, note, any_four},
    {"iriw_seqcst", setup, {iriw_strong_x, iriw_strong_y, iriw_strong_xy, iriw_strong_yx}, note, but_one_way_only},
    {"counter", setup, {count_up, count_up, count_up}, three},
    {"plain_released", setup, {plain_put, plain_get}, nothing},
    {"plain_fenced", setup, {plain_put, plain_get_fence}, nothing},
    {"plain_release_carried_on", setup, {plain_put, between_add, plain_get_2}, nothing},
    {"locks", setup, {lock_both, lock_both}, two},
    {"futex", setup, {futex_wait, futex_wake}, got},
    {"spin", setup, {spin, futex_wake}, got},
    {"token", setup, {token_put, token_take}, got},
    {"frame", setup, {framed, touch_frame}, nothing},
    /* planted: each of these must fail */
    {"bad_plain_relaxed_store", setup, {plain_put_relaxed, plain_get}, nothing},
    {"bad_plain_relaxed_load", setup, {plain_put, plain_get_relaxed}, nothing},
    {"bad_plain_release_not_carried_on", setup, {plain_put, between_store, plain_get_2}, nothing},
    {"bad_lock_order", setup, {lock_both, lock_both_reversed}, two},
    {"bad_wake_before_store", setup, {futex_wait, futex_wake_early}, got},
    {"bad_spin_for_ever", setup, {spin, between_add}, nothing},
    {"bad_loop_without_steps", setup, {loop}, nothing},
    {"bad_frame", setup, {framed, touch_frame_late}, nothing},
    {.name = NULL},
};
