/* The context switch: values, registers, floating-point environment, alignment, unwinding, moves between threads. */
#include "machine/switch.h"

#include <execinfo.h>
#include <fenv.h>
#include <string.h>

#include "base/atomic.h"
#include "check.h"
#include "context.h"

enum { STACK_SIZE = 256 * 1024 };

#ifdef PG_SWITCH_PORTABLE
enum { PORTABLE = 1 };
#undef PG_SWITCH_FRAME
#define PG_SWITCH_FRAME 0
static void pg_switch_trampoline(void) {}
#else
enum { PORTABLE = 0 };
void pg_switch_trampoline(void);
#endif

static char *new_stack_top(void)
{
    char *base = aligned_alloc(64, STACK_SIZE);
    CHECK(base != NULL);
    return base + STACK_SIZE;
}

static void free_stack(char *top) { free(top - STACK_SIZE); }

/* ---- values ---- */

static context main_context, other;

static void adder_entry(void *value)
{
    uintptr_t sum = 0;
    for (;;) {
        sum += (uintptr_t)value;
        value = context_switch(&other, &main_context, (void *)sum);
    }
}

static void values_pass_both_ways(void)
{
    char *top = new_stack_top();
    context_start(&other, top, adder_entry);
    for (uintptr_t i = 1; i <= 1000; i++)
        CHECK_EQ((uintptr_t)context_switch(&main_context, &other, (void *)i), i * (i + 1) / 2);
    context_end(&other);
    free_stack(top);
}

static PG_NOINLINE void alignment_entry(void *value)
{
    bool aligned = ((uintptr_t)__builtin_frame_address(0) & 15) == 0;
    char text[64];
    snprintf(text, sizeof text, "%.3f %p", 1.5, value); /* uses aligned vector stores */
    context_switch(&other, &main_context, (void *)(uintptr_t)(aligned && strncmp(text, "1.500", 5) == 0));
}

static void a_fresh_stack_is_aligned_as_the_abi_wants(void)
{
    for (int offset = 0; offset < 4; offset++) {
        char *top = new_stack_top();
        context_start(&other, top - 16 * offset, alignment_entry);
        CHECK((uintptr_t)context_switch(&main_context, &other, NULL));
        context_end(&other);
        free_stack(top);
    }
}

static void a_suspended_fresh_context_costs_one_frame(void)
{
    if (PORTABLE) SKIP("the portable context is larger");
    char *top = new_stack_top();
    CHECK_EQ(top - (char *)pg_switch_prepare(top, adder_entry), PG_SWITCH_FRAME);
    free_stack(top);
}

/* ---- registers ----
 * switch_registers(save, resume, value, in, out) loads every callee-saved register from `in`, switches, and stores what
 * it finds in them to `out`. */

void *switch_registers(void **save, void *resume, void *value, const uint64_t *in, uint64_t *out);

#if defined(__x86_64__)
enum { REGISTERS = 6 };
__asm__(".text\n"
        ".globl switch_registers\n"
        ".type switch_registers, @function\n"
        "switch_registers:\n"
        "    endbr64\n"
        "    pushq %rbx\n    pushq %rbp\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    pushq %r8\n"
        "    movq 0(%rcx), %rbx\n    movq 8(%rcx), %rbp\n    movq 16(%rcx), %r12\n"
        "    movq 24(%rcx), %r13\n    movq 32(%rcx), %r14\n    movq 40(%rcx), %r15\n"
        "    call pg_switch\n"
        "    popq %r8\n"
        "    movq %rbx, 0(%r8)\n    movq %rbp, 8(%r8)\n    movq %r12, 16(%r8)\n"
        "    movq %r13, 24(%r8)\n    movq %r14, 32(%r8)\n    movq %r15, 40(%r8)\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbp\n    popq %rbx\n"
        "    ret\n"
        ".size switch_registers, .-switch_registers\n");
#elif defined(__aarch64__)
enum { REGISTERS = 19 };
#define PAIR(op, registers, base, offset) "    " op " " registers ", [" base ", #" offset "]\n"
#define PAIRS(op, base)                                                                                               \
    PAIR(op, "x19, x20", base, "0")                                                                                   \
    PAIR(op, "x21, x22", base, "16")                                                                                  \
    PAIR(op, "x23, x24", base, "32")                                                                                  \
    PAIR(op, "x25, x26", base, "48")                                                                                  \
    PAIR(op, "x27, x28", base, "64")                                                                                  \
    PAIR(op, "d8, d9", base, "88")                                                                                    \
    PAIR(op, "d10, d11", base, "104")                                                                                 \
    PAIR(op, "d12, d13", base, "120")                                                                                 \
    PAIR(op, "d14, d15", base, "136")
