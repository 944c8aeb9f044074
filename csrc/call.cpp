#include "call.h"

#include <atomic>
#include <cstring>

namespace xlc {
namespace {

constexpr int DEPTH = 200; // as xlc/frontend/tree.py

enum Kind : uint64_t { ARRAY = 1, BOOL, INT, FLOAT, COMPLEX, NONE, TUPLE, LIST, DICT, NAMED, STRING_KEY, INT_KEY, STATIC, KEYWORD };

constexpr uint64_t word(Kind kind, uint64_t rest = 0) { return kind | rest << 8; }
constexpr uint64_t array_word(int type_num, int ndim) { return word(ARRAY, uint64_t(type_num) << 8 | uint64_t(ndim)); }

// The type number in signatures: one per element type (long long is long). -1: not a type that programs compute with.
inline int element_type(int type_num) {
  if (type_num == NPY_LONGLONG && sizeof(npy_longlong) == sizeof(npy_long)) return NPY_LONG;
  if (type_num == NPY_ULONGLONG && sizeof(npy_longlong) == sizeof(npy_long)) return NPY_ULONG;
  if (type_num <= NPY_CDOUBLE || type_num == NPY_HALF) return type_num;
  return type_num >= NPY_USERDEF && type_num < NPY_VSTRING ? type_num : -1;
}

struct ScalarType {
  PyTypeObject *type;
  int type_num;
  size_t offset, size;
};

// NumPy's own scalar types, by how often they are arguments.
const ScalarType *scalar_type(PyTypeObject *type) {
#define XLC_SCALAR(Name, NUM) {&Py##Name##ArrType_Type, NUM, offsetof(Py##Name##ScalarObject, obval), sizeof(Py##Name##ScalarObject::obval)}
  static const ScalarType table[] = {
      XLC_SCALAR(Float, NPY_FLOAT),   XLC_SCALAR(Double, NPY_DOUBLE), XLC_SCALAR(Long, NPY_LONG),     XLC_SCALAR(Int, NPY_INT),
      XLC_SCALAR(Bool, NPY_BOOL),     XLC_SCALAR(Half, NPY_HALF),     XLC_SCALAR(Byte, NPY_BYTE),     XLC_SCALAR(UByte, NPY_UBYTE),
      XLC_SCALAR(Short, NPY_SHORT),   XLC_SCALAR(UShort, NPY_USHORT), XLC_SCALAR(UInt, NPY_UINT),     XLC_SCALAR(ULong, NPY_ULONG),
      XLC_SCALAR(LongLong, NPY_LONG), XLC_SCALAR(ULongLong, NPY_ULONG), XLC_SCALAR(CFloat, NPY_CFLOAT), XLC_SCALAR(CDouble, NPY_CDOUBLE)};
#undef XLC_SCALAR
  for (const ScalarType &t : table)
    if (t.type == type) return &t;
  return nullptr;
}

enum class Found { FAST, SLOW, ERROR };

// A scalar of Python or NumPy as a leaf (owning). `kind` is what its word says.
Found read_scalar(PyObject *value, Leaf &leaf, Kind &kind) {
  PyTypeObject *type = Py_TYPE(value);
  leaf.is_array = false;
  leaf.object = value;
  if (type == &PyFloat_Type) {
    const double v = PyFloat_AS_DOUBLE(value);
    std::memcpy(leaf.scalar, &v, sizeof v);
    leaf.type_num = NPY_DOUBLE, kind = FLOAT;
  } else if (type == &PyLong_Type) {
    int overflow = 0;
    const int64_t v = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow) return Found::SLOW;
    std::memcpy(leaf.scalar, &v, sizeof v);
    leaf.type_num = NPY_INT64, kind = INT;
  } else if (type == &PyBool_Type) {
    leaf.scalar[0] = value == Py_True;
    leaf.type_num = NPY_BOOL, kind = BOOL;
  } else if (type == &PyComplex_Type) {
    const Py_complex v = PyComplex_AsCComplex(value);
    std::memcpy(leaf.scalar, &v, sizeof v);
    leaf.type_num = NPY_CDOUBLE, kind = COMPLEX;
  } else if (const ScalarType *t = scalar_type(type)) {
    std::memcpy(leaf.scalar, reinterpret_cast<char *>(value) + t->offset, t->size);
    leaf.type_num = t->type_num, kind = ARRAY;
  } else {
    return Found::SLOW;
  }
  Py_INCREF(value);
  return Found::FAST;
}

// A scalar of a user dtype (bfloat16) becomes a 0-d array.
Found read_user_scalar(PyObject *value, Leaf &leaf) {
  if (!PyArray_IsScalar(value, Generic)) return Found::SLOW;
  PyArray_Descr *descr = PyArray_DescrFromScalar(value);
  if (!descr) return Found::ERROR;
  const int type_num = element_type(descr->type_num);
  Py_DECREF(descr);
  if (type_num < NPY_USERDEF) return Found::SLOW;
  leaf.object = PyArray_FromScalar(value, nullptr);
  if (!leaf.object) return Found::ERROR;
  leaf.is_array = true;
  leaf.type_num = type_num;
  return Found::FAST;
}

bool is_named_tuple(PyTypeObject *type) {
  static PyObject *fields = PyUnicode_InternFromString("_fields");
  if (!PyType_HasFeature(type, Py_TPFLAGS_TUPLE_SUBCLASS)) return false;
  return _PyType_Lookup(type, fields) != nullptr; // runs no code of the user
}

bool contains(PyObject *names, PyObject *name) {
  if (!names) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
    PyObject *n = PyTuple_GET_ITEM(names, i);
    if (n == name || PyUnicode_Compare(n, name) == 0) return true;
  }
  return false;
}

