/* Fatal ends and the names of the return codes. */
#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void pg_fatal_at(const char *function, const char *format, ...)
{
    va_list arguments;
    fprintf(stderr, "pygo: fatal error in %s: ", function);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    fflush(stderr);
    abort();
}

const char *pg_error_name(int code)
{
    switch (code) {
    case PG_OK: return "ok";
    case PG_ENOMEM: return "out of memory";
    case PG_ECLOSED: return "closed";
    case PG_ETIMEDOUT: return "timed out";
    case PG_EAGAIN: return "would wait";
    case PG_EINTERRUPTED: return "interrupted";
    case PG_EINVAL: return "invalid";
    case PG_ESTOPPED: return "stopped";
    case PG_ECANCELED: return "cancelled";
    default: return "unknown";
    }
}
