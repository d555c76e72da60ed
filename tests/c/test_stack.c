/* Stacks: sizes and classes, growth by touching, guards, refusal, the mapping limit, many threads. */
#include "machine/stack.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "check.h"
#include "context.h"
#include "os/os.h"

#ifdef PG_SWITCH_PORTABLE
enum { PORTABLE = 1 };
#else
enum { PORTABLE = 0 };
#endif

enum { KIB = 1024, MIB = 1024 * 1024, SMALL = 256 * KIB, LARGE = 8 * MIB, PROTECTED = 16 * 1024 };

static pg_stack get(size_t size)
{
    pg_stack stack;
    memset(&stack, 0xff, sizeof stack);
    CHECK_EQ(pg_stack_get(&stack, size), PG_OK);
    CHECK(pg_stack_size(&stack) >= size);
    CHECK_EQ((uintptr_t)stack.base % pg_page_size(), 0);
    CHECK_EQ((uintptr_t)stack.top % pg_page_size(), 0);
    return stack;
}

static pg_stack_stats stats(void)
{
    pg_stack_stats now;
    pg_stack_read_stats(&now);
    return now;
}

/* ---- sizes ---- */

static void sizes_choose_the_class(void)
{
    CHECK_EQ(pg_stack_default_size(), SMALL);
    pg_stack any = get(0), small = get(SMALL), tiny = get(1), middle = get(SMALL + 1), large = get(LARGE);
    pg_stack odd = get(LARGE + 1);
    CHECK(any.large && pg_stack_size(&any) == LARGE);
    CHECK(!small.large && pg_stack_size(&small) == SMALL);
    CHECK(!tiny.large && pg_stack_size(&tiny) == SMALL);
    CHECK(middle.large && large.large);
    CHECK(odd.own && pg_stack_size(&odd) == LARGE + pg_page_size());
    CHECK(!any.own && !small.own);
    CHECK_EQ(stats().in_use, 6);
    size_t mapped = stats().mapped_bytes;
    pg_stack_put(&odd);
    CHECK_EQ(mapped - stats().mapped_bytes, LARGE + pg_page_size() + pg_stack_guard_size());
    pg_stack *rest[] = {&any, &small, &tiny, &middle, &large};
    for (int i = 0; i < 5; i++) pg_stack_put(rest[i]);
    CHECK_EQ(stats().in_use, 0);
}

static void a_returned_stack_is_the_next_one_handed_out(void)
{
    pg_stack first = get(SMALL), second;
    char *base = first.base;
    size_t cached = stats().cached;
    pg_stack_put(&first);
    CHECK_EQ(stats().cached, cached + 1);
    second = get(SMALL);
    CHECK(second.base == base);
    pg_stack_put(&second);
}

static void the_default_size_is_checked_and_rounded(void)
{
    size_t page = pg_page_size(), before = stats().mapped_bytes;
    CHECK_EQ(pg_stack_set_default_size(64 * KIB - 1), PG_EINVAL);
    CHECK_EQ(pg_stack_set_default_size(SIZE_MAX), PG_EINVAL);
    CHECK_EQ(pg_stack_default_size(), SMALL);
    pg_stack old = get(SMALL);
    CHECK_EQ(pg_stack_set_default_size(300 * KIB + 1), PG_OK);
    CHECK_EQ(pg_stack_default_size(), (300 * KIB + page) / page * page);
    pg_stack wider = get(300 * KIB);
    CHECK(!wider.large && !wider.own);
    pg_stack_put(&old); /* too small now: must not be handed out again */
    pg_stack other = get(300 * KIB);
    CHECK(pg_stack_size(&other) >= 300 * KIB);
    CHECK_EQ(pg_stack_set_default_size(SMALL), PG_OK);
    pg_stack_put(&wider);
    pg_stack reused = get(SMALL); /* wider than asked for is fine */
    CHECK(pg_stack_size(&reused) >= SMALL);
    pg_stack_put(&reused), pg_stack_put(&other);
    CHECK_EQ(stats().in_use, 0);
    CHECK(stats().mapped_bytes != before);
}

static void nonsense_sizes_are_refused(void)
{
    pg_stack stack;
    size_t in_use = stats().in_use;
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 4096, SIZE_MAX / 2, (size_t)1 << 60, ((size_t)1 << 40) + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) CHECK_EQ(pg_stack_get(&stack, sizes[i]), PG_ENOMEM);
    CHECK_EQ(stats().in_use, in_use);
}

/* ---- growth ---- */

