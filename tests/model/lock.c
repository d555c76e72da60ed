/* Model: the lock of os/os.h and os/os.c itself, on futexes; all others take it for one step. It spins once, not 64
 * times. */
#include "explore.h"

#include "os/os.h"

static pg_lock lock;
static int inside, count; /* plain: under the lock */

static void setup(void)
{
    pg_lock_init(&lock);
    inside = count = 0;
}

static void use(void)
{
    MC_CHECK(inside++ == 0);
    count++;
    inside--;
    pg_lock_release(&lock);
}
static void user(void)
{
    pg_lock_acquire(&lock);
    use();
}
static void user_twice(void)
{
    user();
    user();
}
static void trier(void)
{
    if (pg_lock_try(&lock)) use();
}

static void check(void) { MC_CHECK(inside == 0 && count >= 1 && lock.word == 0); }
static void check_three(void) { MC_CHECK(inside == 0 && count == 3 && lock.word == 0); }

const mc_scenario mc_scenarios[] = {
    {"two_users", setup, {user_twice, user}, check_three},
    {"three_users", setup, {user, user, user}, check_three},
    {"user_and_trier", setup, {user, trier}, check},
    {.name = NULL},
};
