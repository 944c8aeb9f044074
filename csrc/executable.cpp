// The Python type Executable: reading its description, and calling it with flat leaves.
#include <pybind11/pybind11.h>
#include <structmember.h>

#include "executable.h"

#include <stdexcept>

namespace py = pybind11;

namespace xlc {

Tree Tree::parse(py::handle spec, size_t results) {
  auto parts = py::cast<py::tuple>(spec);
  const auto kind = py::cast<std::string>(parts[0]);
  const auto expect = [&](size_t n) {
    if (parts.size() != n) throw std::invalid_argument("out_tree: (\"" + kind + "\", ...) has the wrong length");
  };
  Tree tree;
  const auto read_children = [&](py::handle children) {
    for (py::handle child : py::iter(children)) tree.children.push_back(parse(child, results));
  };
  if (kind == "leaf") {
    expect(2);
    tree.kind = LEAF;
    tree.leaf = py::cast<size_t>(parts[1]);
    if (tree.leaf >= results) throw std::invalid_argument("out_tree names a result that does not exist");
  } else if (kind == "none") {
    expect(1);
  } else if (kind == "const") {
    expect(2);
    tree.kind = CONST;
    tree.object = parts[1];
  } else if (kind == "tuple" || kind == "list") {
    expect(2);
    tree.kind = kind == "tuple" ? TUPLE : LIST;
    read_children(parts[1]);
  } else if (kind == "dict" || kind == "call") {
    expect(3);
    tree.kind = kind == "dict" ? DICT : CALL;
    tree.object = parts[1];
    read_children(parts[2]);
    if (tree.kind == DICT) {
      auto keys = py::tuple(tree.object); // of a list, or a tuple
      if (keys.size() != tree.children.size()) throw std::invalid_argument("out_tree: a dict needs one child for each key");
      for (py::handle key : keys) py::hash(key);
      tree.object = keys;
    }
  } else {
    throw std::invalid_argument("out_tree: unknown kind \"" + kind + "\"; expected leaf, none, const, tuple, list, dict or call");
  }
  return tree;
}

namespace {

Executable *self_of(PyObject *self) { return reinterpret_cast<Executable *>(self); }

// ---- reading the description ----

void read_params(Program &p, py::handle params) {
  p.params = py::tuple(py::reinterpret_borrow<py::object>(params));
  for (py::handle slot : p.params) {
    p.slots.push_back(py::cast<int>(slot));
    p.donated.push_back(0);
  }
}

// The parameter slots, filled by leaves, each once; and the constants, whose addresses follow those of the results.
void read_slots(Program &p, py::handle constants) {
  const std::vector<int> &filled = p.slots;
  for (auto item : py::reinterpret_borrow<py::sequence>(constants)) {
    PyObject *array = PyArray_FromAny(py::object(item).ptr(), nullptr, 0, 0, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_NOTSWAPPED | NPY_ARRAY_ENSUREARRAY, nullptr);
    if (!array) throw py::error_already_set();
    p.constants.push_back(py::reinterpret_steal<py::object>(array));
  }
  for (int slot : filled)
    if (slot >= 0) p.parameters++;
  std::vector<bool> seen(p.parameters);
  for (int slot : filled) {
    if (slot < -1 || slot >= int(p.parameters) || (slot >= 0 && seen[size_t(slot)]))
      throw std::invalid_argument("params must fill the parameter slots 0, 1, ... once each; found slot " + std::to_string(slot));
    if (slot >= 0) seen[size_t(slot)] = true;
  }
}

int read_leaf(const Program &p, py::handle leaf) {
  const int i = py::cast<int>(leaf);
  if (i < 0 || size_t(i) >= p.slots.size())
    throw std::invalid_argument("there is no leaf " + std::to_string(i) + ": params describes " + std::to_string(p.slots.size()));
  return i;
}

Place read_place(const Program &p, py::handle leaf, py::handle axis) {
  Place place{read_leaf(p, leaf), py::cast<int>(axis)};
  if (place.axis < 0) throw std::invalid_argument("an axis must not be negative");
  return place;
}

void read_dims(Program &p, py::handle dims, py::handle checks) {
  for (py::handle places : py::iter(dims)) {
    p.dims.emplace_back();
    for (py::handle item : py::iter(places)) {
      auto pair = py::cast<py::tuple>(item);
      p.dims.back().push_back(read_place(p, pair[0], pair[1]));
    }
    if (p.dims.back().empty()) throw std::invalid_argument("a symbolic size must stand alone in at least one place");
  }
  for (py::handle item : py::iter(checks)) {
    auto check = py::cast<py::tuple>(item);
    p.checks.push_back({read_place(p, check[0], check[1]), Size::parse(check[2], p.dims.size())});
  }
}

void read_results(Program &p, py::handle results) {
  for (py::handle item : py::iter(results)) {
    auto pair = py::cast<py::tuple>(item);
    Result result;
    PyArray_Descr *descr = nullptr;
    if (PyArray_DescrConverter(py::object(pair[0]).ptr(), &descr) == NPY_FAIL) throw py::error_already_set();
    result.dtype = py::reinterpret_steal<py::object>(reinterpret_cast<PyObject *>(descr));
    result.descr = descr;
    if (PyDataType_REFCHK(descr) || PyDataType_ISUNSIZED(descr)) throw std::invalid_argument("results must be numbers");
    result.fixed = true;
    uint64_t bytes = uint64_t(PyDataType_ELSIZE(descr));
    bool empty = false, fits = true;
    for (py::handle part : py::iter(pair[1])) {
      result.shape.push_back(Size::parse(part, p.dims.size()));
      const Size &size = result.shape.back();
      result.fixed &= size.fixed();
      if (!size.fixed()) continue;
      if (size.constant() < 0) throw std::invalid_argument("a result has a negative size");
      result.sizes.push_back(npy_intp(size.constant()));
      empty |= size.constant() == 0;
      fits &= !__builtin_mul_overflow(bytes, uint64_t(size.constant() ? size.constant() : 1), &bytes) && bytes <= uint64_t(NPY_MAX_INTP);
    }
    if (!fits) throw std::invalid_argument("a result is larger than memory can be");
    if (result.shape.size() > NPY_MAXDIMS) throw std::invalid_argument("a result has more dimensions than NumPy allows");
    result.bytes = empty ? 0 : bytes;
    p.results.push_back(std::move(result));
  }
}

void read_donations(Program &p, py::handle donate, py::handle alias) {
  for (py::handle leaf : py::iter(donate)) p.donated[size_t(read_leaf(p, leaf))] = 1;
  if (!alias.is_none()) {
    std::vector<bool> taken(p.slots.size());
    for (auto item : py::cast<py::dict>(alias)) {
      const auto result = py::cast<size_t>(item.first);
      const int leaf = read_leaf(p, item.second);
      if (result >= p.results.size()) throw std::invalid_argument("alias names a result that does not exist");
      if (taken[size_t(leaf)]) throw std::invalid_argument("two results cannot take over the memory of one leaf");
      taken[size_t(leaf)] = true;
      p.donated[size_t(leaf)] = 1;
      p.results[result].alias = leaf;
    }
  }
  for (unsigned char d : p.donated) p.donates |= d;
}

template <class F>
F *address(py::handle value) {
  return reinterpret_cast<F *>(py::cast<uintptr_t>(value));
}

PyObject *vectorcall_executable(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames);

PyObject *executable_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static const char *names[] = {"entry", "params", "results", "out_tree", "dims", "checks", "workspace", "workspace_function",
                                "donate", "alias", "constants", "release_gil", "parallel", "name", "keepalive", nullptr};
  const py::object none = py::none(), empty = py::tuple(), zero = py::int_(0);
  PyObject *entry, *params = nullptr, *results = nullptr, *out_tree = nullptr, *dims = empty.ptr(), *checks = empty.ptr(), *workspace = zero.ptr(),
           *workspace_function = zero.ptr(), *donate = empty.ptr(), *alias = none.ptr(), *constants = empty.ptr(), *keepalive = none.ptr();
  int release_gil = 1, parallel = 1;
  const char *name = "";
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOOOOOOOOOppsO:Executable", const_cast<char **>(names), &entry, &params, &results,
                                   &out_tree, &dims, &checks, &workspace, &workspace_function, &donate, &alias, &constants,
                                   &release_gil, &parallel, &name, &keepalive))
    return nullptr;
  if (!params || !results || !out_tree) {
    PyErr_SetString(PyExc_TypeError, "Executable() needs the keywords params, results and out_tree");
    return nullptr;
  }
  try {
    auto p = std::make_unique<Program>();
    p->entry = address<std::remove_pointer_t<xlc_entry>>(entry);
    if (!p->entry) throw std::invalid_argument("entry is the address 0");
    p->workspace = py::cast<size_t>(py::handle(workspace));
    p->workspace_function = address<std::remove_pointer_t<xlc_workspace>>(workspace_function);
    read_params(*p, params);
    read_slots(*p, constants);
    read_dims(*p, dims, checks);
    read_results(*p, results);
    read_donations(*p, donate, alias);
    p->out_tree = py::reinterpret_borrow<py::object>(out_tree);
    p->tree = Tree::parse(out_tree, p->results.size());
    p->release_gil = release_gil;
    p->parallel = parallel;
    p->name = *name ? name : "compiled code";
    p->keepalive = py::reinterpret_borrow<py::object>(keepalive);
    auto *self = self_of(type->tp_alloc(type, 0));
    if (!self) return nullptr;
    self->vectorcall = vectorcall_executable;
    self->program = p.release();
    return reinterpret_cast<PyObject *>(self);
  } catch (py::error_already_set &e) {
    e.restore();
  } catch (const py::cast_error &e) {
    PyErr_Format(PyExc_ValueError, "malformed description of an executable: %s", e.what());
  } catch (const std::exception &e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  }
  return nullptr;
}