static size_t resident_pages(const pg_stack *stack)
{
    static unsigned char pages[LARGE / 4096];
    size_t count = pg_stack_size(stack) / pg_page_size(), resident = 0;
    CHECK_EQ(mincore(stack->base, pg_stack_size(stack), pages), 0);
    for (size_t i = 0; i < count; i++) resident += pages[i] & 1;
    return resident;
}

static context runner, visitor;
static char *descend_to;

static PG_NOINLINE size_t descend(char *until)
{
    volatile char frame[1024];
    frame[0] = (char)(uintptr_t)until;
    return (char *)__builtin_frame_address(0) > until ? descend(until) + (size_t)frame[0] : 0;
}

static void growing_entry(void *unused)
{
    (void)unused;
    for (;;) {
        if (descend_to != NULL) descend(descend_to);
        context_switch(&visitor, &runner, NULL);
    }
}

static void run_down_to(char *address)
{
    descend_to = address;
    context_switch(&runner, &visitor, NULL);
}

static void a_stack_grows_from_one_page_and_shrinks_back(size_t size)
{
    size_t page = pg_page_size(), small = (CHECK_SANITIZED || PORTABLE) + 1;
    pg_stack stack = get(size);
    char *half = stack.top - size / 2, *deep = stack.base + 16 * KIB;
    CHECK_EQ(resident_pages(&stack), 0);
    context_start(&visitor, stack.top, growing_entry);
    run_down_to(NULL);
    CHECK(resident_pages(&stack) <= small);
    run_down_to(half);
    CHECK(resident_pages(&stack) >= size / 2 / page);
    CHECK(resident_pages(&stack) <= size / 2 / page + 4);
    run_down_to(deep);
    CHECK(resident_pages(&stack) >= (size - 16 * KIB) / page);
    pg_stack_trim(&stack, (char *)visitor.suspended - 100);
    CHECK(resident_pages(&stack) <= small + 1);
    run_down_to(half);
    CHECK(resident_pages(&stack) >= size / 2 / page);
    context_end(&visitor);
    pg_stack_put(&stack);
    CHECK_EQ(resident_pages(&stack), 0); /* the cache holds addresses, not memory */
}

static void small_stacks_grow_and_shrink(void) { a_stack_grows_from_one_page_and_shrinks_back(SMALL); }
static void large_stacks_grow_and_shrink(void) { a_stack_grows_from_one_page_and_shrinks_back(LARGE); }

static void trimming_spares_what_is_kept(void)
{
    size_t page = pg_page_size();
    pg_stack stack = get(SMALL);
    memset(stack.base, 1, pg_stack_size(&stack));
    pg_stack_trim(&stack, stack.base + 3 * page + 5);
    CHECK_EQ(stack.base[3 * page - 1], 0);
    for (size_t i = 3 * page; i < pg_stack_size(&stack); i++) CHECK_EQ(stack.base[i], 1);
    pg_stack_trim(&stack, stack.base);
    pg_stack_trim(&stack, stack.base + page - 1);
    CHECK_EQ(resident_pages(&stack), pg_stack_size(&stack) / page - 2); /* two more were read as zero pages */
    pg_stack_put(&stack);
}

/* ---- warm ones ---- */

static pg_stack get_warm(size_t size)
{
    pg_stack stack;
    CHECK_EQ(pg_stack_get_warm(&stack, size), PG_OK);
    CHECK(pg_stack_size(&stack) >= size);
    return stack;
}

static void the_last_few_stay_warm_until_they_are_not_used(void)
{
    enum { COUNT = 6, WARM = 4 };
    pg_stack stacks[COUNT], again, small;
    CHECK(!pg_stack_any_warm());
    size_t in_use = stats().in_use, mapped = stats().mapped_bytes, odd = LARGE + MIB;
    for (int i = 0; i < COUNT; i++) {
        stacks[i] = get_warm(odd);
        stacks[i].base[5] = (char)(1 + i);
    }
    for (int i = 0; i < COUNT; i++) CHECK_EQ(pg_stack_put_warm(&stacks[i]), i == 0);
    CHECK_EQ(stats().in_use, in_use);
    CHECK_EQ(stats().mapped_bytes - mapped, WARM * (odd + pg_stack_guard_size())); /* the oldest two are gone */
    again = get_warm(LARGE); /* the last one, as it was left */
    CHECK_EQ(again.base[5], COUNT);
    small = get_warm(SMALL); /* a large one would be a waste */
    CHECK(!small.large);
    CHECK_EQ(stats().in_use, in_use + 2);
    pg_stack_put_warm(&again);
    pg_stack_put_warm(&small);
    pg_stack_cool(); /* has been used */
    CHECK(pg_stack_any_warm());
    pg_stack_cool();
    CHECK(!pg_stack_any_warm());
    CHECK_EQ(stats().in_use, in_use);
    small = get(SMALL);
    CHECK_EQ(resident_pages(&small), 0);
    pg_stack_put(&small);
}

