/* Building the first frame of a new context for the assembly switches. */
#include "machine/switch.h"

#include <string.h>

#ifndef PG_SWITCH_PORTABLE

void pg_switch_trampoline(void);

typedef struct first_frame {
#if defined(__x86_64__)
    uint32_t mxcsr;
    uint32_t x87_control;
    uint64_t r15, r14, r13, r12, rbx, rbp;
    uint64_t return_address;
#elif defined(__aarch64__)
    uint64_t fpcr;
    uint64_t unused;
    uint64_t x19, x20, x21, x22, x23, x24, x25, x26, x27, x28, x29;
    uint64_t x30; /* where the switch returns to */
    uint64_t d8_to_d15[8];
#endif
} first_frame;

_Static_assert(sizeof(first_frame) == PG_SWITCH_FRAME, "the assembly file lays out the same frame");

void *pg_switch_prepare(void *top, void (*entry)(void *value))
{
    /* The x86-64 return pops the frame's last word, which leaves the stack pointer at the aligned top. */
    first_frame *frame = (first_frame *)top - 1;
    pg_check(((uintptr_t)top & 15) == 0);
    memset(frame, 0, sizeof *frame);
#if defined(__x86_64__)
    frame->mxcsr = 0x1f80;      /* round to nearest, all exceptions masked: what a new process starts with */
    frame->x87_control = 0x037f;
    frame->rbx = (uint64_t)(uintptr_t)entry;
    frame->return_address = (uint64_t)(uintptr_t)pg_switch_trampoline + PG_SWITCH_ENTRY;
#elif defined(__aarch64__)
    frame->x19 = (uint64_t)(uintptr_t)entry;
    frame->x30 = (uint64_t)(uintptr_t)pg_switch_trampoline + PG_SWITCH_ENTRY;
#endif
    return frame;
}

#endif
