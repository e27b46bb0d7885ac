// Runs the threads of a grid as fibers and judges their accesses. See cuda_on_cpu.hpp.
//
// Found are: accesses out of bounds or misaligned, values that nobody wrote (shared memory is NaN
// besides), two threads at one place without a barrier between them, threads that never meet,
// integer divisions by zero. The first finding ends the launch.
#include "cuda_on_cpu.hpp"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace simt {
namespace {

constexpr unsigned WARP = 32, MAX_THREADS = 1024;  // of the blocks of a cluster together
constexpr size_t STACK = 256 << 10;
constexpr size_t MAX_SHARED = 227 << 10;  // bytes of one block
enum class State { ready, barrier, cluster, warp, mbarrier, done };
const char* const STATES[] = {"runs",     "is at line",    "waits for its cluster, arrival",
                              "has mask", "awaits parity", "has ended"};

struct Fiber {
    ucontext_t start;
    jmp_buf at;
    bool begun = false;  // whether `at` is where it goes on
    State state = State::ready;
    unsigned detail = 0;  // of the state: line, mask or parity
    unsigned number = 0, rank = 0, mbarrier = 0;  // in its block, of its block in the cluster
    unsigned arrivals = 0;                         // at the barrier of the cluster
    uint64_t bits = 0;  // what it brought to a meeting in its warp, then what it got
    unsigned from = 0;
};

Fiber fibers[MAX_THREADS];
alignas(64) char stacks[MAX_THREADS][STACK];
Fiber* self = nullptr;  // the thread that runs; null on the host
jmp_buf scheduler;
std::vector<Fiber*> ready;
Launch grid;
unsigned first_block;  // of the cluster
void (*grid_call)(const void*);
const void* grid_body;
cudaError_t last_error = cudaSuccess;
std::string finding;
std::mt19937_64 random_bits;

// Logical time counts blocks and barriers; when the block and the launch began.
uint32_t now = 0, block_began = 0, launch_began = 0;

// The launch is over: what all fibers were doing is forgotten.
[[noreturn]] void abandon() {
    for (Fiber& f : fibers) f.begun = false;
    _longjmp(scheduler, 2);
}

[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char* format, ...) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const unsigned block = first_block + (self ? self->rank : 0);
    finding = std::string(grid.name) + ", block " + std::to_string(block);
    if (self) finding += ", thread " + std::to_string(self->number);
    finding += std::string(": ") + text;
    abandon();
}

void leave(State state, unsigned detail = 0) {
    self->state = state;
    self->detail = detail;
    if (!_setjmp(self->at)) _longjmp(scheduler, 1);
}

void thread_main() {
    for (;;) {  // one turn per block that this fiber serves
        grid_call(grid_body);
        leave(State::done);
    }
}

// Lets a thread run until it leaves; false when the launch was abandoned.
bool go_on(Fiber& f) {
    self = &f;
    const int back = _setjmp(scheduler);
    if (!back) {
        if (std::exchange(self->begun, true)) _longjmp(self->at, 1);
        setcontext(&self->start);
    }
    self = nullptr;
    return back == 1;
}

void make_ready(Fiber& f) {
    f.state = State::ready;
    ready.push_back(&f);
}

unsigned place(const Fiber& f) { return &f - fibers; }

Fiber* end() { return fibers + grid.threads * grid.cluster; }

void prepare(Fiber& f) {
    make_ready(f);
    f.number = place(f) % grid.threads, f.rank = place(f) / grid.threads, f.arrivals = 0;
    if (f.begun) return;
    getcontext(&f.start);
    f.start.uc_stack.ss_sp = stacks[place(f)];
    f.start.uc_stack.ss_size = STACK;
    makecontext(&f.start, thread_main, 0);
}

struct Stamp { uint32_t time = 0; uint16_t thread = 0; };  // time 0: never
struct Cell {
    Stamp written, read;
    bool many = false;  // whether other threads read it at the same time as `read`
    bool in_flight = false, landed = false;  // of a bulk copy: what it brought is everybody's
};

