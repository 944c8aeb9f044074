#include "dispatcher.h"

#include <pybind11/pybind11.h>
#include <structmember.h>

#include "executable.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

namespace py = pybind11;

namespace xlc {

PyObject *retry = nullptr;

namespace {

// A known signature and what runs for it. Counted, under the GIL: a call holds one while another thread clears the table.
struct Entry {
  std::vector<uint64_t> words;
  std::vector<PyObject *> objects; // owned
  size_t static_objects = 0;
  std::vector<uint32_t> holes;     // words that match anything: sizes that are symbolic; ascending
  std::vector<int32_t> order;      // of the leaves (see Call::canonical); empty: as walked
  Executable *executable = nullptr; // owned
  int references = 1;

  ~Entry() {
    for (PyObject *object : objects) Py_DECREF(object);
    Py_XDECREF(executable);
  }
  const int32_t *order_or_null() const { return order.empty() ? nullptr : order.data(); }
  void drop() {
    if (--references == 0) delete this;
  }
};

class Held { // a reference to an Entry
 public:
  explicit Held(Entry *entry) : entry_(entry) {} // takes over the caller's reference
  ~Held() {
    if (entry_) entry_->drop();
  }
  Held(const Held &) = delete;
  Held &operator=(const Held &) = delete;
  Entry *operator->() const { return entry_; }
  Entry *share() const {
    entry_->references++;
    return entry_;
  }
  explicit operator bool() const { return entry_ != nullptr; }

