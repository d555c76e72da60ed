/* The explorer: threads, the choice of schedules, traces; see explore.h. */
#include "explore.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "machine/switch.h"

enum { SELDOM_A_VALUE = 16, SELDOM_A_SWITCH = 64 }; /* one in so many, by chance */
enum { STACK = 128 * 1024, STEPS = 5000, CHOICES = 10000 };

typedef struct thread {
    void *sp;
    void (*body)(void *);
    void *argument;
    const char *name;
    bool ended, relaxed;    /* the latter: it spins, see mc_spun_on */
    const void *relaxed_on; /* what it did not get to sleep on, or NULL */
    mc_step pending;
    uint32_t step_count;
    uint32_t clock[MC_THREADS]; /* steps of others that its last step depends on */
    void *slot;
    uintptr_t gone_below; /* on its stack: nobody else may touch what is there; 0: nothing is gone */
} thread;

typedef struct done_step {
    mc_step step;
    int thread;
    uint32_t choice;            /* index of the choice it came from */
    uint32_t number;            /* of the thread's steps, from 1 */
    uint32_t clock[MC_THREADS]; /* it depends on the first so many steps of each */
} done_step;

/* One point of the search: who goes next, or one of `count` values. */
typedef struct choice {
    bool is_value;
    uint32_t count, chosen;
    uint32_t enabled, backtrack, done, asleep;   /* bit sets of threads */
    uint32_t step_counts[MC_THREADS];            /* of the threads, then */
    int preemptions_left, before;                /* the thread that went before */
    bool interrupts;                             /* it, whoever else goes now */
} choice;

static char stacks[MC_THREADS][STACK] __attribute__((aligned(64)));
static thread threads[MC_THREADS];
static unsigned thread_count;
static int running = -1; /* the thread that runs, -1: the explorer */
static void *explorer_sp;
static done_step steps[STEPS];
static uint32_t step_count;
static choice choices[CHOICES];
static uint32_t depth, at_choice; /* how many there are; the next one to be used */
static int stale_left;
static bool replaying, unreduced; /* the latter: every schedule, to check the reduction */
static uint64_t chance;           /* 0, or the state of a generator: executions by chance instead of in order */
static const mc_scenario *scenario;
static unsigned long executions, pruned, total_steps;

static bool is_reduced(void) { return !unreduced && chance == 0 && scenario->preemptions == 0; }

/* xorshift64: Marsaglia: Xorshift RNGs. Journal of Statistical Software, 2003. */
static uint32_t at_random(uint32_t below)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (uint32_t)(chance >> 32) % below;
}

/* ---- threads ---- */

int mc_self(void) { return running; }
void **mc_slot(void) { return &threads[running].slot; }
void mc_name(const char *name) { threads[running].name = name; }

void mc_relax_on(const void *word)
{
    if (running < 0) return;
    threads[running].relaxed = true;
    threads[running].relaxed_on = word;
}

void mc_relax(void) { mc_relax_on(NULL); }

/* Since that load the thread has only spun, or asked for a sleep on what it loaded that it did not get, and perhaps looked
 * at something else: to look again, it waits for another store. */
const mc_step *mc_spun_on(void)
{
    const void *word = threads[running].relaxed_on;
    if (!threads[running].relaxed) return NULL;
    for (uint32_t i = step_count; i-- > 0;) {
        const mc_step *past = &steps[i].step;
        if (steps[i].thread != running || past->kind == MC_FUTEX_WAIT) continue;
        if (past->kind != MC_LOAD) return NULL;
        if (word == NULL || past->object == word) return past;
    }
    return NULL;
}

mc_step *mc_step_now(void) { return &steps[step_count - 1].step; }

bool mc_all_ended(void)
{
    for (unsigned i = 0; i < thread_count; i++)
        if (!threads[i].ended) return false;
    return true;
}

static void thread_main(void *argument)
{
    thread *self = argument;
    self->body(self->argument);
    mc_thread_ends();
    self->ended = true;
    pg_switch(&self->sp, explorer_sp, NULL);
    abort();
}

static void plain_body(void *body)
{
    void (*call)(void);
    memcpy(&call, &body, sizeof call);
    call();
}