bool is_static(const Statics &statics, Py_ssize_t position) {
  for (Py_ssize_t p : statics.positions)
    if (p == position) return true;
  return false;
}

std::atomic<bool> thread_contexts{false}; // has any thread a key of its own
int64_t default_context = 0;               // guarded by the GIL
thread_local bool has_context = false;
thread_local int64_t own_context = 0;

} // namespace

int64_t context_key() {
  return thread_contexts.load(std::memory_order_relaxed) && has_context ? own_context : default_context;
}
void set_default_context(int64_t key) { default_context = key; }
void set_thread_context(int64_t key) {
  own_context = key;
  has_context = true;
  thread_contexts.store(true, std::memory_order_relaxed);
}
void clear_thread_context() { has_context = false; }

void Call::release() {
  for (PyObject *object : objects) Py_DECREF(object);
  objects.clear();
}

bool Call::walk(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, const Statics &statics) {
  const Py_ssize_t keywords = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
  words.push(uint64_t(context_key()));
  words.push(uint64_t(nargs) | uint64_t(keywords) << 32);
  if (!statics.any()) {
    for (Py_ssize_t i = 0; i < nargs; i++)
      if (!visit(args[i], 0)) return false;
  } else { // the hashes first: they run code of the user, which must not find us inside a container
    for (Py_ssize_t p : statics.positions)
      if (p < nargs && !visit_static(args[p], uint64_t(p))) return false;
    for (Py_ssize_t k = 0; k < keywords; k++)
      if (contains(statics.names, PyTuple_GET_ITEM(kwnames, k)) && !visit_static(args[nargs + k], uint64_t(nargs + k))) return false;
    static_objects = objects.size();
    for (Py_ssize_t i = 0; i < nargs; i++)
      if (!is_static(statics, i) && !visit(args[i], 0)) return false;
  }
  for (Py_ssize_t k = 0; k < keywords; k++) {
    PyObject *name = PyTuple_GET_ITEM(kwnames, k);
    words.push(word(KEYWORD));
    words.push(uint64_t(PyObject_Hash(name)));
    remember(name);
    if (!contains(statics.names, name) && !visit(args[nargs + k], 0)) return false;
  }
  return true;
}

