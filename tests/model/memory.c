/* Memory as C11 has it: what the compiler calls for atomic operations and plain accesses, see explore.h.
 *
 * A location keeps all stores. Loads choose among those that the thread's view permits. Sequential consistency: a fence
 * joins the thread's view and the common one both ways; a sequentially consistent store raises the common view of its
 * location, and a load of that kind sees nothing older than that (C11 7.17.3, with the order of the steps as S).
 */
#include "explore.h"

#include <string.h>

typedef struct store {
    uint64_t value;
    mc_view *view; /* what reading it with acquire brings; NULL: nothing */
} store;

typedef struct location {
    uintptr_t address;
    unsigned round; /* of mc_memory_reset: else it is free */
    uint32_t index, count;
    store stores[MC_STORES];
} location;

/* For races: who last accessed each byte of eight, and when. */
enum { PLAIN_READ, PLAIN_WRITE, ATOMIC_READ, ATOMIC_WRITE, ACCESSES };
typedef struct cell {
    uintptr_t address;
    unsigned round;
    uint8_t threads; /* bit set: those that have been here */
    uint16_t clocks[MC_THREADS][ACCESSES][8];
    const void *pcs[MC_THREADS][ACCESSES];
} cell;

typedef struct glance { /* a load at one place in the code */
    const void *pc;
    location *where;
    uint32_t store;
    uint32_t delays; /* so often in a row it saw that store when there were newer ones */
    unsigned round;
} glance;

enum { TABLE = 2048, CELLS = 16384, GLANCES = 512, DELAYS = 2, VIEWS = 8192 };

static location locations[MC_LOCATIONS];
static uint16_t table[TABLE]; /* index + 1 */
static cell cells[CELLS];
static glance glances[MC_THREADS][GLANCES];
static mc_view views[VIEWS];
static mc_view of_threads[MC_THREADS], fenced[MC_THREADS], to_acquire[MC_THREADS], common;
static unsigned current_round, location_count, view_count;
unsigned long mc_plain_accesses, mc_stale_loads;

void mc_memory_reset(void)
{
    current_round++;
    location_count = view_count = 0;
    memset(table, 0, sizeof table);
    memset(of_threads, 0, sizeof of_threads);
    memset(fenced, 0, sizeof fenced);
    memset(to_acquire, 0, sizeof to_acquire);
    memset(&common, 0, sizeof common);
    for (int i = 0; i < MC_THREADS; i++) of_threads[i].clocks[i] = 1;
}

mc_view *mc_view_of(int thread) { return &of_threads[thread]; }

static void join_stores(mc_view *into, const mc_view *from)
{
    for (unsigned i = 0; i < location_count; i++)
        if (from->stores[i] > into->stores[i]) into->stores[i] = from->stores[i];
}

void mc_view_join(mc_view *into, const mc_view *from)
{
    if (from == NULL) return;
    for (unsigned i = 0; i < MC_THREADS; i++)
        if (from->clocks[i] > into->clocks[i]) into->clocks[i] = from->clocks[i];
    join_stores(into, from);
}

static mc_view *new_view(const mc_view *from)
{
    if (view_count == VIEWS) mc_fail("too many stores for the explorer: raise VIEWS");
    mc_view *view = &views[view_count++];
    *view = *from;
    return view;
}

void mc_tick(void) { of_threads[mc_self()].clocks[mc_self()]++; }

static uint64_t fetch(const void *address, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, address, size);
    return value;
}

static uint64_t cut(uint64_t value, size_t size) { return size == 8 ? value : value & ((1ull << (8 * size)) - 1); }

static location *locate(const void *object, size_t size)
{
    uintptr_t address = (uintptr_t)object;
    unsigned at = (unsigned)((address >> 1) * 2654435761u) % TABLE;
    while (table[at] != 0) {
        if (locations[table[at] - 1].address == address) return &locations[table[at] - 1];
        at = (at + 1) % TABLE;
    }
    if (location_count == MC_LOCATIONS) mc_fail("too many atomics for the explorer: raise MC_LOCATIONS");
    location *where = &locations[location_count];
    where->address = address;
    where->index = location_count++;
    where->count = 1;
    where->stores[0] = (store){fetch(object, size), NULL};
    table[at] = (uint16_t)(where->index + 1);
    return where;
}

uint64_t mc_newest(const void *address, size_t size)
{
    location *where = locate(address, size);
    return where->stores[where->count - 1].value;
}

/* ---- races ---- */

