#include "size.h"

#include <stdexcept>

namespace py = pybind11;

namespace xlc {

Size Size::parse(py::handle value, size_t dims) {
  Size size;
  if (PyIndex_Check(value.ptr())) {
    size.constant_ = py::cast<int64_t>(py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr())));
    return size;
  }
  for (py::handle item : py::iter(value)) {
    auto pair = py::cast<py::tuple>(item);
    Term term{py::cast<int64_t>(pair[0]), {}};
    for (py::handle part : py::iter(pair[1])) {
      auto factor = py::cast<py::tuple>(part);
      Factor f;
      f.power = py::cast<int>(factor[1]);
      if (f.power < 1) throw std::invalid_argument("a power in a size must be at least 1");
      if (PyIndex_Check(py::object(factor[0]).ptr())) {
        f.dim = py::cast<int>(factor[0]);
        if (f.dim < 0 || size_t(f.dim) >= dims) throw std::invalid_argument("a size names a dim that does not exist");
      } else {
        auto quotient = py::cast<py::tuple>(factor[0]);
        if (quotient.size() != 2) throw std::invalid_argument("a floor quotient is a pair of sizes");
        f.quotient = std::make_shared<const std::pair<Size, Size>>(parse(quotient[0], dims), parse(quotient[1], dims));
      }
      term.factors.push_back(std::move(f));
    }
    if (term.factors.empty())
      size.constant_ += term.coef;
    else
      size.terms_.push_back(std::move(term));
  }
  return size;
}

int64_t Size::evaluate(const int64_t *dims) const {
  int64_t sum = constant_;
  for (const Term &term : terms_) {
    int64_t product = term.coef;
    for (const Factor &f : term.factors) {
      int64_t base;
      if (f.dim >= 0) {
        base = dims[f.dim];
      } else {
        const int64_t a = f.quotient->first.evaluate(dims), b = f.quotient->second.evaluate(dims);
        if (a == INVALID || b == INVALID || b == 0) return INVALID;
        base = a / b - (a % b != 0 && (a < 0) != (b < 0));
      }
      for (int k = 0; k < f.power; k++)
        if (__builtin_mul_overflow(product, base, &product)) return INVALID;
    }
    if (__builtin_add_overflow(sum, product, &sum)) return INVALID;
  }
  return sum;
}

} // namespace xlc