// ---- life ----

int visit_tree(const Tree &tree, visitproc visit, void *arg) {
  Py_VISIT(tree.object.ptr());
  for (const Tree &child : tree.children)
    if (int r = visit_tree(child, visit, arg)) return r;
  return 0;
}

int executable_traverse(PyObject *self, visitproc visit, void *arg) {
  const Program *p = self_of(self)->program;
  if (!p) return 0;
  Py_VISIT(p->keepalive.ptr());
  Py_VISIT(p->out_tree.ptr());
  return visit_tree(p->tree, visit, arg);
}

int executable_clear(PyObject *self) {
  Program *p = self_of(self)->program;
  if (!p) return 0;
  p->entry = [](void *const *, const int64_t *, void *, const xlc_parallel *) -> int32_t { return 2; }; // its code may go now
  p->workspace_function = nullptr;
  const Tree tree = std::exchange(p->tree, Tree());
  const py::object out_tree = std::exchange(p->out_tree, py::none()), keepalive = std::exchange(p->keepalive, py::none());
  return 0;
}

void executable_dealloc(PyObject *self) {
  PyObject_GC_UnTrack(self);
  if (self_of(self)->weakrefs) PyObject_ClearWeakRefs(self);
  delete self_of(self)->program;
  Py_TYPE(self)->tp_free(self);
}