__asm__(".text\n"
        ".globl switch_registers\n"
        ".type switch_registers, %function\n"
        "switch_registers:\n"
        "    hint #34\n"
        "    stp x29, x30, [sp, #-192]!\n"
        "    str x4, [sp, #16]\n"
        "    add x9, sp, #32\n" PAIRS("stp", "x9") PAIRS("ldp", "x3") "    ldr x29, [x3, #80]\n"
        "    bl pg_switch\n"
        "    ldr x10, [sp, #16]\n" PAIRS("stp", "x10") "    str x29, [x10, #80]\n"
        "    add x9, sp, #32\n" PAIRS("ldp", "x9") "    ldp x29, x30, [sp], #192\n"
        "    ret\n"
        ".size switch_registers, .-switch_registers\n");
#else
enum { REGISTERS = 0 };
void *switch_registers(void **save, void *resume, void *value, const uint64_t *in, uint64_t *out)
{
    (void)in, (void)out;
    return pg_switch(save, resume, value);
}
#endif

static void switch_and_compare(context *from, context *to, uint64_t *random)
{
    uint64_t in[REGISTERS + 1], out[REGISTERS + 1];
    for (int i = 0; i < REGISTERS; i++) in[i] = check_random(random);
    memset(out, 0, sizeof out);
#ifdef PG_TSAN
    from->tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->tsan, 0);
#endif
    switch_registers(&from->suspended, to->suspended, NULL, in, out);
    CHECK_EQ(memcmp(in, out, REGISTERS * sizeof in[0]), 0);
}

static void registers_entry(void *unused)
{
    uint64_t random = 2;
    (void)unused;
    for (;;) switch_and_compare(&other, &main_context, &random);
}

static void callee_saved_registers_survive_a_million_switches(void)
{
    char *top = new_stack_top();
    uint64_t random = 1;
    context_start(&other, top, registers_entry);
    for (int i = 0, rounds = check_rounds(500000); i < rounds; i++) switch_and_compare(&main_context, &other, &random);
    context_end(&other);
    free_stack(top);
}

/* ---- floating point ---- */

static PG_NOINLINE double third(void)
{
    volatile double one = 1.0, three = 3.0;
    return one / three;
}

static PG_NOINLINE long double long_third(void)
{
    volatile long double one = 1.0L, three = 3.0L;
    return one / three;
}

static PG_NOINLINE bool flushes_to_zero(void)
{
    volatile double tiny = 2.3e-308, half = 0.5;
    return tiny * half == 0.0;
}

/* The bits that fesetround does not reach: flush results to zero. */
static void set_flush(bool on)
{
#if defined(__x86_64__)
    unsigned control = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(on ? control | 0x8000 : control & ~0x8000u);
#elif defined(__aarch64__)
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    control = on ? control | 1u << 24 : control & ~(1ull << 24);
    __asm__ volatile("msr fpcr, %0" ::"r"(control));
#else
    (void)on;
#endif
}

static void check_environment(int rounding, bool flushing, double expected, long double long_expected)
{
    CHECK_EQ(fegetround(), rounding);
    CHECK_EQ(flushes_to_zero(), flushing);
    CHECK(third() == expected);
    CHECK(long_third() == long_expected);
}

static double third_nearest, third_up;
static long double long_third_nearest, long_third_up;

static void clean_entry(void *unused)
{
    (void)unused;
    for (;;) { /* clean at the start, although the thread that prepared and the one that resumes us are not */
        check_environment(FE_TONEAREST, false, third_nearest, long_third_nearest);
        context_switch(&other, &main_context, NULL);
    }
}

static void rounding_entry(void *unused)
{
    (void)unused;
    fesetround(FE_UPWARD);
    set_flush(true);
    for (;;) {
        context_switch(&other, &main_context, NULL);
        check_environment(FE_UPWARD, true, third_up, long_third_up);
    }
}