// A buffer or a shared array; a cell per element.
struct Region {
    std::string name;
    char* begin;
    size_t bytes, element;
    bool shared, filled;
    const void* tag;
    unsigned rank;
    std::vector<Cell> cells = std::vector<Cell>((bytes + element - 1) / element);
    bool contains(const char* p) const { return p >= begin && p < begin + bytes; }
};

std::vector<std::unique_ptr<Region>> regions;
Region* recent = nullptr;
constexpr size_t ARENA = 4 << 20, GAP = 1024;  // shared memory, with room between its arrays
alignas(4096) char arena[ARENA];
size_t arena_end = GAP;

Region* find_region(const char* p) {
    if (recent && recent->contains(p)) return recent;
    for (auto& r : regions)
        if (r->contains(p)) return recent = r.get();
    return nullptr;
}

void forget(bool only_shared) {
    auto gone = [=](auto& r) { return r->shared || !only_shared; };
    regions.erase(std::remove_if(regions.begin(), regions.end(), gone), regions.end());
    recent = nullptr;
    arena_end = GAP;
}

// Whether the access `then` may happen at the same time as what this thread does now.
bool concurrent(const Stamp& then, bool shared) {
    if (then.time < launch_began || !then.time) return false;
    if (then.time < block_began) return !shared;  // another block of this launch
    return then.time == now && then.thread != place(*self);
}

void touch(Region& r, size_t i, bool writes) {
    Cell& cell = r.cells[i];
    const char *does = writes ? "writes" : "reads", *name = r.name.c_str();
    const bool known = r.filled || cell.written.time > (r.shared ? block_began - 1 : 0);
    if (cell.in_flight && (!r.shared || known))
        fail("race: %s %s[%zu], which a bulk copy is writing", does, name, i);
    if (!writes && !known) fail("reads %s[%zu], which nobody wrote", name, i);
    if (!cell.landed && concurrent(cell.written, r.shared))
        fail("race: %s %s[%zu] that thread %u wrote, no barrier between", does, name, i,
             cell.written.thread);
    const bool others = cell.many && cell.read.time == now;
    if (writes && (others || concurrent(cell.read, r.shared)))
        fail("race: writes %s[%zu] that thread %u read, no barrier between", name, i,
             cell.read.thread);
    const Stamp here{now, (uint16_t)place(*self)};
    if (writes) cell.landed = false;
    else cell.many = others || (cell.read.time == now && cell.read.thread != here.thread);
    (writes ? cell.written : cell.read) = here;
}

void outside(const char* p, size_t bytes, bool writes) {
    auto distance = [=](auto& r) { return p < r->begin ? r->begin - p : p - r->begin - r->bytes; };
    auto nearer = [=](auto& a, auto& b) { return distance(a) < distance(b); };
    const Region& r = **std::min_element(regions.begin(), regions.end(), nearer);
    const ptrdiff_t size = r.element, at = (p - r.begin) / size;
    fail("%s %zu bytes out of bounds at %s[%td] of %td elements", writes ? "writes" : "reads",
         bytes, r.name.c_str(), at, r.bytes / size);
}

// Judges an access of the thread that runs; `visit(cell)` follows.
template <class Visit> void access(const void* at, size_t bytes, bool writes, Visit visit) {
    const char* p = static_cast<const char*>(at);
    if (!self || !bytes || (p >= stacks[place(*self)] && p < stacks[place(*self) + 1])) return;
    Region* r = find_region(p);
    if (!r) outside(p, bytes, writes);
    const size_t first = p - r->begin, last = first + bytes - 1;
    if (last >= r->bytes) outside(r->begin + r->bytes, bytes, writes);
    for (size_t i = first / r->element; i <= last / r->element; i++) {
        touch(*r, i, writes);
        visit(r->cells[i]);
    }
}
void check(const void* at, size_t bytes, bool writes) { access(at, bytes, writes, [](Cell&) {}); }

