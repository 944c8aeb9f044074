// The products of four warps (wgmma of sm_90a), behind shim.cpp in one translation unit. Operands are found from the bits of their
// descriptors as the PTX ISA defines them ("Matrix Descriptor Format", "Strides"; of 16-bit elements, 128-byte swizzled). A product takes
// what it reads when it is issued, from what the asynchronous proxy sees, which is what had been stored before the last barrier, if every
// thread came to that with a fence; and once more, from memory itself, when it is waited for. Where the two differ, something is stored
// too early, or a fence or barrier is missing. Results lie nowhere (nan) from the issue to the wait.

extern "C" float xlc_f16_to_f32(unsigned short);
extern "C" float xlc_bf16_to_f32(unsigned short);

namespace {

constexpr unsigned SHARED_BASE = 1024, MOST = 128;  // where shared memory begins in its window, as on the chip; results of a thread

struct Accumulator { float* d; unsigned count, users; float values[MOST]; };

struct Warpgroup {  // of one thread: what is under way, oldest first
  struct Product {
    Accumulator* into;
    int columns, ta, tb;
    bool bfloat, registers;
    unsigned fragment[4], group;
    unsigned long long a, b;
    double sums[MOST];
  }* products;
  unsigned count, capacity, group;
  bool fenced;  // registers may be taken
};

Warpgroup& state(Thread& t) {
  if (!t.products) t.products = (Warpgroup*)calloc(1, sizeof(Warpgroup));
  return *t.products;
}

double element(const unsigned char* at, bool bfloat) {
  unsigned short bits;
  memcpy(&bits, at, 2);
  return bfloat ? xlc_bf16_to_f32(bits) : xlc_f16_to_f32(bits);
}

// The byte of shared memory at which element (row, k) of an operand lies.
unsigned place(unsigned long long operand, bool transposed, unsigned row, unsigned k) {
  const unsigned start = (operand & 0x3fff) * 16, leading = (operand >> 16 & 0x3fff) * 16, stride = (operand >> 32 & 0x3fff) * 16;
  unsigned at = start + (transposed ? row / 64 * leading + row % 64 * 2 + k / 8 * stride + k % 8 * 128
                                    : row / 8 * stride + row % 8 * 128 + k * 2);
  at ^= (at >> 7 & 7) << 4;
  if (at < SHARED_BASE || at + 2 > SHARED_BASE + launch.shared) fail(0, "wgmma reads outside of the shared memory");
  return at - SHARED_BASE;
}

// What the lanes of a warp get of product number `index` that each has under way, into sums[lane].
void multiply_warp(Thread* const lanes[LANES], unsigned index, const unsigned char* memory, double sums[LANES][MOST]) {
  static double a[16][16], b[16][256], sum[16][256];
  const Warpgroup::Product& one = lanes[0]->products->products[index];
  const unsigned first = lanes[0]->id / LANES % 4 * 16;
  for (unsigned k = 0; k < 16; k++) {
    for (unsigned row = 0; row < 16 && !one.registers; row++)
      a[row][k] = element(memory + place(one.a, one.ta, first + row, k), one.bfloat);
    for (int column = 0; column < one.columns; column++) b[k][column] = element(memory + place(one.b, one.tb, column, k), one.bfloat);
  }
  for (unsigned lane = 0; lane < LANES && one.registers; lane++)
    for (unsigned i = 0; i < 8; i++) {
      const unsigned short* halves = (const unsigned short*)lanes[lane]->products->products[index].fragment;
      a[lane / 4 + i / 2 % 2 * 8][lane % 4 * 2 + i % 2 + i / 4 * 8] = element((const unsigned char*)(halves + i), one.bfloat);
    }
  for (unsigned row = 0; row < 16; row++) {
    for (int column = 0; column < one.columns; column++) sum[row][column] = 0;
    for (unsigned k = 0; k < 16; k++)
      for (int column = 0; column < one.columns; column++) sum[row][column] += a[row][k] * b[k][column];
  }
  for (unsigned lane = 0; lane < LANES; lane++)
    for (int e = 0; e < one.columns / 2; e++) sums[lane][e] = sum[lane / 4 + e / 2 % 2 * 8][e / 4 * 8 + lane % 4 * 2 + e % 2];
}

void issue(void* const threads[LANES]) {
  static double sums[LANES][MOST];
  Thread* const* lanes = (Thread* const*)threads;
  const unsigned index = lanes[0]->products->count - 1;
  const Warpgroup::Product& one = lanes[0]->products->products[index];
  for (unsigned i = 1; i < LANES; i++) {
    const Warpgroup::Product& p = lanes[i]->products->products[lanes[i]->products->count - 1];
    if (p.a != one.a || p.b != one.b || p.columns != one.columns || lanes[i]->products->count != index + 1)
      fail(lanes[i]->line, "lanes of a warp begin different products");
  }
  multiply_warp(lanes, index, lanes[0]->block->view, sums);
  for (unsigned i = 0; i < LANES; i++) memcpy(lanes[i]->products->products[index].sums, sums[i], sizeof sums[i]);
}

struct Wait { Thread* thread; unsigned groups; };

void complete(void* const waits[LANES]) {
  static double sums[LANES][MOST];
  Thread* lanes[LANES];
  for (unsigned i = 0; i < LANES; i++) lanes[i] = ((Wait*)waits[i])->thread;
  const Warpgroup& one = *lanes[0]->products;
  unsigned done = 0;
  while (done < one.count && one.products[done].group + ((Wait*)waits[0])->groups < one.group) done++;
  for (unsigned index = 0; index < done; index++) {
    multiply_warp(lanes, index, lanes[0]->block->shared, sums);
    for (unsigned i = 0; i < LANES; i++) {
      Warpgroup::Product& p = lanes[i]->products->products[index];
      if (memcmp(p.sums, sums[i], p.columns / 2 * sizeof(double)))
        fail(lanes[i]->line, "what wgmma reads is stored before it is done, or without a fence and a barrier before it");
      for (unsigned e = 0; e < p.into->count; e++) p.into->values[e] = (float)(p.into->values[e] + sums[i][e]);
      if (--p.into->users) continue;
      memcpy(p.into->d, p.into->values, p.into->count * sizeof(float));
      free(p.into);
    }
  }
  for (unsigned i = 0; i < LANES; i++) {
    Warpgroup& w = *lanes[i]->products;
    memmove(w.products, w.products + done, (w.count - done) * sizeof *w.products);
    w.count -= done;
  }
}

Accumulator* accumulator(Warpgroup& w, float* d, unsigned count, int line) {
  for (unsigned i = 0; i < w.count; i++) {
    Accumulator* a = w.products[i].into;
    if (a->d == d && a->count == count) return a->users++, a;
    if (d < a->d + a->count && a->d < d + count) fail(line, "products of different shapes add to the same registers");
  }
  if (!w.fenced) fail(line, "wgmma takes registers without xlc_wgmma_fence before it");
  Accumulator* a = (Accumulator*)calloc(1, sizeof(Accumulator));
  a->d = d;
  a->count = count;
  a->users = 1;
  memcpy(a->values, d, count * sizeof(float));
  memset(d, 0xff, count * sizeof(float));
  return a;
}

void check_operand(unsigned long long operand, int line) {
  if (operand >> 62 != 1 || operand >> 49 & 7) fail(line, "the shim knows operands with 128-byte swizzling and without a base offset only");
}

// The barrier that the threads of a block have come to.
void publish(Block& b) {
  bool all = true;
  for (Thread& t : b.threads) all = all && t.proxy_fence, t.proxy_fence = false;
  if (all) memcpy(b.view, b.shared, launch.shared);
}

bool products_under_way(const Thread& t) { return t.products && t.products->count; }

void forget_products(Thread& t) {
  if (t.products) t.products->count = t.products->group = 0, t.products->fenced = false;
  t.proxy_fence = false;
}

}  // namespace