 private:
  Entry *entry_;
};

struct Table {
  Statics statics;
  Entry *last = nullptr; // what the last call found; owned, as are:
  std::unordered_multimap<uint64_t, Entry *> exact;
  std::vector<Entry *> symbolic; // those with holes
};

struct Dispatcher {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  PyObject *weakrefs, *dict;
  PyObject *miss, *owner; // owner may be NULL
  Table *table;
  char slow;
};

Dispatcher *self_of(PyObject *self) { return reinterpret_cast<Dispatcher *>(self); }

// ---- the table ----

uint64_t hash_of(const Call &call) {
  uint64_t h = 0x9E3779B97F4A7C15;
  for (uint64_t w : call.words) {
    h = (h ^ w) * 0xD6E8FEB86659FD93;
    h ^= h >> 32;
  }
  return h;
}

bool same_words(const Entry &entry, const Call &call) {
  if (entry.words.size() != call.words.size()) return false;
  size_t from = 0;
  for (uint32_t hole : entry.holes) {
    if (std::memcmp(&entry.words[from], &call.words[from], (hole - from) * sizeof(uint64_t)) != 0) return false;
    from = hole + 1;
  }
  return from == call.words.size() || std::memcmp(&entry.words[from], &call.words[from], (call.words.size() - from) * sizeof(uint64_t)) == 0;
}

// Runs code of the user where there are static arguments.
bool same_objects(const Entry &entry, const Call &call) {
  if (entry.objects.size() != call.objects.size()) return false;
  for (size_t i = entry.static_objects; i < entry.objects.size(); i++) {
    PyObject *a = entry.objects[i], *b = call.objects[i];
    if (a != b && !(PyUnicode_CheckExact(a) && PyUnicode_CheckExact(b) && PyUnicode_Compare(a, b) == 0)) return false;
  }
  for (size_t i = 0; i < entry.static_objects; i++) {
    const int equal = PyObject_RichCompareBool(entry.objects[i], call.objects[i], Py_EQ);
    if (equal < 0) PyErr_Clear();
    if (equal != 1) return false;
  }
  return true;
}

bool matches(const Entry &entry, const Call &call) { // the caller holds the entry
  if (!same_words(entry, call) || entry.static_objects != call.static_objects || !same_objects(entry, call)) return false;
  if (entry.holes.empty()) return true;
  const Program &program = *entry.executable->program;
  Small<int64_t, 8> dims;
  dims.resize(program.dims.size());
  return program.read_dims(call.leaves.data(), entry.order_or_null(), dims.data());
}

// A new reference, or NULL.
Entry *find(Table &table, const Call &call) {
  if (Entry *last = table.last) {
    last->references++; // comparing static values may run Python, which may change the table
    if (matches(*last, call)) return last;
    last->drop();
  }
  const uint64_t hash = hash_of(call);
  Small<Entry *, 16> candidates;
  for (auto [it, end] = table.exact.equal_range(hash); it != end; ++it) candidates.push(it->second);
  for (Entry *entry : table.symbolic) candidates.push(entry);
  for (Entry *entry : candidates) entry->references++;
  Entry *found = nullptr;
  for (Entry *entry : candidates) {
    if (!found && matches(*entry, call))
      found = entry;
    else
      entry->drop();
  }
  return found;
}

void remember(Table &table, Entry *entry) { // takes over a reference
  if (Entry *before = std::exchange(table.last, entry)) before->drop();
}

void empty_table(Table &table) {
  std::vector<Entry *> entries = std::exchange(table.symbolic, {});
  for (auto &[hash, entry] : table.exact) entries.push_back(entry);
  table.exact.clear();
  if (Entry *last = std::exchange(table.last, nullptr)) entries.push_back(last);
  for (Entry *entry : entries) entry->drop(); // may run Python: the table is consistent by now
}

// ---- calls ----

PyObject *call_miss(Dispatcher *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  const auto positional = py::reinterpret_steal<py::object>(PyTuple_New(nargs)), keywords = py::reinterpret_steal<py::object>(PyDict_New());
  if (!positional || !keywords) return nullptr;
  for (Py_ssize_t i = 0; i < nargs; i++) PyTuple_SET_ITEM(positional.ptr(), i, Py_NewRef(args[i]));
  for (Py_ssize_t k = 0; kwnames && k < PyTuple_GET_SIZE(kwnames); k++)
    if (PyDict_SetItem(keywords.ptr(), PyTuple_GET_ITEM(kwnames, k), args[nargs + k]) < 0) return nullptr;
  PyObject *both[] = {positional.ptr(), keywords.ptr()};
  return PyObject_Vectorcall(self->miss, both, 2, nullptr);
}

// Runs what is known for this call; NULL and *known = false when nothing is.
PyObject *call_known(Dispatcher *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, bool *known) {
  Call call;
  *known = false;
  if (!call.walk(args, nargs, kwnames, self->table->statics)) return nullptr;
  const Held entry(find(*self->table, call));
  if (!entry) return nullptr;
  if (self->table->last != entry.operator->()) remember(*self->table, entry.share());
  *known = true;
  Executable *executable = entry->executable;
  Py_INCREF(executable); // another thread may replace it meanwhile
  PyObject *result = call_executable(executable, call.leaves.data(), entry->order_or_null());
  Py_DECREF(executable);
  return result;
}

PyObject *vectorcall_dispatcher(PyObject *object, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
  Dispatcher *self = self_of(object);
  const Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
  bool known = false;
  if (!self->slow) {
    PyObject *result = call_known(self, args, nargs, kwnames, &known);
    if (known) return result;
  }
  if (Py_EnterRecursiveCall(" in a compiled function")) return nullptr;
  PyObject *result = call_miss(self, args, nargs, kwnames);
  Py_LeaveRecursiveCall();
  if (result != retry) return result;
  Py_DECREF(result);
  result = call_known(self, args, nargs, kwnames, &known);
  if (!known) PyErr_SetString(PyExc_RuntimeError, "miss asked to look again, but added nothing that matches this call");
  return result;
}

// ---- add and find, with the arguments as a tuple and a dict ----

struct Arguments {
  std::vector<PyObject *> values; // borrowed
  Py_ssize_t nargs = 0;
  py::object kwnames; // a tuple, or nothing

