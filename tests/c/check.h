/* What the C tests share: checks that end the program, one line per case, threads, random numbers, child processes. */
#ifndef CHECK_H
#define CHECK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) check_failed(__FILE__, __LINE__, #condition);                                               \
    } while (0)

#define CHECK_EQ(left, right)                                                                                         \
    do {                                                                                                              \
        long long check_left = (long long)(left), check_right = (long long)(right);                                   \
        if (check_left != check_right) check_unequal(__FILE__, __LINE__, #left, check_left, #right, check_right);     \
    } while (0)

/* For a case that this system cannot show; leaves the test function. */
#define SKIP(reason)                                                                                                  \
    do {                                                                                                              \
        check_skipped = true;                                                                                         \
        printf("skip %s: %s\n", __func__, reason);                                                                    \
        return;                                                                                                       \
    } while (0)

static bool check_skipped;
static int check_workers; /* how many the scheduler has, 0 in tests without one */

/* CHECK_ONLY in the environment chooses a single case. */
static inline void check_run(void (*test)(void), const char *name)
{
    const char *only = getenv("CHECK_ONLY");
    if (only != NULL && strcmp(only, name) != 0) return;
    check_skipped = false;
    test();
    if (!check_skipped) printf("ok %s\n", name);
    fflush(stdout);
}
#define RUN(test) check_run(test, #test)

/* Sanitizers are slow and reserve address space of their own; some sizes and some cases depend on that. */
#if defined(PG_TSAN) || defined(PG_ASAN)
enum { CHECK_SANITIZED = 1 };
#else
enum { CHECK_SANITIZED = 0 };
#endif

/* Built for another CPU, linked statically, and run by an emulator. */
#ifndef CHECK_EMULATED
#define CHECK_EMULATED 0
#endif

__attribute__((noreturn)) static inline void check_end(void)
{
    if (check_workers > 0) fprintf(stderr, "with %d workers\n", check_workers);
    fflush(stdout);
    fflush(stderr);
    _exit(1);
}

__attribute__((noreturn)) static inline void check_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: not true: %s\n", file, line, condition);
    check_end();
}

__attribute__((noreturn)) static inline void check_unequal(const char *file, int line, const char *left_text,
                                                           long long left, const char *right_text, long long right)
{
    fprintf(stderr, "%s:%d: %s is %lld, %s is %lld\n", file, line, left_text, left, right_text, right);
    check_end();
}

/* Fewer rounds where each costs more. */
static inline int check_rounds(int rounds) { return rounds / (CHECK_SANITIZED || CHECK_EMULATED ? 10 : 1); }

/* xorshift64*: repeatable, one state per thread. */
static inline uint64_t check_random(uint64_t *state)
{
    uint64_t x = *state ? *state : 88172645463325252u;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 2685821657736338717u;
}

static inline uint64_t check_below(uint64_t *state, uint64_t bound) { return (check_random(state) >> 11) % bound; }

static inline pthread_t check_thread(void *(*body)(void *), void *argument)
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, body, argument), 0);
    return thread;
}

static inline void *check_join(pthread_t thread)
{
    void *result;
    CHECK_EQ(pthread_join(thread, &result), 0);
    return result;
}

/* Run body in a child process, which then ends with 0; check_wait returns its wait status. */
static inline PG_UNUSED pid_t check_fork(void (*body)(void))
{
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child > 0) return child;
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    body();
    _exit(0);
}

static inline PG_UNUSED int check_wait(pid_t child)
{
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    return status;
}

static inline PG_UNUSED int check_child(void (*body)(void)) { return check_wait(check_fork(body)); }

#endif