static void the_floating_point_environment_is_private(void)
{
    char *top = new_stack_top(), *second = new_stack_top();
    context rounding, clean;
    fesetround(FE_UPWARD);
    third_up = third(), long_third_up = long_third();
    fesetround(FE_TONEAREST);
    third_nearest = third(), long_third_nearest = long_third();
    CHECK(third_up != third_nearest);
    context_start(&rounding, top, rounding_entry);
    other = rounding;
    context_switch(&main_context, &other, NULL);
    rounding = other;
    fesetround(FE_DOWNWARD);
    set_flush(true);
    context_start(&clean, second, clean_entry);
    for (int i = 0; i < 100; i++) {
        context *next = i % 2 ? &rounding : &clean;
        other = *next;
        context_switch(&main_context, &other, NULL);
        *next = other;
        CHECK_EQ(fegetround(), FE_DOWNWARD);
        CHECK(flushes_to_zero());
    }
    fesetenv(FE_DFL_ENV);
    set_flush(false);
    context_end(&rounding), context_end(&clean);
    free_stack(top), free_stack(second);
}

static void *round_down(void *expected)
{
    bool inherited = fegetround() == (int)(intptr_t)expected;
    fesetround(FE_DOWNWARD);
    return (void *)(intptr_t)inherited;
}

static void a_call_on_another_stack_keeps_the_environment(void)
{
    char *top = new_stack_top();
    fesetround(FE_UPWARD);
    CHECK((intptr_t)pg_switch_call_on(top, round_down, (void *)(intptr_t)FE_UPWARD));
    CHECK_EQ(fegetround(), FE_DOWNWARD); /* as after any other call */
    fesetround(FE_TONEAREST);
    free_stack(top);
}

/* ---- calls on another stack ---- */

static char *call_tops[2];

static void *where_am_i(void *unused)
{
    (void)unused;
    return __builtin_frame_address(0);
}

static bool lies_on(void *address, char *top) { return (char *)address < top && (char *)address >= top - STACK_SIZE; }

static void *call_nested(void *unused)
{
    (void)unused;
    void *deeper = pg_switch_call_on(call_tops[1], where_am_i, NULL);
    return lies_on(deeper, call_tops[1]) && lies_on(where_am_i(NULL), call_tops[0]) ? (void *)1 : NULL;
}

static void calls_run_on_the_given_stack_and_nest(void)
{
    for (int i = 0; i < 2; i++) call_tops[i] = new_stack_top();
    for (int i = 0; i < 1000; i++) CHECK(pg_switch_call_on(call_tops[0], call_nested, NULL) != NULL);
    for (int i = 0; i < 2; i++) free_stack(call_tops[i]);
}

static void *switch_twice(void *value)
{
    uintptr_t first = (uintptr_t)context_switch(&main_context, &other, value);
    return context_switch(&main_context, &other, (void *)first);
}

static void a_called_function_may_switch(void)
{
    char *top = new_stack_top(), *second = new_stack_top();
    context_start(&other, top, adder_entry);
    CHECK_EQ((uintptr_t)pg_switch_call_on(second, switch_twice, (void *)5), 10); /* 5, then 5 + 5 */
    CHECK_EQ((uintptr_t)pg_switch_call_on(second, switch_twice, (void *)1), 22); /* 11, then 11 + 11 */
    context_end(&other);
    free_stack(top), free_stack(second);
}

/* ---- unwinding ---- */

enum { MAX_FRAMES = 64 };
static void *frames[MAX_FRAMES];
static int frame_count;

static PG_NOINLINE void collect_frames(int depth)
{
    if (depth > 0) {
        collect_frames(depth - 1);
    } else {
        frame_count = backtrace(frames, MAX_FRAMES);
    }
    __asm__ volatile("" ::: "memory"); /* no tail calls: the frames are to be counted */
}

static void unwinding_entry(void *unused)
{
    (void)unused;
    collect_frames(5);
    context_switch(&other, &main_context, NULL);
}

static bool in_trampoline(void *address)
{
    return (char *)address > (char *)pg_switch_trampoline && (char *)address < (char *)pg_switch_trampoline + 64;
}

static void unwinding_a_context_ends_at_its_trampoline(void)
{
    char *top = new_stack_top();
    void **above = (void **)(top - 256); /* what lies above the stack must not be taken for return addresses */
    for (int i = 0; i < 256 / 8; i++) above[i] = (char *)unwinding_entry + 8;
    context_start(&other, above, unwinding_entry);
    context_switch(&main_context, &other, NULL);
    context_end(&other);
    free_stack(top);
    if (frame_count == 0) SKIP("this C library cannot unwind here");
    CHECK(frame_count >= 6 + 1 && frame_count <= 6 + 5); /* collect_frames 6 times, the entry, the trampoline */
    if (PORTABLE) return;
    CHECK(in_trampoline(frames[frame_count - 1]));
    CHECK(!in_trampoline(frames[frame_count - 2]));
}

