// Runs CUDA threads on one CPU thread. Every CUDA thread is a fiber, which runs until it waits for others (a barrier, a warp's exchange) or
// returns; in which order ready ones run is the caller's choice, since results must not depend on it. What is never stored is nan (all bits
// set): shared memory when a block starts, and the destination of an asynchronous copy from its issue to its wait. What a chip leaves
// undefined or hangs on (a barrier that some thread does not reach, a lane that does not come to a shuffle, a store past the end of shared
// memory, an address that is none) ends the launch with a message.
//
// xlc_shim_launch(entry, table, grid, shared, cooperative, order, seed, message, size) -> 0, or 1 with the message.
#include "shim.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace {

constexpr unsigned THREADS = 256, LANES = 32, WARPS = THREADS / LANES;
constexpr size_t STACK = 64 << 10, GUARD = 4 << 10, SLACK = 1 << 10;

// ---- switching between stacks

#if defined(__x86_64__) && !defined(XLC_SHIM_PORTABLE)
struct Context { void* sp; };
extern "C" void xlc_shim_switch(Context* from, const Context* to);
asm(R"(
.text
.globl xlc_shim_switch
.hidden xlc_shim_switch
.type xlc_shim_switch, @function
xlc_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmpq *%rcx
.size xlc_shim_switch, .-xlc_shim_switch
)");

void prepare(Context& c, char* stack, size_t size, void (*start)()) {
  void** top = (void**)(stack + size);
  top[-1] = nullptr;  // where a function that was called would have its return address: keeps the stack aligned as calls do
  top[-2] = (void*)start;
  c.sp = top - 8;
}
#else
typedef ucontext_t Context;
void xlc_shim_switch(Context* from, const Context* to) { swapcontext(from, to); }

void prepare(Context& c, char* stack, size_t size, void (*start)()) {
  getcontext(&c);
  c.uc_stack.ss_sp = stack;
  c.uc_stack.ss_size = size;
  makecontext(&c, start, 0);
}
#endif

// ---- threads and blocks

struct Block;
struct Warpgroup;  // products of four warps, see wgmma.cpp
typedef void (*Exchange)(void* const operands[LANES]);
struct Copy { void* shared; const void* global; unsigned bytes, group; };
enum State { READY, AT_BLOCK, AT_WARP, AT_GRID, RETURNED };
const char* const STATES[] = {"run", "wait at __syncthreads", "wait for lanes of their warp", "wait at xlc_grid_sync", "have returned"};

struct Thread {
  Context context;
  char* stack;
  Block* block;
  unsigned id;
  State state;
  int line;  // of the text, where it waits
  unsigned mask;  // the lanes that it waits for, what they do together, and what it brings
  Exchange exchange;
  void* operand;
  Copy* copies;  // asynchronous ones that were not waited for: first .. last, oldest first; `group` is the one that is open
  unsigned first, last, capacity, group;
  Warpgroup* products;
  bool proxy_fence;  // since the last barrier
};

struct Block {
  Thread threads[THREADS];
  unsigned index, at_block, at_warp[WARPS];
  unsigned char *shared, *memory, *view;  // view: shared memory as the asynchronous proxy sees it
  size_t capacity;
};

enum Order { ASCENDING, DESCENDING, RANDOM };

struct Launch {
  void (*entry)(const void*);
  const void* table;
  unsigned grid, at_grid;
  size_t shared;
  unsigned* counter;
  Order order;
  unsigned long long random;
  Block** resident;
  unsigned residents;
  Context scheduler;
  Thread* current;  // null while the scheduler runs
  pthread_t runs_on;
  bool failed;
  char* message;
  size_t message_size;
} launch;

void publish(Block&);
void forget_products(Thread&);
bool products_under_way(const Thread&);

Block** blocks;  // kept from launch to launch
unsigned blocks_made;

void leave() {
  Thread* t = launch.current;
  launch.current = nullptr;
  xlc_shim_switch(&t->context, &launch.scheduler);
}