static int new_thread(void (*body)(void *), void *argument)
{
    if (thread_count == MC_THREADS) mc_fail("too many threads for the explorer: raise MC_THREADS");
    int number = (int)thread_count++;
    thread *fresh = &threads[number];
    memset(fresh, 0, sizeof *fresh);
    fresh->body = body;
    fresh->argument = argument;
    fresh->pending = (mc_step){.kind = MC_START};
    fresh->sp = pg_switch_prepare(stacks[number] + STACK, thread_main);
    return number;
}

int mc_spawn(void (*body)(void *), void *argument)
{
    int number = new_thread(body, argument);
    mc_view_join(mc_view_of(number), mc_view_of(running));
    memcpy(threads[number].clock, threads[running].clock, sizeof threads[number].clock);
    mc_tick();
    return number;
}

void mc_step_begin(mc_step *step)
{
    thread *self = &threads[running];
    self->pending = *step;
    self->relaxed = false;
    pg_switch(&self->sp, explorer_sp, NULL);
}

/* In the trace, what has been done since is by others: the thread itself makes no step. */
static bool has_napped(const mc_step *step) { return step_count > step->argument; }

void mc_nap(void)
{
    if (is_reduced()) mc_fail("whether a nap is over depends on all steps: bound the preemptions");
    mc_step step = {.kind = MC_NAP, .pc = __builtin_return_address(0), .enabled = has_napped, .argument = step_count};
    mc_step_begin(&step);
}

int mc_threads_left(void)
{
    int count = 0;
    for (unsigned i = 0; i < thread_count; i++) count += !threads[i].ended;
    return count;
}

void mc_frame_begin(void) { threads[running].gone_below = 0; }

/* Whoever else has been there must be known to be through: that he was first in this execution is not enough. */
void mc_frame_end(void)
{
    enum { LOOK_BACK = 2048 };
    uintptr_t top = (uintptr_t)__builtin_frame_address(0);
    threads[running].gone_below = top;
    mc_access_ends(top - LOOK_BACK, top);
}

void mc_check_alive(uintptr_t address, const void *pc)
{
    mc_check_heap(address, pc);
    for (unsigned i = 0; i < thread_count; i++) {
        uintptr_t bottom = (uintptr_t)stacks[i], below = threads[i].ended ? bottom + STACK : threads[i].gone_below;
        if ((int)i != running && address >= bottom && address < below)
            mc_fail("%p touches %p, on the stack of thread %u, in a frame that has ended", pc, (void *)address, i);
    }
}

/* ---- values ---- */

unsigned mc_choose(unsigned count)
{
    if (count <= 1) return 0;
    if (at_choice == CHOICES) mc_fail("too many choices in one execution");
    choice *here = &choices[at_choice];
    if (at_choice++ == depth) {
        *here = (choice){.is_value = true, .count = count};
        if (chance != 0 && at_random(SELDOM_A_VALUE) == 0) here->chosen = at_random(count);
        depth++;
    } else if (replaying) {
        *here = (choice){.is_value = true, .count = count, .chosen = here->chosen};
    } else if (!here->is_value || here->count != count) {
        mc_fail("not deterministic: a choice among %u was one among %u", count, here->count);
    }
    return here->chosen;
}

bool mc_may_be_stale(void) { return scenario->stale == 0 || stale_left > 0; }
void mc_note_stale(void) { stale_left--; }

/* ---- schedules ---- */

static bool is_enabled(const thread *one)
{
    return !one->ended && (one->pending.enabled == NULL || one->pending.enabled(&one->pending));
}

static uint32_t enabled_threads(void)
{
    uint32_t set = 0, waiting_to_see = 0, napping = 0;
    for (unsigned i = 0; i < thread_count; i++) {
        if (is_enabled(&threads[i])) set |= 1u << i;
        else if (!threads[i].ended && threads[i].pending.kind == MC_LOAD) waiting_to_see |= 1u << i;
        else if (!threads[i].ended && threads[i].pending.kind == MC_NAP) napping |= 1u << i;
    }
    if (set == 0) set = napping;
    return set != 0 ? set : waiting_to_see; /* who only looks again may do so if nobody else can do anything */
}

static bool depend(const mc_step *one, const mc_step *other)
{
    if (one->kind == MC_FENCE || other->kind == MC_FENCE) return one->sequential && other->sequential;
    return one->object != NULL && one->object == other->object && (one->writes || other->writes);
}