// A copy lands as late as it may: only when no thread can go on without it. So a thread that does
// not wait for it reads what is in flight. Fences of proxies are not modelled.
struct Barrier { unsigned arrivals, missing; long long bytes; unsigned phase; };
std::map<unsigned, Barrier> barriers;  // by address in shared memory
struct Copy { unsigned target, bytes, barrier; const char* source; std::vector<Cell*> cells; };
std::vector<Copy> in_flight;

Barrier& barrier_at(unsigned address) {
    const auto found = barriers.find(address);
    if (found == barriers.end()) fail("an mbarrier that was not initialised");
    if (self) check(arena + address, 8, false);
    return found->second;
}

bool passed(const Barrier& b, unsigned parity) { return (b.phase & 1) != parity; }

// Goes to the next phase when this one is complete, and wakes who waited for it.
void advance(unsigned address, Barrier& b) {
    if (b.missing || b.bytes) return;
    b.phase++;
    b.missing = b.arrivals;
    for (Fiber* f = fibers; f < end(); f++) {
        const bool waits = f->state == State::mbarrier && f->mbarrier == address;
        if (waits && passed(b, f->detail)) make_ready(*f);
    }
}

bool finish_copy() {
    if (in_flight.empty()) return false;
    const Copy c = in_flight.front();
    in_flight.erase(in_flight.begin());
    memcpy(arena + c.target, c.source, c.bytes);
    for (Cell* cell : c.cells) cell->in_flight = false, cell->landed = true;
    Barrier& b = barriers[c.barrier];
    b.bytes -= c.bytes;
    advance(c.barrier, b);
    return true;
}

// Copies by single threads, in groups in the order of their commits; the last one is open. They land
// when their thread waits for them: a thread that does not reads what nobody wrote.
struct ThreadCopy { unsigned target; const char* source; unsigned bytes; };
std::vector<std::vector<ThreadCopy>> thread_copies[MAX_THREADS];

bool together(const Fiber& a, const Fiber& b) {
    const bool at_barrier = a.state == State::barrier || a.state == State::cluster;
    return a.state == b.state && (!at_barrier || a.detail == b.detail);
}

// Lets the threads of a range go on that all wait at one barrier.
bool release_together(Fiber* first, Fiber* last, State state) {
    auto waits = [=](const Fiber& f) { return f.state == state && together(f, *first); };
    if (!std::all_of(first, last, waits)) return false;
    now++;
    std::for_each(first, last, make_ready);
    return true;
}

// No thread can go on. Lets them, if a block or the cluster waits at one barrier or a copy can end;
// false when all have ended; a finding when they will never meet.
bool release() {
    if (release_together(fibers, end(), State::cluster)) return true;
    for (Fiber* first = fibers; first < end(); first += grid.threads)
        if (release_together(first, first + grid.threads, State::barrier)) return true;
    Fiber* odd = std::find_if(fibers, end(), [](const Fiber& f) { return !together(f, *fibers); });
    if (odd == end() && fibers->state == State::done) {
        if (!in_flight.empty()) fail("the block ends before a bulk copy");
        return false;
    }
    if (finish_copy()) return true;
    if (odd == end()) odd = fibers;
    fail("divergence: thread 0 %s %u, thread %u %s %u", STATES[(int)fibers->state],
         fibers->detail, odd->number, STATES[(int)odd->state], odd->detail);
}

// False when the launch was abandoned.
bool run_block() {
    block_began = ++now;
    barriers.clear();
    in_flight.clear();
    for (auto& groups : thread_copies) groups.clear();
    ready.clear();
    memset(arena, 0xff, arena_end);  // NaN
    std::for_each(fibers, end(), prepare);
    for (;;) {
        while (!ready.empty()) {
            std::swap(ready[random_bits() % ready.size()], ready.back());
            Fiber& next = *ready.back();
            ready.pop_back();
            if (!go_on(next)) return false;
        }
        const int back = _setjmp(scheduler);  // where `release` goes when it fails
        if (back || !release()) return !back;
    }
}

}  // namespace

// --------------------------------------------------------------------------- what kernels can call

Index thread_index() { return {self->number}; }
Index block_index() { return {first_block + self->rank}; }