// Ends the launch. Called on a thread, it does not return.
void fail(int line, const char* format, ...) {
  char what[400], where[80] = "";
  va_list args;
  va_start(args, format);
  vsnprintf(what, sizeof what, format, args);
  va_end(args);
  const Thread* t = launch.current;
  if (t && line) snprintf(where, sizeof where, "block %u, thread %u, line %d: ", t->block->index, t->id, line);
  else if (t) snprintf(where, sizeof where, "block %u, thread %u: ", t->block->index, t->id);
  if (!launch.failed) snprintf(launch.message, launch.message_size, "%s%s", where, what);
  launch.failed = true;
  if (t) leave();
}

void run_entry() {
  launch.entry(launch.table);
  if (products_under_way(*launch.current)) fail(0, "returns before its products are waited for");
  launch.current->state = RETURNED;
  leave();
}

void make_block() {
  const size_t step = STACK + GUARD;
  char* stacks = (char*)mmap(nullptr, step * THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) return fail(0, "there is no memory for the threads of %u blocks at once", launch.residents);
  blocks = (Block**)realloc(blocks, (blocks_made + 1) * sizeof(Block*));
  Block* b = blocks[blocks_made++] = (Block*)calloc(1, sizeof(Block));
  for (unsigned i = 0; i < THREADS; i++) {
    mprotect(stacks + i * step, GUARD, PROT_NONE);
    b->threads[i].stack = stacks + i * step + GUARD;
    b->threads[i].block = b;
    b->threads[i].id = i;
  }
}

void begin(Block& b, unsigned index) {
  const size_t bytes = launch.shared + SLACK;
  if (b.capacity < bytes) {
    free(b.memory);
    free(b.view);
    b.memory = (unsigned char*)aligned_alloc(2048, (bytes + 4095) & ~2047ul);
    b.shared = b.memory + 1024;  // aligned to 1024 and to no more
    b.view = (unsigned char*)malloc(bytes);
    b.capacity = bytes;
  }
  memset(b.shared, 0xff, bytes);
  memset(b.view, 0xff, bytes);
  b.index = index;
  b.at_block = 0;
  memset(b.at_warp, 0, sizeof b.at_warp);
  for (Thread& t : b.threads) {
    t.state = READY;
    t.first = t.last = t.group = 0;
    forget_products(t);
    prepare(t.context, t.stack, STACK - t.id % 32 * 128, run_entry);  // tops that do not share the few lines of one set of the cache
  }
}

void finish(const Block& b) {
  for (size_t i = launch.shared; i < launch.shared + SLACK; i++)
    if (b.shared[i] != 0xff) return fail(0, "block %u: a store to shared memory at %zu, past the end at %zu", b.index, i, launch.shared);
}

// ---- scheduling

unsigned random_below(unsigned n) {
  unsigned long long& x = launch.random;
  x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  return (x >> 32) * n >> 32;
}

void make_order(unsigned* order, unsigned n) {
  for (unsigned i = 0; i < n; i++) order[i] = launch.order == DESCENDING ? n - 1 - i : i;
  if (launch.order != RANDOM) return;
  for (unsigned i = n; i > 1; i--) {
    const unsigned j = random_below(i), t = order[i - 1];
    order[i - 1] = order[j];
    order[j] = t;
  }
}

void resume(Thread& t) {
  launch.current = &t;
  threadIdx.x = t.id;
  blockIdx.x = t.block->index;
  xlc_shared = t.block->shared;
  xlc_shim_switch(&launch.scheduler, &t.context);
}

// Every ready lane runs until it waits. False if none was ready.
bool run_lanes(Thread* lanes) {
  bool ran = false;
  unsigned order[LANES];
  make_order(order, LANES);
  for (unsigned i = 0; i < LANES && !launch.failed; i++)
    if (lanes[order[i]].state == READY) ran = true, resume(lanes[order[i]]);
  return ran;
}