static cell *cell_at(uintptr_t address)
{
    unsigned at = (unsigned)((address >> 3) * 2654435761u) % CELLS;
    for (int probe = 0; probe < CELLS; probe++, at = (at + 1) % CELLS) {
        if (cells[at].round != current_round) {
            memset(&cells[at], 0, sizeof cells[at]);
            cells[at].address = address;
            cells[at].round = current_round;
            return &cells[at];
        }
        if (cells[at].address == address) return &cells[at];
    }
    mc_fail("too much memory for the explorer: raise CELLS");
}

static cell *find_cell(uintptr_t address)
{
    unsigned at = (unsigned)((address >> 3) * 2654435761u) % CELLS;
    for (; cells[at].round == current_round; at = (at + 1) % CELLS)
        if (cells[at].address == address) return &cells[at];
    return NULL;
}

static bool conflicts(int one, int other)
{
    bool writes = one % 2 == PLAIN_WRITE || other % 2 == PLAIN_WRITE; /* or the atomic kind of it */
    return writes && (one <= PLAIN_WRITE || other <= PLAIN_WRITE);
}

static void check_race(const cell *where, unsigned byte, int kind, const void *pc)
{
    static const char *const names[] = {"read", "write", "atomic read", "atomic write"};
    int self = mc_self();
    for (int other = 0; other < MC_THREADS; other++) {
        if (other == self || !(where->threads & 1u << other)) continue;
        for (int past = 0; past < ACCESSES; past++)
            if (conflicts(kind, past) && where->clocks[other][past][byte] > of_threads[self].clocks[other])
                mc_fail("data race: %s at %p of %p, %s of thread %d at %p", names[kind], pc,
                        (void *)(where->address + byte), names[past], other, where->pcs[other][past]);
    }
}

void mc_access(uintptr_t address, size_t size, bool write, bool atomic, const void *pc)
{
    int self = mc_self(), kind = (atomic ? ATOMIC_READ : PLAIN_READ) + write;
    uint16_t clock = of_threads[self].clocks[self];
    mc_check_alive(address, pc);
    while (size > 0) {
        unsigned from = address & 7, some = size < 8 - from ? (unsigned)size : 8 - from;
        cell *where = cell_at(address & ~(uintptr_t)7);
        where->threads |= (uint8_t)(1u << self);
        where->pcs[self][kind] = pc;
        bool alone = where->threads == 1u << self;
        for (unsigned byte = from; byte < from + some; byte++) {
            if (!alone) check_race(where, byte, kind, pc);
            where->clocks[self][kind][byte] = clock;
        }
        address += some;
        size -= some;
    }
}

void mc_access_ends(uintptr_t from, uintptr_t to)
{
    int self = mc_self();
    for (uintptr_t address = from & ~(uintptr_t)7; address < to; address += 8) {
        cell *where = find_cell(address);
        for (int other = 0; where != NULL && other < MC_THREADS; other++)
            for (int past = 0; past < ACCESSES && other != self; past++)
                for (int byte = 0; byte < 8; byte++)
                    if (where->clocks[other][past][byte] > of_threads[self].clocks[other])
                        mc_fail("%p of thread %d is in a frame of thread %d that may have ended: at %p",
                                (void *)address, other, self, where->pcs[other][past]);
    }
}

/* ---- atomic operations ---- */

static bool acquires(int order) { return order != __ATOMIC_RELAXED && order != __ATOMIC_RELEASE; }
static bool releases(int order) { return order >= __ATOMIC_RELEASE; } /* then come acq_rel and seq_cst */

static void read_store(location *where, uint32_t at, int order)
{
    int self = mc_self();
    of_threads[self].stores[where->index] = (uint16_t)at;
    mc_view_join(acquires(order) ? &of_threads[self] : &to_acquire[self], where->stores[at].view);
}

/* `read`: of the store that it replaces, if it is one half of a read-modify-write. */
static void append(location *where, uint64_t value, int order, const mc_view *read)
{
    int self = mc_self();
    if (where->count == MC_STORES) mc_fail("too many stores for the explorer: raise MC_STORES");
    uint32_t at = where->count++;
    of_threads[self].stores[where->index] = (uint16_t)at;
    mc_view *view = new_view(releases(order) ? &of_threads[self] : &fenced[self]);
    mc_view_join(view, read);
    view->stores[where->index] = (uint16_t)at;
    where->stores[at] = (store){value, view};
    if (order == __ATOMIC_SEQ_CST) common.stores[where->index] = (uint16_t)at;
}

static glance *glance_of(int thread, const void *pc, location *where)
{
    unsigned at = (unsigned)(((uintptr_t)pc * 31 + where->index) * 2654435761u >> 8) % GLANCES;
    for (unsigned tried = 0; tried < GLANCES; tried++, at = (at + 1) % GLANCES) {
        glance *found = &glances[thread][at];
        if (found->round == current_round && found->pc == pc && found->where == where) return found;
        if (found->round == current_round) continue;
        *found = (glance){pc, where, UINT32_MAX, 0, current_round};
        return found;
    }
    mc_fail("too many places that load for the explorer: raise GLANCES");
}

