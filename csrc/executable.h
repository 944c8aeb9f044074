// A compiled program with everything that is needed to call it.
#pragma once
#include "call.h"
#include "size.h"

#include <memory>
#include <string>
#include <vector>

#include "xlc.h"

namespace xlc {

// How the results are put together.
struct Tree {
  enum Kind { LEAF, NONE, CONST, TUPLE, LIST, DICT, CALL } kind = NONE;
  size_t leaf = 0;
  pybind11::object object; // the constant, the constructor, or the dict's keys (a tuple)
  std::vector<Tree> children;

  static Tree parse(pybind11::handle spec, size_t results);
  PyObject *build(PyObject *const *results) const; // a new reference; NULL with an exception set
};

struct Result {
  pybind11::object dtype; // owns descr
  PyArray_Descr *descr = nullptr;
  std::vector<Size> shape;
  bool fixed = false;            // then:
  std::vector<npy_intp> sizes;   //   the shape
  size_t bytes = 0;              //   its size in memory
  int alias = -1;                // the leaf whose memory it takes over
};

struct Place {
  int leaf, axis;
};

struct Check {
  Place place;
  Size size;
};

struct Program {
  xlc_entry entry = nullptr;
  xlc_workspace workspace_function = nullptr;
  size_t workspace = 0;
  std::vector<int> slots;            // of each leaf, -1: unused
  std::vector<unsigned char> donated; // of each leaf: the entry may write to it
  bool donates = false;
  size_t parameters = 0;
  std::vector<Result> results;
  std::vector<std::vector<Place>> dims;
  std::vector<Check> checks;
  std::vector<pybind11::object> constants;
  bool release_gil = true, parallel = true;
  std::string name;
  Tree tree;
  pybind11::object out_tree, params, keepalive;

  // Reads the symbolic sizes. False when places that should agree differ. order: see Call::canonical; NULL: the leaves' own.
  bool read_dims(const Leaf *leaves, const int32_t *order, int64_t *dims) const;
  // Calls the entry. Fills out[results.size()] with new references; false with an exception set. Leaves may be replaced by copies.
  bool run(Leaf *leaves, const int32_t *order, PyObject **out) const;
};

struct Executable {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  PyObject *weakrefs;
  Program *program;
  long long calls;
};

// run() and build the results.
PyObject *call_executable(Executable *executable, Leaf *leaves, const int32_t *order);

extern PyTypeObject Executable_Type;

} // namespace xlc
