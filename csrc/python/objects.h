/* The native types of `pygo._native` and what their files share.
 *
 * All of it runs inside the interpreter (with the GIL). Object references that lie in a channel's ring or a waiter are
 * strong; a value is handed over with its reference.
 */
#ifndef PG_OBJECTS_H
#define PG_OBJECTS_H

#include "python/interp.h"
#include "sync/chan.h"
#include "sync/latch.h"

/* What a waiting task waits for; lies on the waiting call's stack, pg_fiber.wait points to it. */
typedef struct wait_info {
    const char *reason;
    PyObject *object;          /* borrowed, or NULL */
    PyObject *const *objects;  /* or several: borrowed select cases */
    Py_ssize_t count;
} wait_info;

typedef struct TaskObject {
    PyObject_VAR_HEAD
    pg_task core;
    pg_latch ended;          /* count 1 until it has ended */
    pg_node link;            /* in all_tasks, later in unreported_tasks */
    uint64_t id;
    PyObject *function;      /* cleared when it ends, as are the arguments */
    PyObject *keywords;      /* tuple of names, or NULL */
    PyObject *context;
    PyObject *traceback;     /* of a failure, as it left the task */
    bool own_context;        /* given by the user: entered the official way */
    bool started, done, retrieved, failed;
    PyObject *name;
    PyObject *spawner_code;  /* where it was spawned */
    int spawner_instruction;
    uint32_t argument_count; /* positional */
    PyObject *outcome;       /* result, or exception when failed */
    PyObject *group;         /* the WaitGroup that counts it */
    PyObject *callbacks;     /* list */
    PyObject *weakrefs;
    PyObject *arguments[1];  /* positional, then those of `keywords` */
} TaskObject;

typedef struct ChannelObject {
    PyObject_HEAD
    pg_chan core;
    PyObject *weakrefs;
    PyObject *sender, *receiver; /* borrowed: a view owns its channel, and takes itself out when it goes */
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
    PyObject *weakrefs;
} WaitGroupObject;

extern PyTypeObject Task_Type, Channel_Type, SendChannel_Type, RecvChannel_Type, Case_Type, WaitGroup_Type;

/* Objects of the Python layer that the native code needs; filled in when the module is made. */
typedef struct py_names {
    PyObject *error, *channel_closed, *task_cancelled, *task_exit;
    PyObject *selected, *waiting_on; /* named tuple types */
    PyObject *threading;             /* its dict */
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
}
/* Raise `exception` (stolen) in the main thread, where SystemExit and KeyboardInterrupt of tasks belong. */
void raise_in_main(PyObject *exception);
/* The caller is about to raise `exception`; if that is the main thread, it need not get it again. */
void not_again_in_main(PyObject *exception);
bool main_interrupted(void);
/* Keyword arguments of vectorcall functions: looks `name` up; found ones are counted in *used. */
PyObject *keyword(PyObject *const *args, Py_ssize_t positional, PyObject *keywords, const char *name,
                  Py_ssize_t *used);
/* TypeError unless every keyword was used. */
int check_keywords(const char *function, PyObject *keywords, Py_ssize_t used);
/* The optional `timeout`, positional at `at` or by keyword; and nothing else beyond `at` positional arguments. */
int timeout_argument(const char *function, PyObject *const *args, Py_ssize_t positional, PyObject *keywords,
                     Py_ssize_t at, pg_nanos *deadline);

/* ---- task.c ---- */
TaskObject *task_new(PyObject *function, PyObject *const *args, Py_ssize_t positional, PyObject *keywords);
void task_start(TaskObject *task); /* schedules; steals nothing */
TaskObject *task_current(void);    /* borrowed; NULL outside of tasks */
PyObject *task_list_all(void);
void task_report_unretrieved(void);
void task_forget_others(TaskObject *survivor); /* in a fork's child */
size_t task_live_count(void);
uint64_t task_started_count(void);

/* ---- channel.c ---- */
ChannelObject *channel_make(uint32_t capacity);
PyObject *channel_receiver(ChannelObject *channel);
/* The channel behind a channel or view that allows the direction: borrowed, or NULL with TypeError. */
ChannelObject *channel_from(PyObject *object, bool to_send);

/* ---- module-level functions: select.c, time.c ---- */
extern PyMethodDef select_methods[], time_methods[];

#endif
