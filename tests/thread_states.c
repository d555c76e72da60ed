/* A library's thread that makes thread states of CPython outside of the GIL, as PyGILState_Ensure does once per thread. They
 * stay until the process ends. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

void *PyThreadState_New(void *interpreter);

static atomic_int left, made;

static void *make(void *interpreter)
{
    for (;;) {
        while (atomic_load(&left) > 0) {
            atomic_fetch_add(&made, PyThreadState_New(interpreter) != NULL);
            atomic_fetch_sub(&left, 1);
        }
        nanosleep(&(struct timespec){0, 20000}, NULL);
    }
    return NULL;
}

int start(void *interpreter)
{
    pthread_t thread;
    return pthread_create(&thread, NULL, make, interpreter);
}

/* That many from now on. Returns how many there are. */
int go_on(int count)
{
    atomic_store(&left, count);
    return atomic_load(&made);
}
