/* What the generated module `pygo._core` includes. */
#ifndef PG_CAPI_H
#define PG_CAPI_H

#include "python/cdef.h"

#endif