// Warp after warp, each as far as it comes (at random also less far), until all threads wait for other blocks or have returned.
bool run_block(Block& b) {
  bool ran = false;
  for (bool again = true; again && !launch.failed;) {
    again = false;
    unsigned order[WARPS];
    make_order(order, WARPS);
    for (unsigned w : order)
      while (run_lanes(b.threads + w * LANES)) {
        ran = again = true;
        if (launch.order == RANDOM && random_below(2)) break;
      }
  }
  return ran;
}

// What the threads of a block that does not go on are doing.
void fail_stuck(const Block& b) {
  char text[400];
  int used = 0;
  for (unsigned i = 0; i < THREADS && used < 300; i++) {
    const Thread& t = b.threads[i];
    unsigned same = 0;
    bool seen = false;
    for (const Thread& u : b.threads)
      if (u.state == t.state && (t.state == RETURNED || u.line == t.line) && (t.state != AT_WARP || u.mask == t.mask))
        u.id < i ? seen = true : same++;
    if (seen) continue;
    used += snprintf(text + used, sizeof text - used, "%s%u threads (thread %u first) %s", used ? "; " : "", same, i, STATES[t.state]);
    if (t.state != RETURNED) used += snprintf(text + used, sizeof text - used, " (line %d)", t.line);
    if (t.state == AT_WARP) used += snprintf(text + used, sizeof text - used, " with mask 0x%08x", t.mask);
  }
  const bool alone = b.threads[0].state == AT_GRID && launch.residents < launch.grid;
  fail(0, "block %u does not go on: %s%s", b.index, text, alone ? "; the launch is not cooperative" : "");
}

void run_residents() {
  unsigned* order = (unsigned*)malloc(launch.residents * sizeof(unsigned));
  for (bool ran = true; ran && !launch.failed;) {
    ran = false;
    make_order(order, launch.residents);
    for (unsigned i = 0; i < launch.residents; i++) ran |= run_block(*launch.resident[order[i]]);
  }
  free(order);
  for (unsigned i = 0; i < launch.residents && !launch.failed; i++) {
    const Block& b = *launch.resident[i];
    for (const Thread& t : b.threads)
      if (t.state != RETURNED) return fail_stuck(b);
    finish(b);
  }
}

void run_grid(bool cooperative) {
  launch.residents = cooperative ? launch.grid : 1;
  while (blocks_made < launch.residents && !launch.failed) make_block();
  launch.resident = blocks;
  if (launch.failed) return;
  if (cooperative) {
    for (unsigned i = 0; i < launch.grid; i++) begin(*blocks[i], i);
    return run_residents();
  }
  unsigned* order = (unsigned*)malloc(launch.grid * sizeof(unsigned));
  make_order(order, launch.grid);
  for (unsigned i = 0; i < launch.grid && !launch.failed; i++) {
    begin(*blocks[0], order[i]);
    run_residents();
  }
  free(order);
}

// A fault of a thread is an error of the launch: the thread is left where it is.
void on_fault(int signal, siginfo_t* info, void*) {
  if (!launch.current || !pthread_equal(launch.runs_on, pthread_self())) {
    ::signal(signal, SIG_DFL);
    return;
  }
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
  const char* stack = launch.current->stack;
  if (signal == SIGFPE) fail(0, "an integer is divided by zero");
  if ((char*)info->si_addr >= stack - GUARD && (char*)info->si_addr < stack) fail(0, "the stack overflows");
  fail(0, "an access to address %p, where no memory is, or that is not aligned", info->si_addr);
}

// ---- waiting

void wait_for_all(State state, unsigned& came, unsigned expected, Block** among, unsigned count, int line) {
  Thread& me = *launch.current;
  me.state = state;
  me.line = line;
  if (++came < expected) return leave();
  came = 0;
  for (unsigned i = 0; i < count; i++) {
    publish(*among[i]);
    for (Thread& t : among[i]->threads) {
      if (t.line != line) fail(line, "thread %u of block %u waits at line %d meanwhile: they are to wait at one line", t.id, among[i]->index, t.line);
      t.state = READY;
    }
  }
}