void run_grid(const Launch& l, void (*call)(const void*), const void* body) {
    const bool fits = l.threads - 1 < MAX_THREADS / l.cluster && l.blocks - 1 < INT32_MAX &&
                      l.blocks % l.cluster == 0;
    last_error = fits && l.shared <= MAX_SHARED ? cudaSuccess : cudaErrorInvalidConfiguration;
    if (!finding.empty() || last_error) return;
    grid = l, grid_call = call, grid_body = body;
    launch_began = now + 1;
    std::vector<unsigned> order(l.blocks / l.cluster);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_bits);
    for (size_t k = 0; k < order.size(); k++) {
        first_block = order[k] * l.cluster;
        if (!run_block()) break;
    }
    forget(true);
}

namespace {
Region* shared_region(const void* tag, unsigned rank) {
    for (auto& r : regions)
        if (r->shared && r->tag == tag && r->rank == rank) return r.get();
    return nullptr;
}

char* new_region(const char* name, size_t bytes, size_t element, size_t align, const void* tag,
                 unsigned rank) {
    char* begin = arena + (arena_end + align - 1) / align * align;
    arena_end = begin - arena + bytes + GAP;
    if (arena_end > ARENA) fail("the shared memory of the tests is too small");
    memset(begin, 0xff, bytes);
    regions.emplace_back(new Region{name, begin, bytes, element, true, false, tag, rank});
    return begin;
}
}  // namespace

void* shared_array(const void* tag, const char* name, size_t bytes, size_t element, size_t align) {
    if (Region* known = shared_region(tag, self->rank)) return known->begin;
    return new_region(name, tag ? bytes : grid.shared, element, align, tag, self->rank);
}

void cluster_arrive() { self->arrivals++; }
void cluster_wait() { leave(State::cluster, self->arrivals); }

void* in_block(const void* p, unsigned rank) {
    const char* at = static_cast<const char*>(p);
    const Region* own = find_region(at);
    if (rank >= grid.cluster || !own || !own->shared) fail("%p is in no block %u", p, rank);
    Region* other = shared_region(own->tag, rank);
    const size_t offset = at - own->begin;
    if (other) return other->begin + offset;
    return new_region(own->name.c_str(), own->bytes, own->element, 64, own->tag, rank) + offset;
}

uint64_t meet(unsigned mask, uint64_t bits, unsigned from) {
    Fiber &me = *self, *warp = &me - me.number % WARP;
    const unsigned lane = me.number % WARP, count = std::min(WARP, grid.threads + lane - me.number);
    mask &= ~0u >> (WARP - count);
    if (!(mask >> lane & 1)) fail("the mask %#x of a meeting leaves out its caller", mask);
    me.bits = bits, me.from = from, me.state = State::warp, me.detail = mask;
    unsigned present = 0;
    uint64_t brought[WARP];
    for (unsigned k = 0; k < count; k++) {
        brought[k] = warp[k].bits;
        present |= (unsigned)(warp[k].state == State::warp && warp[k].detail == mask) << k;
    }
    for (unsigned k = 0; k < count && present == mask; k++) {
        if (!(mask >> k & 1)) continue;
        if (!(mask >> warp[k].from & 1))
            fail("lane %u gets a value of lane %u, which takes no part", k, warp[k].from);
        warp[k].bits = brought[warp[k].from];
        make_ready(warp[k]);
    }
    leave(me.state, mask);
    return me.bits;
}

void barrier_init(unsigned barrier, unsigned arrivals) {
    check(arena + barrier, 8, true);
    barriers[barrier] = {arrivals, arrivals, 0, 0};
}

void barrier_arrive(unsigned barrier, unsigned expected_bytes) {
    Barrier& b = barrier_at(barrier);
    if (!b.missing) fail("more arrivals at an mbarrier than it counts");
    b.bytes += expected_bytes;
    b.missing--;
    advance(barrier, b);
}

void barrier_wait(unsigned barrier, unsigned parity) {
    Barrier& b = barrier_at(barrier);
    self->mbarrier = barrier;
    if (!passed(b, parity)) leave(State::mbarrier, parity);
}

