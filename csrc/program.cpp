// Calling an entry: gather the buffers, make the results, call, put the results together.
#include <pybind11/pybind11.h>

#include "executable.h"
#include "memory.h"

#include <algorithm>

namespace py = pybind11;

namespace xlc {
namespace {

using Buffers = Small<void *, 48>;

const Leaf &at(const Leaf *leaves, const int32_t *order, size_t i) { return leaves[order ? order[i] : int32_t(i)]; }
Leaf &at(Leaf *leaves, const int32_t *order, size_t i) { return leaves[order ? order[i] : int32_t(i)]; }

bool replace(Leaf &leaf, PyObject *array) {
  if (!array) return false;
  Py_SETREF(leaf.object, array);
  leaf.is_array = true;
  return true;
}

bool copy(Leaf &leaf) { return replace(leaf, PyArray_NewCopy(leaf.array(), NPY_CORDER)); }

// The memory of a leaf, C-contiguous, aligned and native, and writable where it is donated. NULL with an exception set.
void *memory_of(Leaf &leaf, bool donated) {
  if (!leaf.is_array) {
    if (!donated) return leaf.scalar;
    PyObject *array = PyArray_SimpleNew(0, nullptr, leaf.type_num); // a result may need an object to stand on
    if (!array) return nullptr;
    auto *fresh = reinterpret_cast<PyArrayObject *>(array);
    std::memcpy(PyArray_DATA(fresh), leaf.scalar, size_t(PyArray_ITEMSIZE(fresh)));
    replace(leaf, array);
  }
  PyArrayObject *array = leaf.array();
  if (!PyArray_ISCARRAY_RO(array)) {
    PyArray_Descr *native = PyArray_DESCR(array);
    if (PyArray_ISBYTESWAPPED(array))
      native = PyArray_DescrNewByteorder(native, NPY_NATIVE);
    else
      Py_INCREF(native);
    if (!native) return nullptr;
    if (!replace(leaf, PyArray_FromArray(array, native, NPY_ARRAY_CARRAY | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_ENSURECOPY))) return nullptr;
  } else if (donated && !PyArray_ISWRITEABLE(array)) {
    if (!copy(leaf)) return nullptr;
  }
  return PyArray_DATA(leaf.array());
}

struct Range {
  const char *begin, *end;
  size_t leaf;
};

// Donated arrays that share memory with another leaf are copied, so that writing to one is not seen in the other.
bool separate_donated(const Program &program, Leaf *leaves, const int32_t *order, void **buffers) {
  Small<Range, 48> ranges;
  for (size_t i = 0; i < program.slots.size(); i++) {
    const Leaf &leaf = at(leaves, order, i);
    if (!leaf.is_array || (program.slots[i] < 0 && !program.donated[i])) continue;
    const char *begin = PyArray_BYTES(leaf.array());
    const size_t bytes = size_t(PyArray_NBYTES(leaf.array()));
    if (bytes) ranges.push({begin, begin + bytes, i});
  }
  std::sort(ranges.begin(), ranges.end(), [](const Range &a, const Range &b) { return a.begin < b.begin; });
  for (size_t k = 1, widest = 0; k < ranges.size(); k++) { // `widest`: of those before k, the one that reaches furthest
    if (ranges[k].begin < ranges[widest].end) {
      for (const Range &range : {ranges[widest], ranges[k]}) {
        const size_t i = range.leaf;
        Leaf &leaf = at(leaves, order, i);
        const bool copied = PyArray_BYTES(leaf.array()) != range.begin;
        if (!program.donated[i] || copied) continue;
        if (!copy(leaf)) return false;
        if (program.slots[i] >= 0) buffers[program.slots[i]] = PyArray_DATA(leaf.array());
      }
    }
    if (ranges[k].end > ranges[widest].end) widest = k;
  }
  return true;
}

// The shape of a result for these dims, into sizes[NPY_MAXDIMS]; its bytes, or -1 with an exception set.
npy_intp shape_of(const Program &program, const Result &result, const int64_t *dims, npy_intp *sizes) {
  int64_t bytes = PyDataType_ELSIZE(result.descr);
  bool empty = false, fits = true;
  for (size_t k = 0; k < result.shape.size(); k++) {
    const int64_t size = result.shape[k].evaluate(dims);
    if (size < 0) {
      PyErr_Format(PyExc_ValueError, "%s: a result would have the size %lld in dimension %zu", program.name.c_str(), (long long)size, k);
      return -1;
    }
    sizes[k] = npy_intp(size);
    empty |= size == 0;
    fits &= !__builtin_mul_overflow(bytes, size ? size : 1, &bytes);
  }
  if (!fits) {
    PyErr_NoMemory();
    return -1;
  }
  return empty ? 0 : npy_intp(bytes);
}

PyObject *make_result(const Program &program, const Result &result, Leaf *leaves, const int32_t *order, const int64_t *dims) {
  npy_intp evaluated[NPY_MAXDIMS];
  const npy_intp *sizes = result.sizes.data();
  size_t bytes = result.bytes;
  const int ndim = int(result.shape.size());
  if (!result.fixed) {
    const npy_intp n = shape_of(program, result, dims, evaluated);
    if (n < 0) return nullptr;
    sizes = evaluated;
    bytes = size_t(n);
  }
  if (result.alias < 0) return new_result(result.descr, ndim, sizes, bytes);
  Leaf &donor = at(leaves, order, size_t(result.alias));
  if (size_t(PyArray_NBYTES(donor.array())) < bytes) {
    PyErr_Format(PyExc_ValueError, "%s: a result of %zu bytes does not fit into its donated argument of %zd bytes",
                 program.name.c_str(), bytes, Py_ssize_t(PyArray_NBYTES(donor.array())));
    return nullptr;
  }
  Py_INCREF(result.descr);
  PyObject *array = PyArray_NewFromDescr(&PyArray_Type, result.descr, ndim, sizes, nullptr, PyArray_DATA(donor.array()),
                                         NPY_ARRAY_CARRAY, nullptr);
  if (!array) return nullptr;
  Py_INCREF(donor.object);
  if (PyArray_SetBaseObject(reinterpret_cast<PyArrayObject *>(array), donor.object) < 0) Py_CLEAR(array);
  return array;
}

} // namespace

bool Program::read_dims(const Leaf *leaves, const int32_t *order, int64_t *out) const {
  const auto size_at = [&](const Place &place) -> int64_t { // -1: there is no such axis
    const Leaf &leaf = at(leaves, order, size_t(place.leaf));
    if (!leaf.is_array || place.axis >= PyArray_NDIM(leaf.array())) return -1;
    return PyArray_DIM(leaf.array(), place.axis);
  };
  for (size_t d = 0; d < dims.size(); d++) {
    out[d] = size_at(dims[d][0]);
    for (const Place &place : dims[d])
      if (out[d] < 0 || size_at(place) != out[d]) return false;
  }
  for (const Check &check : checks)
    if (size_at(check.place) != check.size.evaluate(out)) return false;
  return true;
}

bool Program::run(Leaf *leaves, const int32_t *order, PyObject **out) const {
  Small<int64_t, 8> sizes;
  sizes.resize(dims.size());
  if (!dims.empty() && !read_dims(leaves, order, sizes.data())) {
    PyErr_Format(PyExc_ValueError, "%s: axes that bear the same name have different sizes", name.c_str());
    return false;
  }
  Buffers buffers;
  buffers.resize(parameters + results.size() + constants.size());
  for (size_t k = 0; k < constants.size(); k++)
    buffers[parameters + results.size() + k] = PyArray_DATA(reinterpret_cast<PyArrayObject *>(constants[k].ptr()));
  for (size_t i = 0; i < slots.size(); i++) {
    if (slots[i] < 0 && !donated[i]) continue;
    void *memory = memory_of(at(leaves, order, i), donated[i]);
    if (!memory) return false;
    if (slots[i] >= 0) buffers[size_t(slots[i])] = memory;
  }
  if (donates && !separate_donated(*this, leaves, order, buffers.data())) return false;

  size_t made = 0;
  for (; made < results.size(); made++) {
    out[made] = make_result(*this, results[made], leaves, order, sizes.data());
    if (!out[made]) break;
    buffers[parameters + made] = PyArray_DATA(reinterpret_cast<PyArrayObject *>(out[made]));
  }
  bool ok = made == results.size();
  if (ok) {
    const int64_t *dims_or_null = dims.empty() ? nullptr : sizes.data();
    int32_t code = 0;
    PyThreadState *state = release_gil ? PyEval_SaveThread() : nullptr;
    try {
      const Workspace space(workspace_function ? size_t(std::max<int64_t>(workspace_function(dims_or_null), 0)) : workspace);
      code = entry(buffers.data(), dims_or_null, space.data(), parallel ? xlc_pool() : nullptr);
    } catch (const std::bad_alloc &) {
      ok = false;
    }
    if (state) PyEval_RestoreThread(state);
    if (!ok)
      PyErr_NoMemory();
    else if (code)
      PyErr_Format(PyExc_RuntimeError, "%s failed with code %d%s", name.c_str(), int(code), code == 1 ? " (bad symbolic size)" : "");
    ok = ok && code == 0;
  }
  if (!ok)
    while (made > 0) Py_DECREF(out[--made]);
  return ok;
}

PyObject *Tree::build(PyObject *const *results) const {
  switch (kind) {
    case LEAF: return Py_NewRef(results[leaf]);
    case NONE: return Py_NewRef(Py_None);
    case CONST: return Py_NewRef(object.ptr());
    case DICT: {
      PyObject *dict = PyDict_New();
      for (size_t i = 0; dict && i < children.size(); i++) {
        PyObject *value = children[i].build(results);
        if (!value || PyDict_SetItem(dict, PyTuple_GET_ITEM(object.ptr(), i), value) < 0) Py_CLEAR(dict);
        Py_XDECREF(value);
      }
      return dict;
    }
    case TUPLE:
    case LIST:
    case CALL: break;
  }
  const auto n = Py_ssize_t(children.size());
  PyObject *items = kind == LIST ? PyList_New(n) : PyTuple_New(n);
  for (Py_ssize_t i = 0; items && i < n; i++) {
    PyObject *value = children[size_t(i)].build(results);
    if (!value)
      Py_CLEAR(items);
    else if (kind == LIST)
      PyList_SET_ITEM(items, i, value);
    else
      PyTuple_SET_ITEM(items, i, value);
  }
  if (items && kind == CALL) Py_SETREF(items, PyObject_CallObject(object.ptr(), items));
  return items;
}

PyObject *call_executable(Executable *executable, Leaf *leaves, const int32_t *order) {
  const Program &program = *executable->program;
  Small<PyObject *, 16> results;
  results.resize(program.results.size());
  executable->calls++;
  if (!program.run(leaves, order, results.data())) return nullptr;
  if (program.tree.kind == Tree::LEAF && results.size() == 1) return results[0];
  PyObject *value = program.tree.build(results.data());
  for (PyObject *result : results) Py_DECREF(result);
  return value;
}

} // namespace xlc
