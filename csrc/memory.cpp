#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <list>
#include <map>
#include <new>

namespace xlc {
namespace {

constexpr size_t ALIGN = 64;
constexpr size_t SMALLEST_BLOCK = size_t(64) << 10; // below this NumPy's own allocator is as good
constexpr size_t HUGE_FROM = size_t(4) << 20, HUGE_PAGE = size_t(2) << 20;
constexpr size_t MOST_CACHED = size_t(1) << 30;
constexpr size_t MOST_KEPT_WORKSPACE = size_t(4) << 30; // a training step's: to fault in 600 MB anew takes 10% of its time

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
size_t block_size(size_t bytes) { return round_up(bytes, bytes >= HUGE_FROM ? HUGE_PAGE : ALIGN); }

// `bytes` is a block_size. NULL when there is no memory.
void *acquire(size_t bytes) {
  if (bytes < HUGE_FROM) return std::aligned_alloc(ALIGN, bytes);
  const size_t mapped = bytes + HUGE_PAGE; // what lies before and after the aligned part goes back at once
  void *map = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uintptr_t>(map), data = round_up(start, HUGE_PAGE), end = start + mapped;
  if (data > start) munmap(map, data - start);
  if (end > data + bytes) munmap(reinterpret_cast<void *>(data + bytes), end - data - bytes);
#ifdef MADV_HUGEPAGE
  madvise(reinterpret_cast<void *>(data), bytes, MADV_HUGEPAGE);
#endif
  return reinterpret_cast<void *>(data);
}

void release(void *data, size_t bytes) {
  if (bytes < HUGE_FROM)
    std::free(data);
  else
    munmap(data, bytes);
}

// Dead results' blocks, for the next results. Guarded by the GIL. Holds at most MOST_CACHED bytes and at most four
// times what was ever live; what has waited longest goes first.
class Cache {
 public:
  void *take(size_t bytes, size_t *got) {
    auto found = by_size_.lower_bound(bytes);
    if (found == by_size_.end() || found->first > bytes + bytes / 4) { // a block much too large is for somebody else
      void *data = acquire(bytes);
      if (!data) {
        trim(0);
        data = acquire(bytes);
      }
      if (data) add_live(bytes);
      *got = bytes;
      return data;
    }
    void *data = found->second->data;
    *got = found->first;
    cached_ -= *got;
    add_live(*got);
    by_age_.erase(found->second);
    by_size_.erase(found);
    return data;
  }

  void give(void *data, size_t bytes) {
    live_ -= bytes;
    by_age_.push_front({data, {}});
    // the hint puts it before those of equal size: the block that died last is the warmest
    by_age_.front().place = by_size_.emplace_hint(by_size_.lower_bound(bytes), bytes, by_age_.begin());
    cached_ += bytes;
    trim(std::min(MOST_CACHED, 4 * peak_));
  }

  size_t trim(size_t most) {
    const size_t before = cached_;
    while (cached_ > most) {
      Dead &oldest = by_age_.back();
      const size_t bytes = oldest.place->first;
      release(oldest.data, bytes);
      by_size_.erase(oldest.place);
      by_age_.pop_back();
      cached_ -= bytes;
    }
    return before - cached_;
  }

  MemoryStats stats() const { return {live_, cached_, peak_}; }

 private:
  struct Dead;
  using BySize = std::multimap<size_t, std::list<Dead>::iterator>;
  struct Dead {
    void *data;
    BySize::iterator place;
  };

  void add_live(size_t bytes) {
    live_ += bytes;
    peak_ = std::max(peak_, live_);
  }

  std::list<Dead> by_age_; // newest first
  BySize by_size_;
  size_t live_ = 0, cached_ = 0, peak_ = 0;
};

Cache &cache() {
  static Cache &c = *new Cache; // never destroyed: arrays may outlive static objects
  return c;
}

struct Block {
  PyObject_HEAD
  void *data;
  size_t bytes;
};

void block_dealloc(PyObject *self) {
  auto *block = reinterpret_cast<Block *>(self);
  cache().give(block->data, block->bytes);
  Py_TYPE(self)->tp_free(self);
}

struct Kept {
  void *data = nullptr;
  size_t bytes = 0;
  bool busy = false;
  ~Kept() { drop(); }
  void drop() {
    if (data) release(data, bytes);
    data = nullptr;
    bytes = 0;
  }
};
thread_local Kept kept;

} // namespace

PyTypeObject Block_Type = [] {
  PyTypeObject t = {PyVarObject_HEAD_INIT(nullptr, 0)};
  t.tp_name = "xlc._xlc.Block";
  t.tp_doc = "Memory of a result; returns to the free list when the last array on it dies.";
  t.tp_basicsize = sizeof(Block);
  t.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION;
  t.tp_dealloc = block_dealloc;
  return t;
}();

PyObject *new_result(PyArray_Descr *descr, int ndim, const npy_intp *shape, size_t bytes) {
  Py_INCREF(descr); // both calls below steal it
  if (bytes < SMALLEST_BLOCK)
    return PyArray_NewFromDescr(&PyArray_Type, descr, ndim, shape, nullptr, nullptr, 0, nullptr);
  size_t got = 0;
  void *data = cache().take(block_size(bytes), &got);
  auto *block = data ? PyObject_New(Block, &Block_Type) : nullptr;
  if (!block) {
    if (data) cache().give(data, got);
    Py_DECREF(descr);
    return PyErr_NoMemory();
  }
  block->data = data;
  block->bytes = got;
  PyObject *array = PyArray_NewFromDescr(&PyArray_Type, descr, ndim, shape, nullptr, data, NPY_ARRAY_CARRAY, nullptr);
  if (!array || PyArray_SetBaseObject(reinterpret_cast<PyArrayObject *>(array), reinterpret_cast<PyObject *>(block)) < 0) {
    if (!array) Py_DECREF(block); // SetBaseObject takes it even when it fails
    Py_XDECREF(array);
    return nullptr;
  }
  return array;
}

MemoryStats memory_stats() { return cache().stats(); }

size_t trim_memory() {
  const size_t workspace = kept.busy ? 0 : kept.bytes;
  if (workspace) kept.drop();
  return cache().trim(0) + workspace;
}

Workspace::Workspace(size_t bytes) {
  if (bytes == 0) return;
  const size_t size = block_size(bytes);
  if (kept.busy) { // this thread is inside another call, whose entry came back to Python
    data_ = acquire(bytes_ = size);
  } else {
    if (kept.bytes < size) {
      kept.drop();
      kept.data = acquire(size);
      kept.bytes = kept.data ? size : 0;
    }
    data_ = kept.data;
    shared_ = kept.busy = data_ != nullptr;
  }
  if (!data_) throw std::bad_alloc();
}

Workspace::~Workspace() {
  if (shared_) {
    kept.busy = false;
    if (kept.bytes > MOST_KEPT_WORKSPACE) kept.drop();
  } else if (data_) {
    release(data_, bytes_);
  }
}

} // namespace xlc
