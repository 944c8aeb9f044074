// One call, taken apart: its leaves, and the signature under which its executable is found.
#pragma once
#include "numpy.h"
#include "small.h"

#include <cstdint>
#include <vector>

namespace xlc {

struct Leaf {
  PyObject *object; // owned
  int32_t type_num; // of NumPy; int64, float64, bool, complex128 for Python's scalars
  bool is_array;    // else the value stands in `scalar`
  uint32_t position; // of this leaf's word in the signature; the words of an array's sizes follow it
  alignas(16) unsigned char scalar[16];

  PyArrayObject *array() const { return reinterpret_cast<PyArrayObject *>(object); }
};

// The leaves of a call and nothing else; owns them.
class Leaves : public Small<Leaf, 24> {
 public:
  ~Leaves() { release(); }
  void release() {
    for (Leaf &leaf : *this) Py_DECREF(leaf.object);
    clear();
  }
};

struct Statics { // which arguments are compared by value
  std::vector<Py_ssize_t> positions;
  PyObject *names = nullptr; // a tuple of interned strings, owned by the dispatcher; NULL: none
  bool any() const { return names || !positions.empty(); }
};

class Call {
 public:
  Call() = default;
  ~Call() { release(); }
  Call(const Call &) = delete;
  Call &operator=(const Call &) = delete;

  // Takes the arguments of a vectorcall apart. False, with no exception set, when something is not fast.
  // The leaves are in the order of the walk: as canonical, but keywords and keys in their order of insertion.
  bool walk(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, const Statics &statics);

  // For each leaf in canonical order (keywords and keys sorted), its number in the order of the walk. After walk().
  // False with an exception set on failure.
  static bool canonical(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, const Statics &statics,
                        std::vector<int32_t> &order);

  // The signature: two calls have the same one when the words are equal, and the objects (strings, types, static values).
  Small<uint64_t, 128> words;
  Small<PyObject *, 40> objects; // owned
  size_t static_objects = 0;     // that many, at the front, are compared with ==; the others are strings and types
  Leaves leaves;

 private:
  void release();
  bool visit(PyObject *value, int depth);
  bool visit_scalar(PyObject *value);
  bool visit_dict(PyObject *dict, int depth);
  bool visit_static(PyObject *value, uint64_t place);
  void remember(PyObject *object) {
    Py_INCREF(object);
    objects.push(object);
  }
  Leaf &leaf(PyObject *object, int type_num, uint64_t kind);
};

// Fills `leaf` (owning) from anything np.asarray accepts. False with an exception set on failure.
bool leaf_from_any(PyObject *value, Leaf &leaf);

// The context key of this thread: part of every signature.
int64_t context_key();
void set_default_context(int64_t key);
void set_thread_context(int64_t key);
void clear_thread_context();

} // namespace xlc