  // False with an exception set when these are not a tuple and a dict.
  bool read(PyObject *args, PyObject *kwargs) {
    if (!PyTuple_Check(args) || !PyDict_Check(kwargs)) {
      PyErr_SetString(PyExc_TypeError, "expected the arguments as a tuple and a dict");
      return false;
    }
    nargs = PyTuple_GET_SIZE(args);
    values.assign(PySequence_Fast_ITEMS(args), PySequence_Fast_ITEMS(args) + nargs);
    if (PyDict_GET_SIZE(kwargs) == 0) return true;
    kwnames = py::reinterpret_steal<py::object>(PyTuple_New(PyDict_GET_SIZE(kwargs)));
    if (!kwnames) return false;
    Py_ssize_t next = 0, k = 0;
    PyObject *name, *value;
    while (PyDict_Next(kwargs, &next, &name, &value)) {
      PyTuple_SET_ITEM(kwnames.ptr(), k++, Py_NewRef(name));
      values.push_back(value);
    }
    return true;
  }
};

// The words of the axes that match any size. False with an exception set when such an axis does not exist.
bool find_holes(const Program &program, const Call &call, Entry &entry) {
  const auto add = [&](const Place &place) {
    const Leaf &leaf = call.leaves[entry.order.empty() ? size_t(place.leaf) : size_t(entry.order[size_t(place.leaf)])];
    if (!leaf.is_array || place.axis >= PyArray_NDIM(leaf.array())) {
      PyErr_Format(PyExc_ValueError, "%s: leaf %d has no axis %d in this call", program.name.c_str(), place.leaf, place.axis);
      return false;
    }
    entry.holes.push_back(leaf.position + 1 + uint32_t(place.axis));
    return true;
  };
  for (const auto &places : program.dims)
    for (const Place &place : places)
      if (!add(place)) return false;
  for (const Check &check : program.checks)
    if (!add(check.place)) return false;
  std::sort(entry.holes.begin(), entry.holes.end());
  entry.holes.erase(std::unique(entry.holes.begin(), entry.holes.end()), entry.holes.end());
  return true;
}

PyObject *dispatcher_add(PyObject *object, PyObject *const *args, Py_ssize_t n) {
  Table &table = *self_of(object)->table;
  Arguments arguments;
  if (n != 3 || !PyObject_TypeCheck(args[2], &Executable_Type)) {
    PyErr_SetString(PyExc_TypeError, "add(args, kwargs, executable)");
    return nullptr;
  }
  if (!arguments.read(args[0], args[1])) return nullptr;
  Call call;
  if (!call.walk(arguments.values.data(), arguments.nargs, arguments.kwnames.ptr(), table.statics)) Py_RETURN_NONE;
  auto *executable = reinterpret_cast<Executable *>(args[2]);
  const Program &program = *executable->program;
  if (program.slots.size() != call.leaves.size()) {
    PyErr_Format(PyExc_ValueError, "%s takes %zu leaves, this call has %zu", program.name.c_str(), program.slots.size(), call.leaves.size());
    return nullptr;
  }
  auto entry = std::make_unique<Entry>();
  if (!Call::canonical(arguments.values.data(), arguments.nargs, arguments.kwnames.ptr(), table.statics, entry->order)) return nullptr;
  if (std::is_sorted(entry->order.begin(), entry->order.end())) entry->order.clear();
  if (!find_holes(program, call, *entry)) return nullptr;
  if (const Held old(find(table, call)); old && old->holes == entry->holes) { // an earlier one: replaced in place
    Py_INCREF(executable);
    Py_DECREF(std::exchange(old->executable, executable));
    return Py_NewRef(retry);
  }
  entry->words.assign(call.words.begin(), call.words.end());
  for (PyObject *o : call.objects) entry->objects.push_back(Py_NewRef(o));
  entry->static_objects = call.static_objects;
  Py_INCREF(executable);
  entry->executable = executable;
  Entry *added = entry.release();
  if (added->holes.empty())
    table.exact.emplace(hash_of(call), added);
  else
    table.symbolic.insert(table.symbolic.begin(), added); // the newest first
  remember(table, nullptr);
  return Py_NewRef(retry);
}

PyObject *dispatcher_find(PyObject *object, PyObject *const *args, Py_ssize_t n) {
  Arguments arguments;
  if (n != 2) {
    PyErr_SetString(PyExc_TypeError, "find(args, kwargs)");
    return nullptr;
  }
  if (!arguments.read(args[0], args[1])) return nullptr;
  Table &table = *self_of(object)->table;
  Call call;
  if (!call.walk(arguments.values.data(), arguments.nargs, arguments.kwnames.ptr(), table.statics)) Py_RETURN_NONE;
  const Held entry(find(table, call));
  if (!entry) Py_RETURN_NONE;
  return Py_NewRef(reinterpret_cast<PyObject *>(entry->executable));
}

PyObject *dispatcher_clear_table(PyObject *object, PyObject *) {
  empty_table(*self_of(object)->table);
  Py_RETURN_NONE;
}

PyObject *dispatcher_executables(PyObject *object, PyObject *) {
  const Table &table = *self_of(object)->table;
  std::vector<Entry *> entries(table.symbolic);
  for (auto &[hash, entry] : table.exact) entries.push_back(entry);
  PyObject *list = PyList_New(Py_ssize_t(entries.size()));
  for (size_t i = 0; list && i < entries.size(); i++)
    PyList_SET_ITEM(list, Py_ssize_t(i), Py_NewRef(reinterpret_cast<PyObject *>(entries[i]->executable)));
  return list;
}

// ---- the type ----

PyObject *dispatcher_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static const char *names[] = {"miss", "static_argnums", "static_argnames", "slow", "owner", nullptr};
  PyObject *miss, *positions = nullptr, *keywords = nullptr, *owner = nullptr;
  int slow = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOpO:Dispatcher", const_cast<char **>(names), &miss, &positions, &keywords, &slow, &owner))
    return nullptr;
  auto table = std::make_unique<Table>();
  try {
    if (positions)
      for (py::handle p : py::iter(positions)) table->statics.positions.push_back(py::cast<Py_ssize_t>(p));
    for (Py_ssize_t p : table->statics.positions)
      if (p < 0) throw std::invalid_argument("static_argnums must not be negative");
  } catch (py::error_already_set &e) {
    e.restore();
    return nullptr;
  } catch (const std::exception &e) {
    PyErr_SetString(PyExc_ValueError, e.what());
    return nullptr;
  }
  py::object interned;
  if (keywords) {
    interned = py::reinterpret_steal<py::object>(PySequence_Tuple(keywords));
    if (!interned) return nullptr;
    for (py::handle name : interned)
      if (!PyUnicode_CheckExact(name.ptr())) {
        PyErr_SetString(PyExc_TypeError, "static_argnames must be strings");
        return nullptr;
      }
    if (PyTuple_GET_SIZE(interned.ptr()) == 0) interned = py::object();
  }
  auto *self = self_of(type->tp_alloc(type, 0));
  if (!self) return nullptr;
  self->vectorcall = vectorcall_dispatcher;
  self->miss = Py_NewRef(miss);
  self->owner = owner && owner != Py_None ? Py_NewRef(owner) : nullptr;
  self->slow = char(slow);
  table->statics.names = interned.release().ptr();
  self->table = table.release();
  return reinterpret_cast<PyObject *>(self);
}

int dispatcher_traverse(PyObject *object, visitproc visit, void *arg) {
  const Dispatcher *self = self_of(object);
  Py_VISIT(self->dict);
  Py_VISIT(self->miss);
  Py_VISIT(self->owner);
  if (!self->table) return 0;
  const auto visit_entry = [&](const Entry *entry) {
    for (PyObject *o : entry->objects) Py_VISIT(o);
    Py_VISIT(reinterpret_cast<PyObject *>(entry->executable));
    return 0;
  };
  for (const auto &[hash, entry] : self->table->exact)
    if (int r = visit_entry(entry)) return r;
  for (const Entry *entry : self->table->symbolic)
    if (int r = visit_entry(entry)) return r;
  return 0;
}

PyObject *no_miss(PyObject *, PyObject *) { // after the garbage collector has taken a dispatcher apart
  PyErr_SetString(PyExc_RuntimeError, "this dispatcher is dead");
  return nullptr;
}
PyMethodDef no_miss_definition = {"miss", no_miss, METH_VARARGS, nullptr};

int dispatcher_clear(PyObject *object) {
  Dispatcher *self = self_of(object);
  Py_CLEAR(self->dict);
  Py_CLEAR(self->owner);
  if (self->table) empty_table(*self->table);
  if (PyObject *dead = PyCFunction_New(&no_miss_definition, nullptr)) Py_SETREF(self->miss, dead);
  return 0;
}

void dispatcher_dealloc(PyObject *object) {
  Dispatcher *self = self_of(object);
  PyObject_GC_UnTrack(object);
  if (self->weakrefs) PyObject_ClearWeakRefs(object);
  Py_CLEAR(self->dict);
  Py_CLEAR(self->owner);
  Py_CLEAR(self->miss);
  if (self->table) {
    empty_table(*self->table);
    Py_XDECREF(self->table->statics.names);
    delete self->table;
  }
  Py_TYPE(object)->tp_free(object);
}

PyObject *dispatcher_getattro(PyObject *object, PyObject *name) {
  PyObject *value = PyObject_GenericGetAttr(object, name);
  PyObject *owner = self_of(object)->owner;
  if (value || !owner || !PyErr_ExceptionMatches(PyExc_AttributeError)) return value;
  PyErr_Clear();
  return PyObject_GetAttr(owner, name);
}

PyObject *dispatcher_repr(PyObject *object) {
  if (PyObject *owner = self_of(object)->owner) return PyObject_Repr(owner);
  return PyUnicode_FromFormat("<Dispatcher at %p>", object);
}

PyObject *dispatcher_descr_get(PyObject *object, PyObject *instance, PyObject *) {
  if (!instance || instance == Py_None) return Py_NewRef(object);
  return PyMethod_New(object, instance);
}

// __doc__ and __module__ would be found on the type: an instance's own, or its owner's, come before.
PyObject *get_text(PyObject *object, void *name) {
  Dispatcher *self = self_of(object);
  if (self->dict)
    if (PyObject *own = PyDict_GetItemString(self->dict, static_cast<char *>(name))) return Py_NewRef(own);
  if (self->owner) return PyObject_GetAttrString(self->owner, static_cast<char *>(name));
  Py_RETURN_NONE;
}

int set_text(PyObject *object, PyObject *value, void *name) {
  Dispatcher *self = self_of(object);
  if (!self->dict && !(self->dict = PyDict_New())) return -1;
  return PyDict_SetItemString(self->dict, static_cast<char *>(name), value ? value : Py_None);
}

PyMethodDef methods[] = {
    {"add", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(dispatcher_add)), METH_FASTCALL, "add(args, kwargs, executable) -> RETRY | None"},
    {"find", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(dispatcher_find)), METH_FASTCALL, "find(args, kwargs) -> Executable | None"},
    {"clear", dispatcher_clear_table, METH_NOARGS, "clear(): forget every signature."},
    {"executables", dispatcher_executables, METH_NOARGS, "executables() -> list"},
    {nullptr, nullptr, 0, nullptr}};

