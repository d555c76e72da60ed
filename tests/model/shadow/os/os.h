/* os/os.h with locks that are one step of the explorer, which knows whom they hold up. The real ones have a model of
 * their own (lock.c); everywhere else their words would only multiply the schedules. */
#ifndef MC_SHADOW_OS_H
#define MC_SHADOW_OS_H

#define pg_lock_acquire pg_real_lock_acquire
#define pg_lock_try pg_real_lock_try
#define pg_lock_release pg_real_lock_release
#define pg_lock_init pg_real_lock_init
#include_next "os/os.h"
#undef pg_lock_acquire
#undef pg_lock_try
#undef pg_lock_release
#undef pg_lock_init

void pg_lock_acquire(pg_lock *lock);
bool pg_lock_try(pg_lock *lock);
void pg_lock_release(pg_lock *lock);
static inline void pg_lock_init(pg_lock *lock) { lock->word = 0; }

#endif
