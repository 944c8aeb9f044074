// Sizes as expressions over the symbolic sizes: a sum of products of dims and floor quotients.
#pragma once
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace xlc {

class Size {
 public:
  static constexpr int64_t INVALID = INT64_MIN; // overflow, or division by zero

  Size() = default;
  // int | [(coef, [(dim | (Size, Size), power), ...]), ...]; throws std::invalid_argument. dims: how many there are.
  static Size parse(pybind11::handle value, size_t dims);

  bool fixed() const { return terms_.empty(); }
  int64_t constant() const { return constant_; }
  int64_t evaluate(const int64_t *dims) const;

 private:
  struct Factor {
    int dim = -1;
    std::shared_ptr<const std::pair<Size, Size>> quotient; // where dim is -1
    int power = 1;
  };
  struct Term {
    int64_t coef;
    std::vector<Factor> factors;
  };
  int64_t constant_ = 0;
  std::vector<Term> terms_;
};

} // namespace xlc
