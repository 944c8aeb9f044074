// Memory of results and workspaces: what is large is recycled, so that a call does not pay for page faults.
#pragma once
#include "numpy.h"

#include <cstddef>

namespace xlc {

// A fresh, uninitialised, C-contiguous array; does not steal descr. NULL with an exception set.
PyObject *new_result(PyArray_Descr *descr, int ndim, const npy_intp *shape, size_t bytes);

struct MemoryStats {
  size_t live, cached, peak_live; // bytes in blocks
};
MemoryStats memory_stats();
size_t trim_memory(); // dead results' blocks and the calling thread's workspace; bytes freed

// The calling thread's workspace for the time of one call: 64-byte aligned, kept for the next call.
// The GIL is not needed. data() is NULL when bytes is 0; throws std::bad_alloc.
class Workspace {
 public:
  explicit Workspace(size_t bytes);
  ~Workspace();
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;
  void *data() const { return data_; }

 private:
  void *data_ = nullptr;
  size_t bytes_ = 0;    // of a block of our own, when the thread's is taken
  bool shared_ = false; // data_ is the thread's
};

extern PyTypeObject Block_Type; // the base object of a large result

} // namespace xlc