static bool has_newer(const mc_step *step)
{
    return locate(step->object, 1)->count > step->argument;
}

static mc_step step_of(mc_kind kind, const void *object, const void *pc, int order)
{
    bool writes = kind == MC_STORE || kind == MC_RMW;
    bool sequential = order == __ATOMIC_SEQ_CST;
    return (mc_step){
        .kind = kind, .object = object, .pc = pc, .writes = writes, .order = order, .sequential = sequential};
}

static uint64_t load(const void *object, size_t size, int order, const void *pc)
{
    int self = mc_self();
    if (self < 0) return fetch(object, size);
    location *where = locate(object, size);
    glance *past = glance_of(self, pc, where);
    mc_step step = step_of(MC_LOAD, object, pc, order);
    const mc_step *before = mc_spun_on();
    bool again = before != NULL && before->pc == pc && before->object == object;
    if (again && past->store == where->count - 1) {
        step.enabled = has_newer;
        step.argument = where->count;
    }
    mc_step_begin(&step);
    uint32_t newest = where->count - 1, oldest = of_threads[self].stores[where->index];
    if (order == __ATOMIC_SEQ_CST && common.stores[where->index] > oldest) oldest = common.stores[where->index];
    if (past->delays >= (again ? 1 : DELAYS) && past->store >= oldest) oldest = past->store + 1;
    bool may_be_old = mc_may_be_stale();
    uint32_t age = may_be_old ? mc_choose(newest - oldest + 1) : 0;
    if (age > 0) {
        mc_note_stale();
        mc_stale_loads++;
    }
    uint32_t at = newest - age;
    past->delays = at == newest ? 0 : past->store == at ? past->delays + 1 : 1;
    past->store = at;
    mc_access((uintptr_t)object, size, false, true, pc);
    read_store(where, at, order);
    mc_step *now = mc_step_now();
    now->seen = where->stores[at].value;
    now->age = age;
    now->read = at;
    now->oldest = may_be_old ? oldest : newest;
    mc_tick();
    return where->stores[at].value;
}

static void put(void *object, uint64_t value, size_t size) { memcpy(object, &value, size); }

static void save(void *object, uint64_t value, size_t size, int order, const void *pc)
{
    if (mc_self() < 0) {
        put(object, value, size);
        return;
    }
    location *where = locate(object, size);
    mc_step step = step_of(MC_STORE, object, pc, order);
    mc_step_begin(&step);
    mc_access((uintptr_t)object, size, true, true, pc);
    append(where, cut(value, size), order, NULL);
    put(object, value, size);
    mc_step_now()->left = cut(value, size);
    mc_step_now()->made = where->count - 1;
    mc_tick();
}

typedef uint64_t change(uint64_t old, uint64_t operand);
static uint64_t exchange(uint64_t old, uint64_t operand) { return (void)old, operand; }
static uint64_t add(uint64_t old, uint64_t operand) { return old + operand; }
static uint64_t subtract(uint64_t old, uint64_t operand) { return old - operand; }
static uint64_t and(uint64_t old, uint64_t operand) { return old & operand; }
static uint64_t or(uint64_t old, uint64_t operand) { return old | operand; }
static uint64_t xor(uint64_t old, uint64_t operand) { return old ^ operand; }
static uint64_t nand(uint64_t old, uint64_t operand) { return ~(old & operand); }

/* `expected`: NULL, or what it must be for the change to happen. */
static uint64_t modify(void *object, size_t size, change *how, uint64_t operand, const uint64_t *expected, int order,
                       int order_on_failure, const void *pc)
{
    if (mc_self() < 0) {
        uint64_t old = fetch(object, size);
        if (expected == NULL || *expected == old) put(object, how(old, operand), size);
        return old;
    }
    location *where = locate(object, size);
    mc_step step = step_of(MC_RMW, object, pc, order);
    mc_step_begin(&step);
    uint32_t at = where->count - 1;
    uint64_t old = where->stores[at].value;
    bool changes = expected == NULL || *expected == old;
    mc_access((uintptr_t)object, size, changes, true, pc);
    read_store(where, at, changes ? order : order_on_failure);
    mc_step_now()->seen = mc_step_now()->left = old;
    mc_step_now()->writes = changes;
    if (changes) {
        uint64_t value = cut(how(old, operand), size);
        append(where, value, order, where->stores[at].view);
        put(object, value, size);
        mc_step_now()->left = value;
        mc_step_now()->made = where->count - 1;
    }
    mc_tick();
    return old;
}