PyMemberDef members[] = {
    {"miss", T_OBJECT_EX, offsetof(Dispatcher, miss), 0, "what is called for an unknown signature"},
    {"owner", T_OBJECT, offsetof(Dispatcher, owner), 0, "where other attributes are looked up"},
    {"slow", T_BOOL, offsetof(Dispatcher, slow), 0, "whether every call goes to miss"},
    {nullptr, 0, 0, 0, nullptr}};

PyGetSetDef getters[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
    {"__doc__", get_text, set_text, nullptr, const_cast<char *>("__doc__")},
    {"__module__", get_text, set_text, nullptr, const_cast<char *>("__module__")},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

} // namespace

PyTypeObject Dispatcher_Type = [] {
  PyTypeObject t = {PyVarObject_HEAD_INIT(nullptr, 0)};
  t.tp_name = "xlc._xlc.Dispatcher";
  t.tp_basicsize = sizeof(Dispatcher);
  t.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_BASETYPE;
  t.tp_vectorcall_offset = offsetof(Dispatcher, vectorcall);
  t.tp_weaklistoffset = offsetof(Dispatcher, weakrefs);
  t.tp_dictoffset = offsetof(Dispatcher, dict);
  t.tp_call = PyVectorcall_Call;
  t.tp_new = dispatcher_new;
  t.tp_dealloc = dispatcher_dealloc;
  t.tp_traverse = dispatcher_traverse;
  t.tp_clear = dispatcher_clear;
  t.tp_getattro = dispatcher_getattro;
  t.tp_repr = dispatcher_repr;
  t.tp_descr_get = dispatcher_descr_get;
  t.tp_methods = methods;
  t.tp_members = members;
  t.tp_getset = getters;
  return t;
}();

} // namespace xlc
