// The extension module xlc._xlc. What is in it, and what it means, stands in xlc/run/native.py.
#define XLC_IMPORTS_NUMPY
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "call.h"
#include "dispatcher.h"
#include "executable.h"
#include "memory.h"

#include <stdexcept>

namespace py = pybind11;

PYBIND11_MODULE(_xlc, m) {
  if (PyArray_ImportNumPyAPI() < 0) throw py::error_already_set();
  for (auto [name, type] : {std::pair{"Block", &xlc::Block_Type}, {"Executable", &xlc::Executable_Type}, {"Dispatcher", &xlc::Dispatcher_Type}}) {
    if (PyType_Ready(type) < 0) throw py::error_already_set();
    m.attr(name) = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject *>(type));
  }
  xlc::retry = py::module_::import("builtins").attr("object")().release().ptr(); // lives as long as the process
  m.attr("RETRY") = py::reinterpret_borrow<py::object>(xlc::retry);
  m.attr("NATIVE") = true;

  m.def("set_default_context", &xlc::set_default_context, py::arg("key"));
  m.def("set_context", [](std::optional<int64_t> key) { key ? xlc::set_thread_context(*key) : xlc::clear_thread_context(); }, py::arg("key"));
  m.def("get_context", &xlc::context_key);

  m.def("pool_threads", [] { return xlc_pool()->threads; });
  m.def("pool_address", [] { return reinterpret_cast<uintptr_t>(xlc_pool()); });
  m.def("pool_set_threads", [](int64_t n) {
    if (n < 0) throw py::value_error("the number of threads must be positive, or 0 for the default");
    int refused;
    {
      py::gil_scoped_release released;
      refused = xlc_pool_set_threads(n);
    }
    if (refused) throw std::runtime_error("the number of threads cannot be changed from inside a parallel loop");
  }, py::arg("n"));
  m.def("parallel_for_test", [](uintptr_t task, uintptr_t closure, int64_t n) {
    py::gil_scoped_release released;
    const xlc_parallel *pool = xlc_pool();
    pool->run(pool->ctx, reinterpret_cast<xlc_task>(task), reinterpret_cast<void *>(closure), n);
  }, py::arg("task"), py::arg("closure"), py::arg("n"));

  m.def("memory_stats", [] {
    const xlc::MemoryStats s = xlc::memory_stats();
    return py::dict(py::arg("live") = s.live, py::arg("cached") = s.cached, py::arg("peak_live") = s.peak_live);
  });
  m.def("trim_memory", &xlc::trim_memory);
}