/* A load that did not see an earlier store, and could choose so, might as well have come before it: that execution is
 * this one. */
static bool is_overlooked(const mc_step *past, const mc_step *next)
{
    return next->kind == MC_LOAD && past->writes && past->object == next->object && past->made > next->oldest;
}

static bool covers(const uint32_t *clock, const done_step *past) { return clock[past->thread] >= past->number; }

static void join_clock(uint32_t *into, const uint32_t *from)
{
    for (unsigned t = 0; t < MC_THREADS; t++)
        if (from[t] > into[t]) into[t] = from[t];
}

/* Of what came after step `from` without depending on it, and then `next` by `number`: the threads that can begin. */
static uint32_t find_initials(uint32_t from, int number, const mc_step *next, const uint32_t *clock)
{
    const done_step *first = &steps[from];
    uint32_t begins = 0, seen = 0;
    uint32_t between[STEPS], count = 0;
    for (uint32_t i = from + 1; i < step_count; i++) {
        const done_step *past = &steps[i];
        if (covers(past->clock, first)) continue;
        if (!(seen & 1u << past->thread)) {
            bool preceded = false;
            for (uint32_t k = 0; k < count && !preceded; k++) preceded = covers(past->clock, &steps[between[k]]);
            if (!preceded) begins |= 1u << past->thread;
        }
        seen |= 1u << past->thread;
        between[count++] = i;
    }
    if (seen & 1u << number) return begins;
    for (uint32_t k = 0; k < count; k++) {
        const done_step *past = &steps[between[k]];
        bool overlooked = is_overlooked(&past->step, next) && past->step.made > next->read;
        if (covers(clock, past) || (depend(&past->step, next) && !overlooked)) return begins;
    }
    return begins | 1u << number;
}

/* `next` is what a thread does, or would do, now. Every earlier step that it depends on, and that could have come
 * after it, is reversed in another execution: one of those that can begin then is tried in its place (source sets:
 * Abdulla, Aronis, Jonsson, Sagonas: Optimal dynamic partial order reduction. POPL 2014; Flanagan's and Godefroid's
 * choice of the thread itself loses executions together with sleep sets). */
static void find_races(int number, const mc_step *next, uint32_t steps_before)
{
    uint32_t clock[MC_THREADS];
    memcpy(clock, threads[number].clock, sizeof clock);
    for (uint32_t i = step_count; i-- > 0;) {
        const done_step *past = &steps[i];
        if (past->thread == number || !depend(&past->step, next) || covers(clock, past)) continue;
        if (is_overlooked(&past->step, next)) {
            if (past->step.made <= next->read) join_clock(clock, past->clock);
            continue;
        }
        choice *there = &choices[past->choice];
        bool waited = !(there->enabled & 1u << number) && there->step_counts[number] == steps_before;
        if (waited) continue; /* for just that */
        uint32_t begins = find_initials(i, number, next, threads[number].clock) & there->enabled;
        join_clock(clock, past->clock);
        if (begins & there->backtrack) continue;
        there->backtrack |= begins & 1u << number ? 1u << number : begins != 0 ? begins & -begins : there->enabled;
    }
}

static void note_dependencies(done_step *now)
{
    thread *self = &threads[now->thread];
    for (uint32_t i = 0; i + 1 < step_count; i++) {
        const done_step *past = &steps[i];
        if (past->thread == now->thread || !depend(&past->step, &now->step)) continue;
        if (is_overlooked(&past->step, &now->step) && past->step.made > now->step.read) continue;
        join_clock(self->clock, past->clock);
    }
    self->clock[now->thread] = now->number;
    memcpy(now->clock, self->clock, sizeof now->clock);
}

static uint32_t lowest(uint32_t set) { return set & -set; }

static uint32_t any_of(uint32_t set)
{
    for (uint32_t skip = at_random((uint32_t)__builtin_popcount(set)); skip > 0; skip--) set &= set - 1;
    return lowest(set);
}

