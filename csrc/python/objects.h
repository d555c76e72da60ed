/* The native types of `pygo._native` and what their files share.
 *
 * All of it runs inside the interpreter (with the GIL). Object references that lie in a channel's ring or a waiter are
 * strong; a value is handed over with its reference.
 */
#ifndef PG_OBJECTS_H
#define PG_OBJECTS_H

#include "python/interp.h"
#include "sched/bubble.h"
#include "sync/chan.h"
#include "sync/latch.h"
#include "sync/mutex.h"
#include "sync/semaphore.h"

/* What a waiting task waits for; lies on the waiting call's stack, pg_fiber.wait points to it. */
typedef struct wait_info {
    const char *reason;
    PyObject *object;          /* borrowed, or NULL */
    PyObject *const *objects;  /* or several: borrowed select cases */
    Py_ssize_t count;
    bool durable; /* only the waiter's bubble can end it; channels know that themselves */
} wait_info;

/* What the call is made with, beside the function; from PyMem_Malloc. */
typedef struct task_call {
    PyObject *group;      /* the WaitGroup that counts the task, or NULL */
    uint32_t positional, named; /* arguments; 0 when they have been dropped, at the end of the call */
    PyObject *arguments[]; /* those by position, those by name, and if there are any of these the tuple of their names */
} task_call;

/* What few tasks have. */
typedef struct task_rare {
    pg_latch ended;      /* somebody waits for the end, or did: count 1 until then */
    PyObject *name;
    PyObject *callbacks; /* list */
    PyObject *traceback; /* of a failure, as it left the task */
    PyObject *reason;    /* what cancel() was given */
    struct BubbleObject *bubble; /* the one it runs in; cleared when it ends */
} task_rare;

/* With the garbage collector's header two cache lines. */
typedef struct TaskObject {
    PyObject_HEAD
    pg_task core;

    PyObject *payload;       /* the function; when done, the result, or the exception if failed */
    PyObject *context;
    PyObject *spawner_code;  /* where it was spawned */
    int spawner_instruction;
    bool own_context : 1;    /* given by the user: entered the official way */
    bool live : 1;           /* spawned and not ended; the runtime owns a reference */
    bool started : 1, done : 1, retrieved : 1, failed : 1;
    bool cancel_requested : 1; /* by cancel() */
    bool cancelled : 1;      /* failed, with Cancelled */
    bool tracked : 1;        /* by the garbage collector */

    uint64_t id;
    PyObject *weakrefs;
    task_rare *rare;         /* NULL while it has nothing of that */
    task_call *call;         /* NULL: no arguments and no group; or it has ended */
} TaskObject;

typedef struct ChannelObject {
    PyObject_HEAD
    pg_chan core;
    PyObject *weakrefs;
    PyObject *sender, *receiver; /* borrowed: a view owns its channel, and takes itself out when it goes */
    struct alarm_entry *alarm;   /* what sends the time into it, or NULL; goes with it */
} ChannelObject;

typedef struct ViewObject {
    PyObject_HEAD
    ChannelObject *channel;
    PyObject *weakrefs;
} ViewObject;

typedef struct CaseObject {
    PyObject_HEAD
    ChannelObject *channel; /* NULL for None: never ready */
    bool is_send;
    PyObject *value;
} CaseObject;

typedef struct WaitGroupObject {
    PyObject_HEAD
    pg_latch core;
    uint32_t bubble;      /* whose add() raised the counter from zero: its id, 0: none's */
    PyObject *on_failure; /* called with the task and its exception, which then counts as retrieved; or NULL */
    PyObject *weakrefs;
} WaitGroupObject;

typedef struct LockObject {
    PyObject_HEAD
    pg_mutex core;
    bool shielded; /* cancellation waits for it */
    uint32_t bubble; /* it belongs to: its id, 0: none; as in those below */
    PyObject *weakrefs;
} LockObject;

typedef struct RLockObject {
    PyObject_HEAD
    pg_mutex core;
    uint64_t owner; /* 0: nobody, or who has been handed the mutex and has not run since */
    size_t depth;   /* how often the owner holds it */
    uint32_t bubble;
    PyObject *weakrefs;
} RLockObject;

typedef struct SemaphoreObject {
    PyObject_HEAD
    pg_semaphore core;
    int64_t limit; /* how many permits may be free */
    uint32_t bubble;
    PyObject *weakrefs;
} SemaphoreObject;

typedef struct EventObject {
    PyObject_HEAD
    pg_latch core; /* 0: set; 1: not */
    uint32_t bubble;
    PyObject *weakrefs;
} EventObject;

extern PyTypeObject Lock_Type, RLock_Type, Semaphore_Type, BoundedSemaphore_Type, WeightedSemaphore_Type, Event_Type;
extern PyTypeObject Scope_Type, Task_Type, Channel_Type, SendChannel_Type, RecvChannel_Type, Case_Type, WaitGroup_Type;

