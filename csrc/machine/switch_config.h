/* What C and assembly both need to know of the switch. */
#ifndef PG_SWITCH_CONFIG_H
#define PG_SWITCH_CONFIG_H

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(PG_SWITCH_PORTABLE)
#define PG_SWITCH_PORTABLE 1
#endif

/* Size of the frame that pg_switch leaves on a suspended stack, return address included. */
#if defined(__x86_64__)
#define PG_SWITCH_FRAME 64
#elif defined(__aarch64__)
#define PG_SWITCH_FRAME 176
#endif

/* The trampoline is entered behind its first instruction: unwinders look up the byte before a return address, which
 * must not lie in the function before it. */
#define PG_SWITCH_ENTRY 4

#endif