/* A new choice of a thread. False: every continuation from here has been seen in another order. */
static bool open_choice(uint32_t enabled, const choice *parent)
{
    choice *here = &choices[depth++];
    *here = (choice){.enabled = enabled, .before = -1, .preemptions_left = scenario->preemptions};
    for (unsigned t = 0; t < thread_count; t++) here->step_counts[t] = threads[t].step_count;
    if (parent != NULL) {
        here->before = steps[step_count - 1].thread;
        here->preemptions_left = parent->preemptions_left;
        if (parent->interrupts && here->before != parent->before) here->preemptions_left--;
    }
    uint32_t current = here->before >= 0 ? 1u << here->before : 0;
    /* Who sleeps, and could wake because time is up, is not interrupted. */
    here->interrupts = (enabled & current) && threads[here->before].pending.kind != MC_FUTEX_SLEEP;
    if (unreduced || (chance != 0 && scenario->preemptions == 0)) {
        here->backtrack = enabled;
    } else if (scenario->preemptions > 0) { /* bounded: everybody, as long as the bound allows */
        bool must_go_on = here->interrupts && here->preemptions_left == 0;
        here->backtrack = must_go_on ? current : enabled;
    } else if (parent != NULL) {
        for (unsigned t = 0; t < thread_count; t++)
            if (((parent->asleep | parent->done) & 1u << t) && (int)t != here->before &&
                !depend(&threads[t].pending, &steps[step_count - 1].step))
                here->asleep |= 1u << t;
    }
    uint32_t able = enabled & ~here->asleep;
    if (able == 0) {
        depth--;
        return false;
    }
    uint32_t first = able & current ? current : lowest(able);
    if (chance != 0 && (!here->interrupts || at_random(SELDOM_A_SWITCH) == 0)) first = any_of(here->backtrack & able);
    here->backtrack |= first;
    here->chosen = (uint32_t)__builtin_ctz(first);
    return true;
}

static const choice *last_schedule(uint32_t before)
{
    while (before-- > 0)
        if (!choices[before].is_value) return &choices[before];
    return NULL;
}

static void resume(int number)
{
    running = number;
    pg_switch(&explorer_sp, threads[number].sp, &threads[number]);
    running = -1;
}

static void make_step(uint32_t from_choice, int number)
{
    thread *self = &threads[number];
    if (step_count == STEPS) mc_fail("no end after %d steps", STEPS);
    done_step *now = &steps[step_count];
    step_count++;
    *now = (done_step){.step = self->pending, .thread = number, .choice = from_choice, .number = ++self->step_count};
    resume(number);
    step_count--;
    if (is_reduced()) find_races(number, &now->step, now->number - 1);
    step_count++;
    if (is_reduced()) note_dependencies(now);
}

static void finish(uint32_t left)
{
    for (unsigned t = 0; t < thread_count && is_reduced(); t++)
        if (left & 1u << t) find_races((int)t, &threads[t].pending, threads[t].step_count);
    if (left != 0 && !scenario->rests) mc_fail("deadlock");
    scenario->check();
}

/* False: cut short, for it is another one in a different order. */
static bool execute(void)
{
    step_count = at_choice = thread_count = 0;
    stale_left = scenario->stale;
    mc_memory_reset();
    mc_os_reset();
    scenario->setup();
    for (int i = 0; i < MC_THREADS && scenario->threads[i] != NULL; i++) {
        void *body;
        memcpy(&body, &scenario->threads[i], sizeof body);
        new_thread(plain_body, body);
    }
    for (;;) {
        uint32_t enabled = enabled_threads(), left = 0;
        for (unsigned t = 0; t < thread_count; t++)
            if (!threads[t].ended) left |= 1u << t;
        if (enabled == 0) {
            finish(left);
            return true;
        }
        if (at_choice == depth) {
            if (depth == CHOICES) mc_fail("too many choices in one execution");
            if (!open_choice(enabled, last_schedule(depth))) return false;
        }
        choice *here = &choices[at_choice];
        if (here->is_value || (!replaying && here->enabled != enabled)) mc_fail("not deterministic");
        here->enabled = enabled;
        if (!(enabled & 1u << here->chosen)) mc_fail("this choice string is of another program");
        make_step(at_choice++, (int)here->chosen);
    }
}