/* A Timer or a Ticker. */
typedef struct TimerObject {
    PyObject_HEAD
    struct alarm_entry *alarm; /* the channel's, or with a function its own */
    ChannelObject *channel; /* NULL with a function */
    PyObject *function, *context;
    PyObject *spawner_code; /* where it was made: there its tasks are spawned */
    int spawner_instruction;
    bool held;              /* the runtime owns a reference: the function is still to be called */
    PyObject *weakrefs;
} TimerObject;

extern PyTypeObject Timer_Type, Ticker_Type;

/* What pygo.testing.bubble runs. Its tasks, and the timers made there, own it. */
typedef struct BubbleObject {
    PyObject_HEAD
    pg_bubble core;
    pg_task steward; /* queued while core.attended */
    pg_node rang;    /* timer.c's: what is to be delivered */
    pg_latch end;    /* count 1 until over */
    bool over;       /* its tasks have ended, or wait for each other for ever */
    bool closing;    /* what is left is being cancelled */
} BubbleObject;

extern PyTypeObject Bubble_Type;

/* Objects of the Python layer that the native code needs; filled in when the module is made. */
typedef struct py_names {
    PyObject *error, *channel_closed, *cancelled, *task_cancelled, *task_exit;
    PyObject *selected, *waiting_on; /* named tuple types */
    PyObject *threading;             /* its dict */
    PyObject *deadlock_error;        /* function */
    PyObject *pygo, *trace_hook, *profile_hook; /* interned strings */
} py_names;
extern py_names names;

/* ---- calls.c: what waiting calls share ---- */
/* A timeout argument (seconds or None) as a deadline. -1 with ValueError or TypeError. */
int deadline_from(PyObject *timeout, pg_nanos *deadline);
/* Seconds as nanoseconds, rounded up, saturated. */
int nanos_from(PyObject *seconds, pg_nanos *nanos);
/* Note what the running task is about to wait for. */
void note_wait(const wait_info *info);
/* Translate a failed core call into an exception; always -1. An interrupted wait has raised already. */
int raise_outcome(int outcome, const char *what);
/* After a call that succeeded although a signal handler raised meanwhile: raise that later, in the main thread. */
void raise_later(void);
extern bool main_was_interrupted; /* main_interrupted said yes */
static inline void after_success(void)
{
    if (PG_UNLIKELY(main_was_interrupted)) raise_later();
    if (PG_UNLIKELY(pg_load_relaxed(&pg_sched_is_seeded))) pg_sched_preempt_point();
}
/* Raise `exception` (stolen) in the main thread, where SystemExit and KeyboardInterrupt of tasks belong. */
void raise_in_main(PyObject *exception);
/* In the child of a fork: what was to end the parent is none of its business. */
void forget_pending_in_main(void);
/* The caller is about to raise `exception`; if that is the main thread, it need not get it again. */
void not_again_in_main(PyObject *exception);
bool main_interrupted(void);
/* The main thread waits, and nothing that the scheduler knows of can wake it. */
bool main_stuck(void);
/* Keyword arguments of vectorcall functions: looks `name` up; found ones are counted in *used. */
PyObject *keyword(PyObject *const *args, Py_ssize_t positional, PyObject *keywords, const char *name,
                  Py_ssize_t *used);
/* TypeError unless every keyword was used. */
int check_keywords(const char *function, PyObject *keywords, Py_ssize_t used);
/* The optional `timeout`, positional at `at` or by keyword; and nothing else beyond `at` positional arguments. */
int some_timeout(const char *function, PyObject *const *args, Py_ssize_t positional, PyObject *keywords, Py_ssize_t at,
                 pg_nanos *deadline);
static inline int timeout_argument(const char *function, PyObject *const *args, Py_ssize_t positional,
                                   PyObject *keywords, Py_ssize_t at, pg_nanos *deadline)
{
    *deadline = PG_FOREVER;
    if (PG_LIKELY(positional == at && keywords == NULL)) return 0;
    return some_timeout(function, args, positional, keywords, at, deadline);
}

/* ---- task.c ---- */
int task_setup(void);  /* once, before the first; -1 with an exception set */
bool task_give_back(void); /* memory kept for further tasks and not needed since the last call; true: some is left */
TaskObject *task_new(PyObject *function, PyObject *const *args, Py_ssize_t positional, PyObject *keywords,
                     PyObject *group);