Leaf &Call::leaf(PyObject *object, int type_num, uint64_t kind) {
  Leaf &leaf = leaves.push();
  leaf.object = object;
  leaf.type_num = type_num;
  leaf.position = uint32_t(words.size());
  words.push(kind);
  return leaf;
}

bool Call::visit(PyObject *value, int depth) {
  PyTypeObject *type = Py_TYPE(value);
  if (type == &PyArray_Type) {
    auto *array = reinterpret_cast<PyArrayObject *>(value);
    const int type_num = element_type(PyArray_DESCR(array)->type_num), ndim = PyArray_NDIM(array);
    if (type_num < 0) return false;
    Py_INCREF(value);
    leaf(value, type_num, array_word(type_num, ndim)).is_array = true;
    const npy_intp *shape = PyArray_DIMS(array);
    for (int i = 0; i < ndim; i++) words.push(uint64_t(shape[i]));
    return true;
  }
  if (value == Py_None) {
    words.push(word(NONE));
    return true;
  }
  if (type == &PyDict_Type) return visit_dict(value, depth);
  if (type == &PyTuple_Type || type == &PyList_Type || is_named_tuple(type)) {
    if (depth == DEPTH) return false;
    const bool list = type == &PyList_Type;
    words.push(word(list ? LIST : type == &PyTuple_Type ? TUPLE : NAMED, uint64_t(Py_SIZE(value))));
    if (!list && type != &PyTuple_Type) {
      words.push(reinterpret_cast<uintptr_t>(type));
      remember(reinterpret_cast<PyObject *>(type));
    }
    for (Py_ssize_t i = 0; i < Py_SIZE(value); i++)
      if (!visit(list ? PyList_GET_ITEM(value, i) : PyTuple_GET_ITEM(value, i), depth + 1)) return false;
    return true;
  }
  return visit_scalar(value);
}

bool Call::visit_scalar(PyObject *value) {
  Leaf read;
  Kind kind = ARRAY;
  Found found = read_scalar(value, read, kind);
  if (found == Found::SLOW) found = read_user_scalar(value, read);
  if (found != Found::FAST) {
    PyErr_Clear();
    return false;
  }
  read.position = uint32_t(words.size());
  leaves.push(read);
  words.push(kind == ARRAY ? array_word(read.type_num, 0) : word(kind));
  return true;
}

bool Call::visit_dict(PyObject *dict, int depth) {
  if (depth == DEPTH) return false;
  words.push(word(DICT, uint64_t(PyDict_GET_SIZE(dict))));
  Py_ssize_t next = 0;
  PyObject *key, *value;
  while (PyDict_Next(dict, &next, &key, &value)) {
    if (Py_TYPE(key) == &PyUnicode_Type) {
      words.push(word(STRING_KEY));
      words.push(uint64_t(PyObject_Hash(key)));
      remember(key);
    } else if (Py_TYPE(key) == &PyLong_Type) {
      int overflow = 0;
      const int64_t v = PyLong_AsLongLongAndOverflow(key, &overflow);
      if (overflow) return false;
      words.push(word(INT_KEY));
      words.push(uint64_t(v));
    } else {
      return false;
    }
    if (!visit(value, depth + 1)) return false;
  }
  return true;
}

bool Call::visit_static(PyObject *value, uint64_t place) {
  const Py_hash_t hash = PyObject_Hash(value);
  if (hash == -1) {
    PyErr_Clear(); // miss says what is wrong with it
    return false;
  }
  words.push(word(STATIC, place));
  words.push(uint64_t(hash));
  words.push(reinterpret_cast<uintptr_t>(Py_TYPE(value))); // 1 == 1.0 == True; kept alive by the value
  remember(value);
  return true;
}

