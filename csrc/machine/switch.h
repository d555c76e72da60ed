/* The context switch: save the callee-saved registers and the floating-point environment on the running stack, then
 * go on with another stack. One assembly file per CPU, plus switch_portable.c (ucontext) for others or when
 * PG_SWITCH_PORTABLE is defined.
 *
 * A suspended context is one word, its stack pointer; everything else lies on its stack. The caller keeps errno.
 */
#ifndef PG_SWITCH_H
#define PG_SWITCH_H

#include "base/base.h"
#include "machine/switch_config.h"

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <fenv.h>
#endif

/* Suspend the running context in *save and resume the one `resume` names. Returns, when somebody switches back, the
 * `value` which that switch passed. */
void *pg_switch(void **save, void *resume, void *value);

/* Prepare a context that calls entry(value of the first switch to it) on the stack whose highest address is `top`
 * (16-byte aligned), with a clean floating-point environment. `entry` never returns. Unwinders stop there. */
void *pg_switch_prepare(void *top, void (*entry)(void *value));

/* The floating-point environment of a new context: round to nearest, all exceptions masked. */
static inline void pg_switch_clean_float(void)
{
#if defined(__x86_64__)
    static const uint32_t mxcsr = 0x1f80;
    static const uint16_t x87_control = 0x037f;
    __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(mxcsr), "m"(x87_control));
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, xzr");
#else
    fesetenv(FE_DFL_ENV);
#endif
}

/* Call function(argument) on the stack that ends at `top`, then come back to this one. The function may itself switch
 * contexts. Unwinders see the caller. */
void *pg_switch_call_on(void *top, void *(*function)(void *), void *argument);

#endif
