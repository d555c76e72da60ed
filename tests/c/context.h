/* A context on a stack of its own, with what ThreadSanitizer must be told about it. For tests of the bare switch; the
 * scheduler has its own. */
#ifndef CONTEXT_H
#define CONTEXT_H

#include "check.h"
#include "machine/stack.h"
#include "machine/switch.h"

#ifdef PG_TSAN
#include <sanitizer/tsan_interface.h>
#endif

typedef struct context {
    void *suspended; /* what pg_switch saved */
    void *tsan;
} context;

static inline void context_start(context *self, void *top, void (*entry)(void *))
{
    self->suspended = pg_switch_prepare(top, entry);
#ifdef PG_TSAN
    self->tsan = __tsan_create_fiber(0);
#endif
}

static inline void context_end(context *self)
{
#ifdef PG_TSAN
    __tsan_destroy_fiber(self->tsan);
#endif
    self->suspended = NULL;
}

static inline void *context_switch(context *from, context *to, void *value)
{
#ifdef PG_TSAN
    from->tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->tsan, 0);
#endif
    return pg_switch(&from->suspended, to->suspended, value);
}

#endif