namespace {

using Order = std::vector<int32_t>;

bool canonical_value(PyObject *value, int32_t &count, Order &order);

// The values under `keys`, whose leaves are counted in the order given and listed in sorted order of the keys.
bool canonical_items(PyObject *keys, const std::vector<PyObject *> &values, int32_t &count, Order &order) {
  const Py_ssize_t n = PyList_GET_SIZE(keys);
  std::vector<Order> parts(n);
  PyObject *places = PyDict_New(), *sorted = PyList_GetSlice(keys, 0, n);
  bool ok = places && sorted;
  for (Py_ssize_t i = 0; ok && i < n; i++) {
    PyObject *place = PyLong_FromSsize_t(i);
    ok = place && PyDict_SetItem(places, PyList_GET_ITEM(keys, i), place) == 0 && canonical_value(values[i], count, parts[i]);
    Py_XDECREF(place);
  }
  if (ok && PyList_Sort(sorted) < 0) { // not comparable: the order of insertion
    PyErr_Clear();
    Py_SETREF(sorted, PyList_GetSlice(keys, 0, n));
    ok = sorted != nullptr;
  }
  for (Py_ssize_t i = 0; ok && i < n; i++) {
    const Order &part = parts[PyLong_AsSsize_t(PyDict_GetItem(places, PyList_GET_ITEM(sorted, i)))];
    order.insert(order.end(), part.begin(), part.end());
  }
  Py_XDECREF(places);
  Py_XDECREF(sorted);
  return ok;
}

bool canonical_value(PyObject *value, int32_t &count, Order &order) { // of a value that walk() accepted
  if (value == Py_None) return true;
  if (Py_TYPE(value) == &PyDict_Type) {
    PyObject *keys = PyDict_Keys(value);
    if (!keys) return false;
    std::vector<PyObject *> values;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(keys); i++) values.push_back(PyDict_GetItem(value, PyList_GET_ITEM(keys, i)));
    const bool ok = canonical_items(keys, values, count, order);
    Py_DECREF(keys);
    return ok;
  }
  if (PyList_CheckExact(value) || PyTuple_Check(value)) {
    const bool list = PyList_CheckExact(value);
    for (Py_ssize_t i = 0; i < Py_SIZE(value); i++)
      if (!canonical_value(list ? PyList_GET_ITEM(value, i) : PyTuple_GET_ITEM(value, i), count, order)) return false;
    return true;
  }
  order.push_back(count++);
  return true;
}

} // namespace

bool Call::canonical(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, const Statics &statics,
                     std::vector<int32_t> &order) {
  int32_t count = 0;
  for (Py_ssize_t i = 0; i < nargs; i++)
    if (!is_static(statics, i) && !canonical_value(args[i], count, order)) return false;
  if (!kwnames) return true;
  PyObject *names = PyList_New(0);
  std::vector<PyObject *> values;
  bool ok = names != nullptr;
  for (Py_ssize_t k = 0; ok && k < PyTuple_GET_SIZE(kwnames); k++) {
    PyObject *name = PyTuple_GET_ITEM(kwnames, k);
    if (contains(statics.names, name)) continue;
    ok = PyList_Append(names, name) == 0;
    values.push_back(args[nargs + k]);
  }
  ok = ok && canonical_items(names, values, count, order);
  Py_XDECREF(names);
  return ok;
}

bool leaf_from_any(PyObject *value, Leaf &leaf) {
  Kind kind;
  leaf.position = 0;
  if (Py_TYPE(value) == &PyArray_Type) {
    Py_INCREF(value);
    leaf.object = value;
  } else {
    if (read_scalar(value, leaf, kind) == Found::FAST) return true;
    leaf.object = PyArray_FromAny(value, nullptr, 0, 0, NPY_ARRAY_ENSUREARRAY, nullptr);
    if (!leaf.object) return false;
  }
  leaf.is_array = true;
  leaf.type_num = element_type(PyArray_DESCR(leaf.array())->type_num);
  if (leaf.type_num < 0) {
    PyErr_Format(PyExc_TypeError, "an array of dtype %R cannot be an argument of compiled code", PyArray_DESCR(leaf.array()));
    Py_DECREF(leaf.object);
    return false;
  }
  return true;
}

} // namespace xlc