PyObject *executable_repr(PyObject *self) {
  const Program &p = *self_of(self)->program;
  return PyUnicode_FromFormat("<Executable %s: %zu leaves, %zu results, %lld calls>", p.name.c_str(), p.slots.size(), p.results.size(), self_of(self)->calls);
}

// ---- calling with flat leaves ----

bool read_leaves(const Program &p, PyObject *const *args, size_t n, Leaves &leaves) {
  if (n != p.slots.size()) {
    PyErr_Format(PyExc_TypeError, "%s takes %zu leaves, %zu were given", p.name.c_str(), p.slots.size(), n);
    return false;
  }
  for (size_t i = 0; i < n; i++) {
    Leaf leaf;
    if (!leaf_from_any(args[i], leaf)) return false;
    leaves.push(leaf);
  }
  return true;
}

PyObject *vectorcall_executable(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
  if (kwnames && PyTuple_GET_SIZE(kwnames)) {
    PyErr_SetString(PyExc_TypeError, "an executable takes its leaves by position");
    return nullptr;
  }
  Leaves leaves;
  if (!read_leaves(*self_of(self)->program, args, size_t(PyVectorcall_NARGS(nargsf)), leaves)) return nullptr;
  return call_executable(self_of(self), leaves.data(), nullptr);
}