void task_start(TaskObject *task); /* schedules; steals nothing */
TaskObject *task_current(void);    /* borrowed; NULL outside of tasks */
/* The object around the record: borrowed, NULL for tasks that are none of Python's and stand-ins of threads. */
TaskObject *task_from_core(pg_task *core);
PyObject *task_list_all(void);
/* What _snapshot() gives as a stack, of an ordinary thread; empty for an unknown one. */
PyObject *task_stack_of_thread(unsigned long ident);
void task_describe(pg_task *core, char *text, size_t room); /* in a signal handler */
void task_report_unretrieved(void);
/* Whether pygo.excepthook is being called, here or elsewhere. */
bool task_is_reporting(void);
void task_forget_others(TaskObject *survivor); /* in a fork's child */
/* Before it is started: it will run in the bubble. -1 with MemoryError. */
int task_put_in_bubble(TaskObject *task, BubbleObject *bubble);
PyObject *task_list_bubble(BubbleObject *bubble);
int task_cancel_bubble(BubbleObject *bubble); /* -1 with MemoryError */
size_t task_live_count(void);
uint64_t task_started_count(void);

/* As Task.cancel(): false if it has ended. */
bool task_cancel(TaskObject *task, PyObject *reason);
/* Cancel all live tasks of the group. -1 with MemoryError. */
int task_cancel_group(PyObject *group, PyObject *reason);

/* ---- scope.c: what may cancel the waits of a task or thread ---- */
/* pg_hooks.is_cancelled */
bool scope_is_cancelled(pg_task *self);
/* Raise Cancelled, with the reason. Always NULL. */
PyObject *raise_cancelled(void);
/* The caller's alarm may ask it to give up although it has not waited: 0, or -1 with Cancelled. */
int check_cancelled(void);
/* The task has ended: whatever scopes it left open are closed. */
void scope_abandon_all(pg_fiber *fiber);
/* In a fork's child, by the survivor: deadlines of its scopes count on. */
void scope_after_fork(pg_task *self);

/* ---- channel.c ---- */
ChannelObject *channel_make(uint32_t capacity);
PyObject *channel_receiver(ChannelObject *channel);
/* The channel behind a channel or view that allows the direction: borrowed, or NULL with TypeError. */
ChannelObject *channel_from(PyObject *object, bool to_send);

/* ---- bubble.c ---- */
BubbleObject *bubble_current(void); /* the caller's: borrowed, NULL if it is in none */
/* For use of an object that belongs to a bubble: 0, or -1 with RuntimeError when the caller is not in it. `what` says what
 * is done to which object. */
int check_bubble_slow(uint32_t bubble, const char *what);
static inline int check_bubble(uint32_t bubble, const char *what)
{
    return PG_LIKELY(bubble == 0) ? 0 : check_bubble_slow(bubble, what);
}
static inline bool is_own_bubble(uint32_t bubble)
{
    pg_bubble *own = bubble != 0 ? pg_bubble_current() : NULL;
    return own != NULL && own->id == bubble;
}

/* ---- timer.c ---- */
/* Deliver what rang in a bubble. */
void timer_deliver(pg_node *rang);
/* Stop all Timers, Tickers and channels of after() in a bubble's heap. */
void timer_drop_all(pg_timers *timers);
/* Whether somebody is there whom it will wake, as far as can be seen. */
bool timer_is_awaited(const pg_timer *timer);
/* A channel that gets the time once, in so many nanoseconds. */
ChannelObject *timer_channel(pg_nanos nanos);
void alarm_free(struct alarm_entry *alarm);
/* The channel that a pending timer will send to: borrowed, or NULL if it does something else. */
PyObject *timer_target(const pg_timer *timer);
void timer_after_fork_in_child(void);

/* ---- lock.c: what the types of pygo.sync share ---- */
typedef struct call_arguments {
    const char *function; /* its name, for complaints */
    PyObject *const *args;
    Py_ssize_t count; /* positional ones; those of `keywords` follow */
    PyObject *keywords;
} call_arguments;

/* The arguments of `many` optional parameters, borrowed; NULL where none was given. -1 with TypeError. */
int pick_arguments(const call_arguments *call, const char *const *parameters, PyObject **values, Py_ssize_t many);
/* threading's timeouts: None or NULL for ever, zero and less once. -1 with TypeError, ValueError or OverflowError. */
int patience_from(PyObject *timeout, pg_nanos *deadline);
/* threading's results: True, or False when the time has passed; NULL with what raise_outcome raises. */
PyObject *truth_of(int outcome, const char *what);
/* For a type's constructor: no arguments, unless it makes a subclass. False with TypeError. */
bool takes_nothing(PyTypeObject *type, PyTypeObject *base, PyObject *args, PyObject *kwargs);

/* ---- module-level functions ---- */
extern PyMethodDef select_methods[], time_methods[], scope_functions[], lock_functions[], bubble_functions[];

/* ---- greenlet.c ---- */

/* The greenlet package's extension module has been loaded. 0, or -1 with an exception. */
int greenlet_take_over(PyObject *module);

#endif
