/* C++ exceptions in flight, of tasks that wait meanwhile.
 *
 * The C++ runtime keeps the exceptions that are being handled, and the number of those on their way, per OS thread. A task may
 * wait inside a catch block, or in a destructor that runs because of an exception, when C++ code calls Python there. Others
 * that run on the thread would find its exceptions, and end theirs in the wrong order. So the two words move with the task:
 * they are taken at the switch, and put back where it resumes. Exceptions themselves are on the heap and bound to no thread.
 *
 * libstdc++ is asked for only once it is in the process; to load it ourselves could be the wrong one. It comes with extension
 * modules (the import system tells us, pygo/_imports.py) or with libraries of ctypes and cffi, which call back through
 * PyGILState. A copy that is linked statically into an extension has words of its own, which nobody else can find.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "python/cxx.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>

#include "base/atomic.h"

cxx_flight *(*cxx_of_thread)(void);

static int read_count(struct dl_phdr_info *info, size_t size, void *count)
{
    *(unsigned long long *)count = info->dlpi_adds;
    return 1; /* the first is enough */
}

static void *find_in(const char *library)
{
    void *handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD), *symbol;
    if (handle == NULL) return NULL;
    symbol = dlsym(handle, "__cxa_get_globals");
    if (symbol == NULL) dlclose(handle); /* else it stays */
    return symbol;
}

void cxx_look(void)
{
    static unsigned long long seen; /* libraries loaded so far */
    unsigned long long count = 0;
    if (cxx_of_thread != NULL) return;
    dl_iterate_phdr(read_count, &count);
    if (count == seen) return;
    seen = count;
    void *found = find_in("libstdc++.so.6");
    if (found == NULL) found = find_in("libc++abi.so.1");
    memcpy(&cxx_of_thread, &found, sizeof found);
}