extern "C" {
unsigned xlc_shared_address(const void* p) { return (const unsigned char*)p - xlc_shared + SHARED_BASE; }

void xlc_fence_proxy_async() { launch.current->proxy_fence = true; }

void xlc_wgmma_fence(int line) {
  meet(~0u, nullptr, nothing, line);
  state(*launch.current).fenced = true;
}

void xlc_wgmma_commit(int line) {
  meet(~0u, nullptr, nothing, line);
  state(*launch.current).group++;
}

void xlc_shim_products(unsigned groups, int line) {
  Thread& t = *launch.current;
  state(t).fenced = false;
  Wait mine = {&t, groups};
  meet(~0u, &mine, complete, line);
}

void xlc_shim_wgmma(float* d, int columns, bool bfloat, const unsigned* a, unsigned long long a_operand, int ta, unsigned long long b, int tb,
                    int line) {
  Thread& t = *launch.current;
  Warpgroup& w = state(t);
  if (!a) check_operand(a_operand, line);
  check_operand(b, line);
  if (a && !w.fenced) fail(line, "wgmma takes registers without xlc_wgmma_fence before it");
  if (w.count == w.capacity) {
    w.capacity = w.capacity ? 2 * w.capacity : 8;
    w.products = (Warpgroup::Product*)realloc(w.products, w.capacity * sizeof *w.products);
  }
  Accumulator* into = accumulator(w, d, columns / 2, line);
  Warpgroup::Product& p = w.products[w.count++];
  p = {into, columns, ta, tb, bfloat, a != nullptr, {}, w.group, a_operand, b, {}};
  if (a) memcpy(p.fragment, a, sizeof p.fragment);
  meet(~0u, &t, issue, line);
}
}
