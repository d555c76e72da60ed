// An extension module in C++ whose functions call Python back in the middle of exceptions.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <atomic>
#include <exception>
#include <stdexcept>
#include <string>

namespace {

struct PythonError {}; // a Python exception is set

thread_local int depth; // how many of our functions the thread is in, as binding generators count it

struct Depth {
    Depth() { ++depth; }
    ~Depth() { --depth; }
};

void call(PyObject *callback)
{
    PyObject *result = PyObject_CallNoArgs(callback);
    if (result == nullptr) throw PythonError();
    Py_DECREF(result);
}

std::atomic<int> destroyed;

struct Frame {
    ~Frame() { ++destroyed; }
};

__attribute__((noinline)) void throw_from(int frames, int number)
{
    Frame frame;
    if (frames > 0) throw_from(frames - 1, number);
    else throw std::runtime_error(std::to_string(number));
}

// Waits in a destructor that an exception runs.
struct Waiting {
    PyObject *callback;
    bool *same;
    ~Waiting()
    {
        int before = std::uncaught_exceptions();
        PyObject *result = PyObject_CallNoArgs(callback);
        *same = result != nullptr && before == std::uncaught_exceptions();
        Py_XDECREF(result);
    }
};

PyObject *guarded(PyObject *(*body)(PyObject *, int), PyObject *args)
{
    PyObject *callback;
    int number;
    if (!PyArg_ParseTuple(args, "Oi", &callback, &number)) return nullptr;
    Depth here;
    try {
        return body(callback, number);
    } catch (PythonError &) {
        return nullptr;
    } catch (std::exception &error) {
        PyErr_Format(PyExc_RuntimeError, "C++: %s", error.what());
        return nullptr;
    }
}

// Catch, wait, throw again, catch again, wait; what it caught, each time.
PyObject *caught(PyObject *callback, int number)
{
    std::string first, second, current;
    try {
        try {
            throw_from(5, number);
        } catch (std::runtime_error &error) {
            first = error.what();
            call(callback);
            throw;
        }
    } catch (std::runtime_error &error) {
        call(callback);
        second = error.what();
        try {
            std::rethrow_exception(std::current_exception());
        } catch (std::runtime_error &again) {
            call(callback);
            current = again.what();
        }
    }
    return Py_BuildValue("sssi", first.c_str(), second.c_str(), current.c_str(), std::current_exception() == nullptr);
}

// Wait while an exception is on its way.
PyObject *unwinding(PyObject *callback, int number)
{
    bool same = false;
    try {
        Waiting waiting{callback, &same};
        throw_from(3, number);
    } catch (std::runtime_error &error) {
        return Py_BuildValue("siO", error.what(), std::uncaught_exceptions(), same ? Py_True : Py_False);
    }
    Py_RETURN_NONE;
}

// The exception leaves as it is: guarded() makes a Python exception of it.
PyObject *leaving(PyObject *callback, int number)
{
    try {
        throw_from(3, number);
    } catch (...) {
        call(callback);
        throw;
    }
    Py_RETURN_NONE;
}

PyObject *do_caught(PyObject *, PyObject *args) { return guarded(caught, args); }
PyObject *do_unwinding(PyObject *, PyObject *args) { return guarded(unwinding, args); }
PyObject *do_leaving(PyObject *, PyObject *args) { return guarded(leaving, args); }
PyObject *do_depth(PyObject *, PyObject *) { return PyLong_FromLong(depth); }
PyObject *do_in_flight(PyObject *, PyObject *)
{
    return Py_BuildValue("iO", std::uncaught_exceptions(), std::current_exception() == nullptr ? Py_False : Py_True);
}

PyMethodDef functions[] = {
    {"caught", do_caught, METH_VARARGS, nullptr},
    {"unwinding", do_unwinding, METH_VARARGS, nullptr},
    {"leaving", do_leaving, METH_VARARGS, nullptr},
    {"depth", do_depth, METH_NOARGS, nullptr},
    {"in_flight", do_in_flight, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "flights", nullptr, -1, functions, nullptr, nullptr, nullptr, nullptr};

} // namespace

PyMODINIT_FUNC PyInit_flights() { return PyModule_Create(&definition); }

// For ctypes: the same with a plain function pointer. The callback may ask for an exception by its result.
extern "C" __attribute__((visibility("default"))) int plain_caught(int (*callback)(int), int number)
{
    try {
        try {
            throw_from(4, number);
        } catch (std::runtime_error &) {
            if (callback(number) < 0) throw std::logic_error("asked for");
            throw;
        }
    } catch (std::runtime_error &error) {
        callback(number);
        return std::stoi(error.what());
    } catch (std::logic_error &) {
        return -callback(number);
    }
    return 0;
}