// Waits for the lanes of the mask; then `exchange` runs once, with what each brought, and all go on.
void meet(unsigned mask, void* operand, Exchange exchange, int line) {
  Thread& me = *launch.current;
  Thread* lanes = me.block->threads + me.id / LANES * LANES;
  unsigned& waiting = me.block->at_warp[me.id / LANES];
  if (!(mask >> me.id % LANES & 1)) fail(line, "the mask 0x%08x does not name the lane itself", mask);
  me.state = AT_WARP;
  me.line = line;
  me.mask = mask;
  me.exchange = exchange;
  me.operand = operand;
  if (++waiting < (unsigned)__builtin_popcount(mask)) return leave();
  void* operands[LANES] = {};
  for (unsigned i = 0; i < LANES; i++) {
    const Thread& t = lanes[i];
    if (!(mask >> i & 1)) continue;
    if (t.state != AT_WARP || t.line != line || t.mask != mask || t.exchange != exchange) return leave();
    operands[i] = t.operand;
  }
  exchange(operands);
  for (unsigned i = 0; i < LANES; i++)
    if (mask >> i & 1) lanes[i].state = READY, waiting--;
}

struct Shuffled { unsigned long long value, taken; unsigned source; int line; };

void shuffle(void* const operands[LANES]) {
  for (unsigned i = 0; i < LANES; i++) {
    Shuffled* to = (Shuffled*)operands[i];
    if (!to) continue;
    const Shuffled* from = (const Shuffled*)operands[to->source];
    if (!from) fail(to->line, "lane %u takes the value of lane %u, which the mask does not name", i, to->source);
    to->taken = from->value;
  }
}

struct Vote { bool value; unsigned all; };

void vote(void* const operands[LANES]) {
  unsigned all = 0;
  for (unsigned i = 0; i < LANES; i++)
    if (operands[i] && ((Vote*)operands[i])->value) all |= 1u << i;
  for (unsigned i = 0; i < LANES; i++)
    if (operands[i]) ((Vote*)operands[i])->all = all;
}

void nothing(void* const*) {}

struct Rows { unsigned* r; const char* row; };

template <int N, bool TRANSPOSED> void load_matrices(void* const operands[LANES]) {
  for (unsigned i = 0; i < LANES; i++)
    for (int m = 0; m < N; m++) {
      const unsigned first = TRANSPOSED ? 2 * (i % 4) : i / 4, column = TRANSPOSED ? i / 4 : 2 * (i % 4);
      unsigned short e[2];
      memcpy(&e[0], ((Rows*)operands[8 * m + first])->row + 2 * column, 2);
      memcpy(&e[1], ((Rows*)operands[8 * m + first + TRANSPOSED])->row + 2 * (column + !TRANSPOSED), 2);
      ((Rows*)operands[i])->r[m] = e[0] | (unsigned)e[1] << 16;
    }
}

bool in_shared(const void* p, size_t bytes) {
  return (unsigned char*)p >= xlc_shared && (unsigned char*)p + bytes <= xlc_shared + launch.shared;
}

template <int N, bool TRANSPOSED> void ldmatrix(unsigned* r, const void* row, int line) {
  if (launch.current->id % LANES < 8 * N) {
    if (!in_shared(row, 16)) fail(line, "ldmatrix reads outside of the shared memory");
    if ((size_t)row % 16) fail(line, "a row of ldmatrix is not aligned to 16 bytes");
  }
  Rows mine = {r, (const char*)row};
  meet(~0u, &mine, load_matrices<N, TRANSPOSED>, line);
}

}  // namespace