static void *unwinding_call(void *unused)
{
    collect_frames(0);
    return unused;
}

static PG_NOINLINE void *unwinding_caller(char *top)
{
    void *result = pg_switch_call_on(top, unwinding_call, NULL);
    __asm__ volatile("" ::: "memory");
    return result ? result : __builtin_extract_return_addr(__builtin_return_address(0));
}

static void unwinding_a_call_on_another_stack_finds_the_caller(void)
{
    if (PORTABLE) SKIP("the portable switch cannot");
    char *top = new_stack_top();
    bool found = false;
    frame_count = 0;
    void *caller = unwinding_caller(top);
    if (frame_count == 0) SKIP("this C library cannot unwind here");
    for (int i = 0; i < frame_count; i++) found |= frames[i] == caller;
    CHECK(found);
    CHECK(frame_count < MAX_FRAMES);
    free_stack(top);
}

static void exiting_entry(void *value) { pthread_exit(value); }

static void *exiting_thread(void *top)
{
    context self, fresh;
    context_start(&fresh, top, exiting_entry);
    context_switch(&self, &fresh, (void *)7);
    return NULL;
}

static void a_thread_may_exit_inside_a_context(void)
{
    if (PORTABLE) SKIP("unwinding does not end in a portable context");
    if (CHECK_EMULATED) SKIP("the C library loads its unwinder for this");
    if (CHECK_SANITIZED) SKIP("the sanitizer expects the thread's own stack");
    char *top = new_stack_top();
    CHECK_EQ((uintptr_t)check_join(check_thread(exiting_thread, top)), 7);
    free_stack(top);
}

/* ---- threads ---- */

enum { MOVERS = 3 };

static struct {
    atomic_int turn;
    int rounds;
    int resumed; /* plain: whoever has the turn */
    context threads[MOVERS], traveller;
    int carrier;
} travel;

static void traveller_entry(void *unused)
{
    uint64_t random = 3, sum = 0, again = 3, check = 0;
    (void)unused;
    for (;;) {
        sum += check_random(&random);
        check += check_random(&again);
        CHECK(sum == check);
        travel.resumed++;
        context_switch(&travel.traveller, &travel.threads[travel.carrier], NULL);
    }
}

static void *mover_body(void *argument)
{
    int mine = (int)(intptr_t)argument;
    for (int i = 0; i < travel.rounds; i++) {
        while (pg_load_acquire(&travel.turn) != mine) sched_yield(); /* pairs with the release below */
        travel.carrier = mine;
        context_switch(&travel.threads[mine], &travel.traveller, NULL);
        pg_store_release(&travel.turn, (mine + 1) % MOVERS);
    }
    return NULL;
}

static void a_context_travels_between_threads(void)
{
    pthread_t threads[MOVERS];
    char *top = new_stack_top();
    travel.rounds = check_rounds(10000);
    context_start(&travel.traveller, top, traveller_entry);
    for (int i = 0; i < MOVERS; i++) threads[i] = check_thread(mover_body, (void *)(intptr_t)i);
    for (int i = 0; i < MOVERS; i++) check_join(threads[i]);
    CHECK_EQ(travel.resumed, MOVERS * travel.rounds);
    context_end(&travel.traveller);
    free_stack(top);
}

int main(void)
{
    RUN(values_pass_both_ways);
    RUN(a_fresh_stack_is_aligned_as_the_abi_wants);
    RUN(a_suspended_fresh_context_costs_one_frame);
    RUN(callee_saved_registers_survive_a_million_switches);
    RUN(the_floating_point_environment_is_private);
    RUN(a_call_on_another_stack_keeps_the_environment);
    RUN(calls_run_on_the_given_stack_and_nest);
    RUN(a_called_function_may_switch);
    RUN(unwinding_a_context_ends_at_its_trampoline);
    RUN(unwinding_a_call_on_another_stack_finds_the_caller);
    RUN(a_thread_may_exit_inside_a_context);
    RUN(a_context_travels_between_threads);
    return 0;
}
