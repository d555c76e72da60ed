/* C++ exceptions in flight: see cxx.c. All of it inside the interpreter. */
#ifndef PG_CXX_H
#define PG_CXX_H

#include <stddef.h>

/* __cxa_eh_globals of the C++ ABI. */
typedef struct cxx_flight {
    void *caught;          /* the exceptions that are being handled, innermost first */
    unsigned int uncaught; /* how many are on their way */
} cxx_flight;

/* The calling OS thread's; NULL while no C++ runtime is in the process. */
extern cxx_flight *(*cxx_of_thread)(void);
/* Something has been loaded that may have brought one. */
void cxx_look(void);

#endif
