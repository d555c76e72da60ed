# cython: language_level=3, binding=True
"""What Cython makes of callbacks, generators, classes with finalizers, and sections without the GIL."""

from libc.stdlib cimport free, malloc


cdef extern from *:
    """
    static long long spin(long long rounds)
    {
        volatile long long sum = 0;
        for (long long i = 0; i < rounds; i++) sum += i;
        return sum;
    }

    static int call_each(int (*function)(int, void *), int count, void *opaque)
    {
        int sum = 0;
        for (int i = 0; i < count; i++) sum += function(i, opaque);
        return sum;
    }
    """
    long long spin(long long rounds) nogil
    int call_each(int (*function)(int, void *) noexcept nogil, int count, void *opaque) nogil


cdef int trampoline(int number, void *opaque) noexcept with gil:
    return (<object>opaque)(number)


cdef int direct(int number, object function) except? -1:
    return function(number)


def called_back(function, int count):
    """Python called from C without the GIL."""
    cdef int total
    cdef void *opaque = <void *>function
    with nogil:
        total = call_each(trampoline, count, opaque)
    return total


def called_directly(function, int count):
    """Python called from compiled code, and exceptions through it."""
    cdef int total = 0, number
    for number in range(count):
        total += direct(number, function)
    return total


def generate(function, int count):
    """A compiled generator that calls, and is resumed wherever its task is."""
    cdef int number
    for number in range(count):
        try:
            yield function(number)
        finally:
            function(-1)


def computed(function, int rounds):
    """Sections without the GIL before and after a wait."""
    cdef long long first, second
    with nogil:
        first = spin(rounds)
    function(0)
    with nogil:
        second = spin(rounds)
        with gil:
            function(1)
        second += spin(rounds)
    return first * 2 == second


cdef class Cell:
    """Its C state is freed where the last reference is given up; the finalizer calls back."""
    cdef object function
    cdef public object other
    cdef int *number

    def __cinit__(self, function, int number):
        self.number = <int *>malloc(sizeof(int))
        self.number[0] = number
        self.function = function
        function(number)

    def __dealloc__(self):
        number = self.number[0]
        free(self.number)
        self.function(number)

    def __getitem__(self, index):
        return self.function(self.number[0] + index)

    def __eq__(self, other):
        self.function(0)
        return isinstance(other, Cell) and (<Cell>other).number[0] == self.number[0]

    @property
    def value(self):
        return self.function(self.number[0])


async def awaited(awaitable, function):
    """A compiled coroutine."""
    function(0)
    value = await awaitable
    function(1)
    return value