extern "C" {
xlc_shim_index threadIdx, blockIdx, gridDim;
unsigned char* xlc_shared;

void __syncthreads(int line) {
  wait_for_all(AT_BLOCK, launch.current->block->at_block, THREADS, &launch.current->block, 1, line);
}

void xlc_grid_sync(unsigned* counter, int line) {
  if (!launch.at_grid) launch.counter = counter;
  if (counter != launch.counter) fail(line, "xlc_grid_sync with another counter than other threads");
  if (*counter & 0x7fffffff) fail(line, "the counter of xlc_grid_sync is not zero before the launch");
  wait_for_all(AT_GRID, launch.at_grid, THREADS * launch.grid, launch.resident, launch.residents, line);
  if (threadIdx.x == 0 && blockIdx.x == 0) *counter ^= 0x80000000;
}

void __syncwarp(int line) { meet(~0u, nullptr, nothing, line); }

unsigned long long xlc_shim_shuffle(unsigned mask, unsigned long long value, unsigned source, int line) {
  Shuffled mine = {value, 0, source, line};
  meet(mask, &mine, shuffle, line);
  return mine.taken;
}

unsigned __ballot_sync(unsigned mask, bool value, int line) {
  Vote mine = {value, 0};
  meet(mask, &mine, vote, line);
  return mine.all;
}

void xlc_ldmatrix_x2(unsigned* r, const void* row, int line) { ldmatrix<2, false>(r, row, line); }
void xlc_ldmatrix_x4(unsigned* r, const void* row, int line) { ldmatrix<4, false>(r, row, line); }
void xlc_ldmatrix_x2_trans(unsigned* r, const void* row, int line) { ldmatrix<2, true>(r, row, line); }
void xlc_ldmatrix_x4_trans(unsigned* r, const void* row, int line) { ldmatrix<4, true>(r, row, line); }

void xlc_shim_meet_warp(void* operand, Exchange exchange, int line) { meet(~0u, operand, exchange, line); }

void xlc_shim_copy(void* shared, const void* global, unsigned bytes, bool valid) {
  Thread& t = *launch.current;
  if (!in_shared(shared, bytes)) fail(0, "xlc_cp_async%u writes outside of the shared memory", bytes);
  if ((size_t)shared % bytes || (valid && (size_t)global % bytes)) fail(0, "an address of xlc_cp_async%u is not aligned", bytes);
  if (t.last == t.capacity) {
    t.capacity = t.capacity ? 2 * t.capacity : 32;
    t.copies = (Copy*)realloc(t.copies, t.capacity * sizeof(Copy));
  }
  t.copies[t.last++] = {shared, valid ? global : nullptr, bytes, t.group};
  memset(shared, 0xff, bytes);
}

void xlc_cp_commit() { launch.current->group++; }

void xlc_shim_wait(unsigned groups) {
  Thread& t = *launch.current;
  for (; t.first < t.last && t.copies[t.first].group + groups < t.group; t.first++) {
    const Copy& c = t.copies[t.first];
    if (c.global) memcpy(c.shared, c.global, c.bytes);
    else memset(c.shared, 0, c.bytes);
  }
  if (t.first == t.last) t.first = t.last = 0;
}

int xlc_shim_launch(void (*entry)(const void*), const void* table, unsigned grid, size_t shared, int cooperative, int order,
                    unsigned long long seed, char* message, size_t message_size) {
  launch = {};
  launch.entry = entry;
  launch.table = table;
  launch.grid = gridDim.x = grid;
  launch.shared = shared;
  launch.order = (Order)order;
  launch.random = seed * 0x9e3779b97f4a7c15 + 0x853c49e6748fea9b;
  launch.runs_on = pthread_self();
  launch.message = message;
  launch.message_size = message_size;

  static char signal_stack[32 << 10];
  const int signals[] = {SIGSEGV, SIGBUS, SIGFPE};
  stack_t mine = {}, before;
  mine.ss_sp = signal_stack;
  mine.ss_size = sizeof signal_stack;
  sigaltstack(&mine, &before);
  struct sigaction action = {}, kept[3];
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int i = 0; i < 3; i++) sigaction(signals[i], &action, &kept[i]);
  run_grid(cooperative != 0);
  for (int i = 0; i < 3; i++) sigaction(signals[i], &kept[i], nullptr);
  sigaltstack(&before, nullptr);
  return launch.failed;
}
}
