/* Preloaded by test_errno_matrix: system calls of the core fail, each with what its manual names, every other time.
 *
 * FAULT says which. At the end of the process the number of faults goes to standard error. Only what the core calls is
 * touched: recognised by the kind of mapping, the thread's stack size, the name of the file.
 */
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { GUARD_INSTALL = 102 };

static _Atomic unsigned calls, faults;
static const char *fault;
static pid_t first;

__attribute__((constructor)) static void start(void)
{
    fault = getenv("FAULT");
    first = getpid();
}

__attribute__((destructor)) static void finish(void)
{
    if (getpid() == first) fprintf(stderr, "%u faults\n", faults);
}

static int fails(const char *name, int code)
{
    if (fault == NULL || strcmp(fault, name) != 0 || calls++ % 2 != 0) return 0;
    faults++;
    errno = code;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

long syscall(long number, ...)
{
    static long (*real)(long, ...);
    va_list list;
    long a[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (real == NULL) real = REAL(syscall);
    if (number == SYS_futex) {
        int operation = (int)a[1] & FUTEX_CMD_MASK;
        if (operation == FUTEX_WAIT_BITSET && (fails("futex wait EINTR", EINTR) || fails("futex wait EAGAIN", EAGAIN))) return -1;
        if (operation == FUTEX_WAKE && fails("futex wake EFAULT", EFAULT)) { /* of memory that has gone: others were woken */
            real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
            errno = EFAULT;
            return -1;
        }
    }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument)
{
    static __typeof__(&pthread_create) real;
    size_t size = 0;
    int detached = 0;
    if (real == NULL) real = REAL(pthread_create);
    if (attributes != NULL) {
        pthread_attr_getstacksize(attributes, &size);
        pthread_attr_getdetachstate(attributes, &detached);
    }
    if (size == 256 * 1024 && detached == PTHREAD_CREATE_DETACHED && fails("pthread_create EAGAIN", EAGAIN)) return EAGAIN;
    return real(thread, attributes, body, argument);
}

void *mmap(void *start, size_t size, int protection, int flags, int file, off_t offset)
{
    static __typeof__(&mmap) real;
    if (real == NULL) real = REAL(mmap);
    if ((flags & MAP_NORESERVE) && size > 1024 * 1024 && fails("mmap ENOMEM", ENOMEM)) return MAP_FAILED;
    return real(start, size, protection, flags, file, offset);
}

int munmap(void *start, size_t size)
{
    static __typeof__(&munmap) real;
    if (real == NULL) real = REAL(munmap);
    if (size > 8 * 1024 * 1024 && fails("munmap ENOMEM", ENOMEM)) return -1; /* a stack of its own */
    return real(start, size);
}

int madvise(void *start, size_t size, int advice)
{
    static __typeof__(&madvise) real;
    if (real == NULL) real = REAL(madvise);
    if (advice == GUARD_INSTALL && fault != NULL && strcmp(fault, "mprotect ENOMEM") == 0) {
        errno = EINVAL; /* a kernel without lightweight guards */
        return -1;
    }
    if (fails("madvise EINVAL", EINVAL) || fails("madvise ENOMEM", ENOMEM) || fails("madvise EAGAIN", EAGAIN)) return -1;
    return real(start, size, advice);
}

int mprotect(void *start, size_t size, int protection)
{
    static __typeof__(&mprotect) real;
    if (real == NULL) real = REAL(mprotect);
    if (protection == PROT_NONE && fails("mprotect ENOMEM", ENOMEM)) return -1;
    return real(start, size, protection);
}

int nanosleep(const struct timespec *span, struct timespec *left)
{
    static __typeof__(&nanosleep) real;
    if (real == NULL) real = REAL(nanosleep);
    if (fails("nanosleep EINTR", EINTR)) return -1;
    return real(span, left);
}

int open(const char *path, int flags, ...)
{
    static __typeof__(&open) real;
    va_list list;
    va_start(list, flags);
    int mode = va_arg(list, int);
    va_end(list);
    if (real == NULL) real = REAL(open);
    if (strcmp(path, "/proc/self/stat") == 0 && fails("open EMFILE", EMFILE)) return -1;
    return real(path, flags, mode);
}
