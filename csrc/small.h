// A vector whose first N elements live on the stack; elements are trivially copyable.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

namespace xlc {

template <class T, size_t N>
class Small {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Small() : data_(reinterpret_cast<T *>(inline_)) {}
  Small(const Small &) = delete;
  Small &operator=(const Small &) = delete;
  ~Small() {
    if (data_ != reinterpret_cast<T *>(inline_)) std::free(data_);
  }

  T &push() {
    if (size_ == capacity_) reserve(2 * capacity_);
    return data_[size_++];
  }
  void push(const T &value) { push() = value; }
  void resize(size_t n) { // new elements are uninitialised
    reserve(n);
    size_ = n;
  }
  void clear() { size_ = 0; }
  size_t size() const { return size_; }
  T *data() { return data_; }
  const T *data() const { return data_; }
  T &operator[](size_t i) { return data_[i]; }
  const T &operator[](size_t i) const { return data_[i]; }
  T *begin() { return data_; }
  T *end() { return data_ + size_; }
  const T *begin() const { return data_; }
  const T *end() const { return data_ + size_; }

 private:
  void reserve(size_t n) {
    if (n <= capacity_) return;
    const bool here = data_ == reinterpret_cast<T *>(inline_);
    void *grown = std::realloc(here ? nullptr : data_, n * sizeof(T));
    if (!grown) throw std::bad_alloc();
    if (here) std::memcpy(grown, inline_, size_ * sizeof(T));
    data_ = static_cast<T *>(grown);
    capacity_ = n;
  }

  T *data_;
  size_t size_ = 0, capacity_ = N;
  alignas(T) unsigned char inline_[N * sizeof(T)];
};

} // namespace xlc
