// The Python type Dispatcher: from a call to its executable.
#pragma once
#include "numpy.h"

namespace xlc {

extern PyTypeObject Dispatcher_Type;
extern PyObject *retry; // what miss returns for "look again"

} // namespace xlc