PyObject *call_flat(PyObject *self, PyObject *list) {
  const auto sequence = py::reinterpret_steal<py::object>(PySequence_Tuple(list));
  if (!sequence) return nullptr;
  return vectorcall_executable(self, PySequence_Fast_ITEMS(sequence.ptr()), size_t(PyTuple_GET_SIZE(sequence.ptr())), nullptr);
}

PyObject *run_flat(PyObject *self, PyObject *list) {
  const Program &p = *self_of(self)->program;
  const auto sequence = py::reinterpret_steal<py::object>(PySequence_Tuple(list));
  Leaves leaves;
  if (!sequence || !read_leaves(p, PySequence_Fast_ITEMS(sequence.ptr()), size_t(PyTuple_GET_SIZE(sequence.ptr())), leaves)) return nullptr;
  Small<PyObject *, 16> results;
  results.resize(p.results.size());
  self_of(self)->calls++;
  if (!p.run(leaves.data(), nullptr, results.data())) return nullptr;
  PyObject *out = PyList_New(Py_ssize_t(results.size()));
  for (size_t i = 0; i < results.size(); i++) {
    if (out)
      PyList_SET_ITEM(out, Py_ssize_t(i), results[i]);
    else
      Py_DECREF(results[i]);
  }
  return out;
}

PyMethodDef methods[] = {
    {"call_flat", call_flat, METH_O, "call_flat(leaves): the result, in out_tree."},
    {"run_flat", run_flat, METH_O, "run_flat(leaves) -> list of the result arrays."},
    {nullptr, nullptr, 0, nullptr}};

PyMemberDef members[] = {
    {"calls", T_LONGLONG, offsetof(Executable, calls), READONLY, "how often it was called"},
    {nullptr, 0, 0, 0, nullptr}};

PyGetSetDef getters[] = {
    {"name", [](PyObject *self, void *) { return PyUnicode_FromString(self_of(self)->program->name.c_str()); }, nullptr, nullptr, nullptr},
    {"params", [](PyObject *self, void *) { return Py_NewRef(self_of(self)->program->params.ptr()); }, nullptr, nullptr, nullptr},
    {"out_tree", [](PyObject *self, void *) { return Py_NewRef(self_of(self)->program->out_tree.ptr()); }, nullptr, nullptr, nullptr},
    {"keepalive", [](PyObject *self, void *) { return Py_NewRef(self_of(self)->program->keepalive.ptr()); }, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

} // namespace

PyTypeObject Executable_Type = [] {
  PyTypeObject t = {PyVarObject_HEAD_INIT(nullptr, 0)};
  t.tp_name = "xlc._xlc.Executable";
  t.tp_doc = "A compiled program with everything that is needed to call it (see xlc/run/native.py).";
  t.tp_basicsize = sizeof(Executable);
  t.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL;
  t.tp_vectorcall_offset = offsetof(Executable, vectorcall);
  t.tp_weaklistoffset = offsetof(Executable, weakrefs);
  t.tp_call = PyVectorcall_Call;
  t.tp_new = executable_new;
  t.tp_dealloc = executable_dealloc;
  t.tp_traverse = executable_traverse;
  t.tp_clear = executable_clear;
  t.tp_repr = executable_repr;
  t.tp_methods = methods;
  t.tp_members = members;
  t.tp_getset = getters;
  return t;
}();

} // namespace xlc
