/* base/atomic.h, but the explorer is told when a thread spins. */
#ifndef MC_SHADOW_ATOMIC_H
#define MC_SHADOW_ATOMIC_H

#define pg_cpu_relax pg_real_cpu_relax
#include_next "base/atomic.h"
#undef pg_cpu_relax

void mc_relax(void);
static inline void pg_cpu_relax(void) { mc_relax(); }

#endif