/* ---- guards ---- */

static pg_stack victim; /* of the child */

static void hit(int number, siginfo_t *info, void *unused)
{
    char *at = info->si_addr;
    (void)number, (void)unused;
    CHECK_EQ(pg_stack_is_guard(&victim, at), at < victim.base && at >= victim.base - pg_stack_guard_size());
    _exit(pg_stack_is_guard(&victim, at) ? 42 : 43);
}

/* Frames of which only the lowest byte is touched, as wide as the widest known: see stack.h. */
static PG_NOINLINE size_t stride_down(int depth)
{
    volatile char frame[49 * KIB];
    frame[0] = (char)depth;
    return depth > 0 ? stride_down(depth - 1) + (size_t)frame[0] : 0;
}

static void overflowing_entry(void *wide)
{
    if (wide != NULL) stride_down(INT_MAX);
    descend(NULL);
}

static void overflow_the_victim_in(void *wide)
{
    static char alternative[64 * KIB];
    stack_t on = {.ss_sp = alternative, .ss_size = sizeof alternative};
    struct sigaction action = {.sa_sigaction = hit, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaltstack(&on, NULL);
    sigaction(SIGSEGV, &action, NULL);
    context_start(&visitor, victim.top, overflowing_entry);
    context_switch(&runner, &visitor, wide);
}

static void overflow_the_victim(void) { overflow_the_victim_in(NULL); }
static void overflow_the_victim_in_strides(void) { overflow_the_victim_in(&victim); }

static void check_overflows_fault(bool light)
{
    bool before = pg_guards_are_light();
    const size_t sizes[] = {SMALL * 2 - 64 * KIB, LARGE, LARGE + MIB};
    pg_guards_set_light(light);
    CHECK_EQ(pg_stack_set_default_size(sizes[0]), PG_OK); /* so that new ones are mapped */
    for (int i = 0; i < 3; i++) {
        pg_stack taken[8];
        for (int k = 0; k < 8; k++) taken[k] = get(sizes[i]);
        for (int k = 0; k < 8; k += 7) {
            victim = taken[k];
            CHECK(victim.guarded);
            void (*ways[])(void) = {overflow_the_victim, overflow_the_victim_in_strides};
            for (int way = 0; way < 2; way++) {
                int status = check_child(ways[way]);
                CHECK(WIFEXITED(status));
                CHECK_EQ(WEXITSTATUS(status), 42);
            }
        }
        for (int k = 0; k < 8; k++) pg_stack_put(&taken[k]);
    }
    CHECK_EQ(pg_stack_set_default_size(SMALL), PG_OK);
    pg_guards_set_light(before);
}

static void overflow_hits_a_protected_guard(void)
{
    if (CHECK_SANITIZED) SKIP("the sanitizer takes the fault");
    check_overflows_fault(false);
}

static void overflow_hits_a_light_guard(void)
{
    if (CHECK_SANITIZED) SKIP("the sanitizer takes the fault");
    if (!pg_guards_are_light()) SKIP("the kernel has no lightweight guards");
    check_overflows_fault(true);
}

/* ---- refusal ---- */

static void exhaust_the_address_space(void)
{
    static pg_stack stacks[4096];
    struct rlimit limit;
    long pages = 0;
    int count = 0, outcome;
    FILE *statm = fopen("/proc/self/statm", "r");
    CHECK(statm != NULL && fscanf(statm, "%ld", &pages) == 1);
    fclose(statm);
    limit.rlim_cur = limit.rlim_max = (rlim_t)pages * pg_page_size() + 100 * MIB;
    CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
    while ((outcome = pg_stack_get(&stacks[count], 0)) == PG_OK) {
        stacks[count].top[-1] = 1;
        CHECK(++count < 4096);
    }
    CHECK_EQ(outcome, PG_ENOMEM);
    CHECK(count >= 12 + 10); /* large ones while they fit, then small ones down to single mappings */
    CHECK_EQ(pg_stack_get(&stacks[count], LARGE + 1), PG_ENOMEM);
    CHECK_EQ(stats().in_use, count);
    for (int i = 0; i < count; i++) pg_stack_put(&stacks[i]);
    for (int i = 0; i < count; i++) stacks[i] = get(0);
    CHECK_EQ(pg_stack_get(&stacks[count], 0), PG_ENOMEM);
}

static void a_full_address_space_is_an_error_not_a_crash(void)
{
    if (CHECK_SANITIZED) SKIP("an address-space limit stops the sanitizer itself");
    if (CHECK_EMULATED) SKIP("the emulator ignores address-space limits");
    CHECK_EQ(check_child(exhaust_the_address_space), 0);
}

/* ---- the mapping limit ---- */

static int mapping_count(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    int lines = 0;
    CHECK(maps != NULL);
    for (int c; (c = getc(maps)) != EOF;) lines += c == '\n';
    fclose(maps);
    return lines;
}

static const int many = CHECK_SANITIZED ? 2000 : 100000;

static void *idle_body(void *unused) { return unused; }

static void get_very_many(void)
{
    pg_stack *stacks = calloc((size_t)many, sizeof *stacks);
    int before = mapping_count();
    for (int i = 0; i < many; i++) {
        stacks[i] = get(SMALL);
        stacks[i].top[-8] = 1; /* a page each, as a parked task has */
    }
    if (pg_guards_are_light()) {
        CHECK_EQ(stats().unguarded, 0);
        CHECK(mapping_count() - before < many / 10);
    }
    CHECK(stats().unguarded < (size_t)many);
    size_t guarded = 0;
    for (int i = 0; i < many; i++) guarded += stacks[i].guarded;
    size_t bare = (size_t)many - guarded;
    CHECK(stats().unguarded >= bare && stats().unguarded - bare <= stats().cached);
    if (!pg_guards_are_light() && !CHECK_SANITIZED) CHECK(guarded >= PROTECTED - 64 && guarded <= PROTECTED);
    for (int i = 0; i < many; i++) CHECK_EQ(pg_stack_is_guard(&stacks[i], stacks[i].base - 1), stacks[i].guarded);
    void *more = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* others need mappings too */
    CHECK(more != MAP_FAILED);
    check_join(check_thread(idle_body, NULL));
    for (int i = 0; i < many; i++) pg_stack_put(&stacks[i]);
    CHECK_EQ(stats().in_use, 0);
}

static void get_very_many_with_protected_guards(void)
{
    pg_guards_set_light(false);
    get_very_many();
}

static void very_many_stacks_stay_below_the_mapping_limit(void)
{
    if (!pg_guards_are_light()) SKIP("the kernel has no lightweight guards");
    CHECK_EQ(check_child(get_very_many), 0);
}

static void very_many_stacks_with_protected_guards_leave_mappings_to_others(void)
{
    CHECK_EQ(check_child(get_very_many_with_protected_guards), 0);
}

/* ---- threads ---- */

static void *churn_body(void *argument)
{
    enum { HELD = 16 };
    pg_stack held[HELD];
    int count = 0;
    uint64_t random = (uint64_t)(uintptr_t)argument;
    const size_t sizes[] = {0, SMALL, SMALL, SMALL, LARGE, LARGE + 4096};
    for (int i = 0, rounds = check_rounds(20000); i < rounds || count > 0; i++) {
        if (i < rounds && count < HELD && check_below(&random, 2)) {
            size_t size = sizes[check_below(&random, 6)];
            held[count] = check_below(&random, 2) ? get(size) : get_warm(size);
            void **mark = (void **)held[count++].top - 1;
            *mark = argument;
        } else if (count > 0) {
            void **mark = (void **)held[--count].top - 1;
            CHECK(*mark == argument); /* nobody else was given the same */
            if (check_below(&random, 2)) pg_stack_put(&held[count]);
            else (void)pg_stack_put_warm(&held[count]);
            if (check_below(&random, 64) == 0) pg_stack_cool();
        }
    }
    return NULL;
}

static void threads_never_share_a_stack(void)
{
    pthread_t threads[4];
    size_t in_use = stats().in_use;
    for (uintptr_t i = 0; i < 4; i++) threads[i] = check_thread(churn_body, (void *)(i + 1));
    for (int i = 0; i < 4; i++) check_join(threads[i]);
    CHECK_EQ(stats().in_use, in_use);
}

int main(void)
{
    RUN(sizes_choose_the_class);
    RUN(a_returned_stack_is_the_next_one_handed_out);
    RUN(the_default_size_is_checked_and_rounded);
    RUN(nonsense_sizes_are_refused);
    RUN(small_stacks_grow_and_shrink);
    RUN(large_stacks_grow_and_shrink);
    RUN(trimming_spares_what_is_kept);
    RUN(the_last_few_stay_warm_until_they_are_not_used);
    RUN(overflow_hits_a_protected_guard);
    RUN(overflow_hits_a_light_guard);
    RUN(a_full_address_space_is_an_error_not_a_crash);
    RUN(very_many_stacks_stay_below_the_mapping_limit);
    RUN(very_many_stacks_with_protected_guards_leave_mappings_to_others);
    RUN(threads_never_share_a_stack);
    return 0;
}
