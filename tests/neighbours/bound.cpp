// What pybind11 makes of functions that call back.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>

#include <functional>
#include <stdexcept>
#include <string>

namespace py = pybind11;

static int each(const std::function<int(int)> &function, int count)
{
    int sum = 0;
    for (int i = 0; i < count; i++) sum += function(i);
    return sum;
}

static std::string handled(const py::function &function, const std::string &text)
{
    try {
        throw std::runtime_error(text);
    } catch (std::runtime_error &error) {
        function();
        return error.what();
    }
}

static int without_gil(const py::function &function)
{
    py::gil_scoped_release outside;
    {
        py::gil_scoped_acquire inside;
        function();
    }
    return 1;
}

PYBIND11_MODULE(bound, module)
{
    module.def("each", &each);
    module.def("handled", &handled);
    module.def("without_gil", &without_gil);
}