void bulk_copy(unsigned target, const void* source, unsigned bytes, unsigned barrier) {
    Copy c{target, bytes, barrier, static_cast<const char*>(source), {}};
    barrier_at(barrier);
    if (((uintptr_t)source | (uintptr_t)(arena + target) | bytes) % 16)
        fail("a bulk copy of %u bytes that is not a multiple of 16 at both ends", bytes);
    check(source, bytes, false);
    access(arena + target, bytes, true, [&](Cell& cell) {
        cell.in_flight = true;
        c.cells.push_back(&cell);
    });
    in_flight.push_back(c);
}

void thread_copy(unsigned target, const void* source, unsigned bytes) {
    if (bytes > 16 || (((uintptr_t)source | target) % 16)) fail("a misaligned copy of 16 bytes");
    check(source, bytes, false);
    auto& groups = thread_copies[place(*self)];
    if (groups.empty()) groups.emplace_back();
    groups.back().push_back({target, static_cast<const char*>(source), bytes});
}

void commit_copies() {
    auto& groups = thread_copies[place(*self)];
    groups.resize(groups.size() + (groups.empty() ? 2 : 1));
}

void wait_copies(unsigned pending) {
    auto& groups = thread_copies[place(*self)];
    while (groups.size() > pending + 1) {  // the open group is not committed
        for (const ThreadCopy& c : groups.front()) {
            check(arena + c.target, 16, true);
            memset(arena + c.target, 0, 16);
            memcpy(arena + c.target, c.source, c.bytes);
        }
        groups.erase(groups.begin());
    }
}

const void* at_address(unsigned address) { return arena + address; }

}  // namespace simt

cudaError_t cudaGetLastError() { return std::exchange(simt::last_error, cudaSuccess); }
void simt_sync_threads(int line) { simt::leave(simt::State::barrier, (unsigned)line); }
void __trap() {
    simt::last_error = cudaErrorLaunchFailure;
    simt::abandon();
}
size_t __cvta_generic_to_shared(const void* p) {
    const char* at = static_cast<const char*>(p);
    if (at < simt::arena || at >= simt::arena + simt::ARENA) simt::fail("%p is not shared", p);
    return at - simt::arena;
}

// ------------------------------------------------- what the tests call, the sanitizers' callbacks

#define ACCESS(SIZE)                                                           \
    void __tsan_read##SIZE(void* p) { simt::check(p, SIZE, false); }           \
    void __tsan_write##SIZE(void* p) { simt::check(p, SIZE, true); }           \
    void __tsan_unaligned_read##SIZE(void* p) { simt::check(p, SIZE, false); } \
    void __tsan_unaligned_write##SIZE(void* p) { simt::check(p, SIZE, true); }

extern "C" {
void simt_seed(uint64_t seed) { simt::random_bits.seed(seed); }
void simt_forget() {
    simt::forget(false);
    simt::finding.clear();
}
const char* simt_finding() { return simt::finding.c_str(); }
// Makes a buffer known, or tells that a known one is filled now.
void simt_buffer(const char* name, char* begin, size_t bytes, size_t element, int filled) {
    for (auto& r : simt::regions)
        if (r->begin == begin && r->bytes == bytes) return void(r->filled |= filled != 0);
    simt::regions.emplace_back(
        new simt::Region{name, begin, bytes, element, false, filled != 0, nullptr, 0});
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
ACCESS(1) ACCESS(2) ACCESS(4) ACCESS(8) ACCESS(16)
void __tsan_read_range(void* p, size_t bytes) { simt::check(p, bytes, false); }
void __tsan_write_range(void* p, size_t bytes) { simt::check(p, bytes, true); }

#define UNDEFINED(NAME, WHAT) \
    void __ubsan_handle_##NAME(void*, void*, void*) { simt::fail(WHAT); }
UNDEFINED(type_mismatch_v1, "misaligned access")
UNDEFINED(out_of_bounds, "index outside of an array")
UNDEFINED(divrem_overflow, "division by zero")
}
