/* Configuration, errors, fatal ends: what every other file may include.
 *
 * Return codes are negative (one table, below); 0 and above is success. A broken invariant ends the process with a
 * message that names the function, in release builds too: a scheduler that goes on with a broken queue loses tasks
 * silently, which is worse.
 */
#ifndef PG_BASE_H
#define PG_BASE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PG_API __attribute__((visibility("hidden")))
#define PG_NOINLINE __attribute__((noinline))
#define PG_UNUSED __attribute__((unused))
#define PG_LIKELY(x) __builtin_expect(!!(x), 1)
#define PG_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define PG_CACHE_LINE 64
#define PG_ALIGNED(n) __attribute__((aligned(n)))

#if defined(__SANITIZE_THREAD__)
#define PG_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PG_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define PG_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PG_ASAN 1
#endif
#endif

/* Outcomes of the core. */
enum {
    PG_OK = 0,
    PG_ENOMEM = -1,       /* the system refused memory, a stack or a thread */
    PG_ECLOSED = -2,      /* the channel is closed (and, for a receive, drained) */
    PG_ETIMEDOUT = -3,    /* the deadline passed first */
    PG_EAGAIN = -4,       /* a try-operation would have to wait */
    PG_EINTERRUPTED = -5, /* the thread's interrupt hook asked to give the wait up */
    PG_EINVAL = -6,       /* misuse by the caller */
    PG_ESTOPPED = -7,     /* the runtime has ended */
    PG_ECANCELED = -8,    /* the waiter's alarm went off, and its hook gave the wait up */
};

/* Deadlines are absolute nanoseconds on the monotonic clock. */
typedef int64_t pg_nanos;
#define PG_FOREVER INT64_MAX
#define PG_NEVER_WAIT INT64_MIN /* a deadline that has always passed: try once */
#define PG_SECOND ((pg_nanos)1000000000)

#define pg_container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

__attribute__((noreturn, format(printf, 2, 3))) void pg_fatal_at(const char *function, const char *format, ...);
#define pg_fatal(...) pg_fatal_at(__func__, __VA_ARGS__)
#define pg_check(condition)                                                                                           \
    do {                                                                                                              \
        if (PG_UNLIKELY(!(condition))) pg_fatal_at(__func__, "broken invariant: %s", #condition);                     \
    } while (0)

const char *pg_error_name(int code);

#endif