/* Go to the next branch of the search; false when there is none. */
static bool advance(void)
{
    for (; depth > 0; depth--) {
        choice *last = &choices[depth - 1];
        if (last->is_value) {
            if (++last->chosen < last->count) return true;
            continue;
        }
        last->done |= 1u << last->chosen;
        uint32_t left = last->backtrack & ~last->done & ~last->asleep;
        if (left == 0) continue;
        last->chosen = (uint32_t)__builtin_ctz(left);
        return true;
    }
    return false;
}

/* ---- traces ---- */

/* Ask the tools for the lines of an address, inlined calls from the inside out. */
static void find_place(const void *pc, char *text, size_t room)
{
    char command[256], line[256], function[256];
    size_t used = 0;
    snprintf(command, sizeof command, "addr2line -e /proc/%d/exe -f -i -s %p 2>/dev/null", (int)getpid(),
             (void *)((uintptr_t)pc - 1));
    FILE *answer = popen(command, "r");
    *text = 0;
    if (answer == NULL) return;
    while (fgets(function, sizeof function, answer) != NULL && fgets(line, sizeof line, answer) != NULL) {
        function[strcspn(function, "\n")] = line[strcspn(line, " \n")] = 0;
        int length = snprintf(text + used, room - used, " %s %s", line, function);
        if (length < 0 || used + (size_t)length >= room) break;
        used += (size_t)length;
    }
    pclose(answer);
}

static void print_place(const void *pc)
{
    enum { PLACES = 256 };
    static struct {
        const void *pc;
        char text[300];
    } places[PLACES];
    unsigned at = (unsigned)((uintptr_t)pc % PLACES);
    if (places[at].pc != pc) {
        places[at].pc = pc;
        find_place(pc, places[at].text, sizeof places[at].text);
    }
    fputs(places[at].text, stderr);
}

static void print_step(uint32_t index)
{
    static const char *const kinds[] = {"start",      "load",        "store",      "change", "fence", "lock",
                                        "futex wait", "futex sleep", "futex wake", "put",    "take",
                                        "count",      "nap"};
    static const char *const orders[] = {"relaxed", "consume", "acquire", "release", "acq_rel", "seq_cst"};
    const done_step *done = &steps[index];
    const mc_step *step = &done->step;
    const char *name = threads[done->thread].name;
    fprintf(stderr, "%4u %d %-10s %s", index, done->thread, name != NULL ? name : "", kinds[step->kind]);
    if (step->kind >= MC_LOAD && step->kind <= MC_FENCE) fprintf(stderr, " %s", orders[step->order]);
    if (step->object != NULL) fprintf(stderr, " %p", step->object);
    if (step->kind == MC_LOAD || step->kind == MC_RMW) fprintf(stderr, " saw %#llx", (unsigned long long)step->seen);
    if (step->age > 0) fprintf(stderr, " (%u newer)", step->age);
    if (step->kind == MC_STORE || (step->kind == MC_RMW && step->writes))
        fprintf(stderr, " left %#llx", (unsigned long long)step->left);
    if (step->kind == MC_RMW && !step->writes) fprintf(stderr, " failed");
    if (step->pc != NULL) print_place(step->pc);
    fputc('\n', stderr);
}

static void print_trace(void)
{
    for (uint32_t i = 0; i < step_count; i++) print_step(i);
    for (unsigned t = 0; t < thread_count; t++) {
        if (threads[t].ended || (int)t == running) continue;
        fprintf(stderr, "left: %u %s before", t, threads[t].name != NULL ? threads[t].name : "");
        print_place(threads[t].pending.pc);
        fputc('\n', stderr);
    }
    fprintf(stderr, "replay: %s ", scenario->name);
    for (uint32_t i = 0; i < at_choice; i++) fprintf(stderr, i > 0 ? ".%u" : "%u", choices[i].chosen);
    fputc('\n', stderr);
}

void mc_fail(const char *format, ...)
{
    va_list arguments;
    static char text[1000];
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "FAILED %s after %lu executions: %s\n", scenario->name, executions, text);
    if (getenv("MC_QUIET") == NULL) {
        print_trace();
        /* places in the message */
        for (char *at = strstr(text, " at 0x"); at != NULL; at = strstr(at + 1, " at 0x")) {
            fprintf(stderr, "%.*s:", (int)strcspn(at + 4, " ,"), at + 4);
            print_place((void *)strtoull(at + 4, NULL, 16));
            fputc('\n', stderr);
        }
    }
    _exit(1);
}