static void fence(int order, const void *pc)
{
    int self = mc_self();
    if (self < 0) return;
    mc_step step = step_of(MC_FENCE, &common, pc, order);
    mc_step_begin(&step);
    if (acquires(order)) mc_view_join(&of_threads[self], &to_acquire[self]);
    if (order == __ATOMIC_SEQ_CST) {
        join_stores(&of_threads[self], &common); /* not the clocks: two fences alone order no plain data */
        join_stores(&common, &of_threads[self]);
    }
    if (releases(order)) fenced[self] = of_threads[self];
    mc_tick();
}

/* ---- what the compiler calls ---- */

#define PC __builtin_return_address(0)

#define ATOMICS(bits, type)                                                                                           \
    type __tsan_atomic##bits##_load(const volatile type *object, int order)                                           \
    {                                                                                                                 \
        return (type)load((const void *)object, sizeof(type), order, PC);                                             \
    }                                                                                                                 \
    void __tsan_atomic##bits##_store(volatile type *object, type value, int order)                                    \
    {                                                                                                                 \
        save((void *)object, value, sizeof(type), order, PC);                                                         \
    }                                                                                                                 \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile type *object, type *expected, type value, int order,   \
                                                      int on_failure)                                                 \
    {                                                                                                                 \
        uint64_t wanted = *expected;                                                                                  \
        type old = (type)modify((void *)object, sizeof(type), exchange, value, &wanted, order, on_failure, PC);       \
        bool same = old == *expected;                                                                                 \
        if (!same) *expected = old;                                                                                   \
        return same;                                                                                                  \
    }                                                                                                                 \
    int __tsan_atomic##bits##_compare_exchange_weak(volatile type *object, type *expected, type value, int order,     \
                                                    int on_failure)                                                   \
    {                                                                                                                 \
        uint64_t wanted = *expected;                                                                                  \
        type old = (type)modify((void *)object, sizeof(type), exchange, value, &wanted, order, on_failure, PC);       \
        bool same = old == *expected;                                                                                 \
        if (!same) *expected = old;                                                                                   \
        return same;                                                                                                  \
    }                                                                                                                 \
    MODIFIES(bits, type, exchange, exchange)                                                                          \
    MODIFIES(bits, type, fetch_add, add)                                                                              \
    MODIFIES(bits, type, fetch_sub, subtract)                                                                         \
    MODIFIES(bits, type, fetch_and, and)                                                                              \
    MODIFIES(bits, type, fetch_or, or)                                                                                \
    MODIFIES(bits, type, fetch_xor, xor)                                                                              \
    MODIFIES(bits, type, fetch_nand, nand)

#define MODIFIES(bits, type, name, how)                                                                               \
    type __tsan_atomic##bits##_##name(volatile type *object, type operand, int order)                                 \
    {                                                                                                                 \
        return (type)modify((void *)object, sizeof(type), how, operand, NULL, order, order, PC);                      \
    }

ATOMICS(8, uint8_t)
ATOMICS(16, uint16_t)
ATOMICS(32, uint32_t)
ATOMICS(64, uint64_t)

void __tsan_atomic_thread_fence(int order) { fence(order, PC); }
void __tsan_atomic_signal_fence(int order) { (void)order; }

static void plain(const void *address, size_t size, bool write, const void *pc)
{
    int self = mc_self();
    if (self < 0) return;
    mc_plain_accesses++;
    mc_access((uintptr_t)address, size, write, false, pc);
}

#define ACCESS(name, size, write)                                                                                     \
    void __tsan_##name(void *address) { plain(address, size, write, PC); }
ACCESS(read1, 1, false)
ACCESS(read2, 2, false)
ACCESS(read4, 4, false)
ACCESS(read8, 8, false)
ACCESS(read16, 16, false)
ACCESS(write1, 1, true)
ACCESS(write2, 2, true)
ACCESS(write4, 4, true)
ACCESS(write8, 8, true)
ACCESS(write16, 16, true)
ACCESS(unaligned_read2, 2, false)
ACCESS(unaligned_read4, 4, false)
ACCESS(unaligned_read8, 8, false)
ACCESS(unaligned_read16, 16, false)
ACCESS(unaligned_write2, 2, true)
ACCESS(unaligned_write4, 4, true)
ACCESS(unaligned_write8, 8, true)
ACCESS(unaligned_write16, 16, true)
void __tsan_read_range(void *address, unsigned long size) { plain(address, size, false, PC); }
void __tsan_write_range(void *address, unsigned long size) { plain(address, size, true, PC); }
void __tsan_func_entry(void *pc) { (void)pc; }
void __tsan_func_exit(void) {}
void __tsan_init(void) {}