void pg_fatal_at(const char *function, const char *format, ...)
{
    char text[500];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    mc_fail("fatal error in %s: %s", function, text);
}

/* Of plain code that never comes to its next step, as with a list that has become a ring. */
enum { PATIENCE = 2 }; /* seconds of CPU time; a step takes microseconds */
static void look_for_steps(int number)
{
    static unsigned long before_execution, before_step;
    (void)number;
    if (executions + pruned == before_execution && step_count == before_step && running >= 0)
        mc_fail("no end: not a step in %d s", PATIENCE);
    before_execution = executions + pruned;
    before_step = step_count;
}

/* ---- the program: [--unreduced] [--limit EXECUTIONS] [--preemptions N] [--random SEED] [SCENARIO [CHOICES]] ---- */

/* Of bounded scenarios: a smaller world than that of the table, explored to its end, shows more than the edge of a
 * large one. */
static mc_scenario *with_at_most(const mc_scenario *from, int preemptions)
{
    static mc_scenario copy;
    copy = *from;
    if (copy.preemptions > preemptions) copy.preemptions = preemptions;
    return &copy;
}

static void explore(unsigned long limit)
{
    depth = 0;
    executions = pruned = total_steps = mc_plain_accesses = mc_stale_loads = 0;
    bool complete = false;
    uint64_t seed = chance;
    do {
        if (seed != 0) depth = 0;
        if (execute()) executions++;
        else pruned++;
        total_steps += step_count;
        complete = seed == 0 && !advance();
    } while (!complete && executions + pruned < limit);
    chance = seed;
    printf("%s: %lu executions, %lu cut as repetitions, %lu steps, %lu plain accesses, %lu outdated loads, %s",
           scenario->name, executions, pruned, total_steps, mc_plain_accesses, mc_stale_loads,
           complete ? "complete" : seed != 0 ? "by chance" : "cut by the limit");
    if (scenario->preemptions > 0) printf(", at most %d preemptions", scenario->preemptions);
    if (scenario->stale > 0) printf(", at most %d outdated loads", scenario->stale);
    putchar('\n');
    fflush(stdout);
    if (scenario->conclude != NULL) scenario->conclude();
    if (executions < scenario->least) mc_fail("only %lu executions, of at least %lu", executions, scenario->least);
}

static void replay(char *text)
{
    replaying = true;
    chance = 0;
    mc_scenario copy = *scenario; /* the string says which value: no bound may hide it */
    scenario = &copy;
    for (char *part = strtok(text, "."); part != NULL; part = strtok(NULL, ".")) {
        choices[depth] = (choice){.chosen = (uint32_t)atoi(part)};
        depth++;
    }
    execute();
    fprintf(stderr, "passed\n");
    print_trace();
}

int main(int count, char **arguments)
{
    unsigned long limit = 1000000000;
    int at = 1, preemptions = 1000;
    if (at < count && strcmp(arguments[at], "--unreduced") == 0) {
        unreduced = true;
        at++;
    }
    if (at + 1 < count && strcmp(arguments[at], "--limit") == 0) {
        limit = strtoul(arguments[at + 1], NULL, 10);
        at += 2;
    }
    if (at + 1 < count && strcmp(arguments[at], "--preemptions") == 0) {
        preemptions = atoi(arguments[at + 1]);
        at += 2;
    }
    if (at + 1 < count && strcmp(arguments[at], "--random") == 0) {
        chance = strtoull(arguments[at + 1], NULL, 10) * 2 + 1; /* not 0 */
        at += 2;
    }
    struct itimerval patience = {{PATIENCE, 0}, {PATIENCE, 0}};
    signal(SIGPROF, look_for_steps);
    setitimer(ITIMER_PROF, &patience, NULL);
    bool found = false;
    for (const mc_scenario *each = mc_scenarios; each->name != NULL; each++) {
        if (at < count && strcmp(arguments[at], each->name) != 0) continue;
        found = true;
        scenario = with_at_most(each, preemptions);
        if (at + 1 < count) {
            replay(arguments[at + 1]);
            return 0;
        }
        explore(limit);
    }
    if (!found) fprintf(stderr, "no such scenario\n");
    return found ? 0 : 2;
}
