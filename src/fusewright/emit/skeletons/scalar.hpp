// Scalar helpers of emitted C++: 16-bit storage types and the operations C spells otherwise than
// PyTorch means them. The format is that of vecmath.hpp, whose blocks may be needed here.
// All are branch-free or nearly so, because they are called inside loops that should vectorise.

//@function checked
// `x` if it is in [0, extent); otherwise 0, and the failure is reported to the caller.
FW_INLINE int64_t fw_checked(int64_t x, int64_t extent, int& failed) {
    const bool inside = (uint64_t)x < (uint64_t)extent;
    failed |= !inside;
    return inside ? x : 0;
}
//@end

//@function openmp_5
// A directive of OpenMP 5, which compilers from GCC 10 on know; the code is right without it.
#define FW_PRAGMA(text) _Pragma(#text)
#if defined(__clang__) || __GNUC__ >= 10
#define fw_openmp_5(...) FW_PRAGMA(omp __VA_ARGS__)
#else
#define fw_openmp_5(...)
#endif
//@end

//@function huge_pages needs base
#ifdef __linux__
#include <sys/mman.h>
#endif
// Asks for 2 MiB pages in fresh memory that is about to be written: the system then clears and maps
// 512 times fewer pages, which otherwise takes longer than computing what is written to them.
FW_INLINE void fw_huge_pages(void* memory, int64_t bytes) {
#ifdef MADV_HUGEPAGE
    const uintptr_t page = (uintptr_t)1 << 21;
    const uintptr_t begin = ((uintptr_t)memory + page - 1) & ~(page - 1);
    const uintptr_t end = ((uintptr_t)memory + (uintptr_t)bytes) & ~(page - 1);
    if (begin < end) madvise((void*)begin, end - begin, MADV_HUGEPAGE);  // only advice: may fail
#endif
}
//@end

//@function float16
// IEEE binary16 as stored; computed in float. An enum is a type of its own, and fits vectors.
enum class fw_float16 : uint16_t {};
//@end

//@function bfloat16
// The upper half of a float as stored; computed in float.
enum class fw_bfloat16 : uint16_t {};
//@end

//@function to_float needs bits float16 bfloat16
FW_INLINE float fw_to_float(fw_bfloat16 x) { return fw_from_bits((uint32_t)x << 16); }
// Normal numbers: move the fields into place and rescale the exponent by 2^(15-127) with a
// multiply, which leaves infinities and NaN as such; denormals: put the bits under the exponent of
// 0.5 and subtract 0.5.
FW_INLINE float fw_to_float(fw_float16 x) {
    const uint32_t word = (uint32_t)x << 16;
    const uint32_t twice = word + word;
    const float normal = fw_from_bits((twice >> 4) + (0xe0u << 23)) * 0x1.0p-112f;
    const float denormal = fw_from_bits((twice >> 17) | (126u << 23)) - 0.5f;
    const uint32_t magnitude = fw_to_bits(twice < (1u << 27) ? denormal : normal);
    return fw_from_bits((word & 0x80000000u) | magnitude);
}
//@end

//@function to_bfloat16 needs bits bfloat16
// To nearest, ties to even; NaN stays NaN.
FW_INLINE fw_bfloat16 fw_to_bfloat16(float x) {
    const uint32_t u = fw_to_bits(x);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return (fw_bfloat16)((u & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}
//@end

//@function to_float16 needs bits float16
// To nearest, ties to even: adding a power of two whose ulp is the target's makes the float adder
// round; overflow saturates to infinity in the first product, denormals use a floor on the power.
FW_INLINE fw_float16 fw_to_float16(float x) {
    const uint32_t u = fw_to_bits(x);
    const uint32_t twice = u + u;
    const float base = (fw_from_bits(u & 0x7fffffffu) * 0x1.0p+112f) * 0x1.0p-110f;
    uint32_t bias = twice & 0xff000000u;
    bias = bias < 0x71000000u ? 0x71000000u : bias;
    const uint32_t sum = fw_to_bits(fw_from_bits((bias >> 1) + 0x07800000u) + base);
    const uint32_t magnitude = ((sum >> 13) & 0x7c00u) + (sum & 0xfffu);
    const uint32_t sign = (u >> 16) & 0x8000u;
    return (fw_float16)(sign | (twice > 0xff000000u ? 0x7e00u : magnitude));
}
//@end

//@function maximum
// NaN in either operand gives NaN.
// Without a branch: their outcomes cannot be predicted.
template <class T> FW_INLINE T fw_maximum(T a, T b) {
    const T most = a > b ? a : b;
    return a != a ? a : most;
}
//@end

//@function max needs maximum
#pragma omp declare reduction(fw_max : float, double, int8_t, int16_t, int, int64_t, uint8_t : \
    omp_out = fw_maximum(omp_out, omp_in)) initializer(omp_priv = omp_orig)
//@end

//@function minimum
template <class T> FW_INLINE T fw_minimum(T a, T b) {
    const T least = a < b ? a : b;
    return a != a ? a : least;
}
//@end

//@function min needs minimum
#pragma omp declare reduction(fw_min : float, double, int8_t, int16_t, int, int64_t, uint8_t : \
    omp_out = fw_minimum(omp_out, omp_in)) initializer(omp_priv = omp_orig)
//@end

//@function fmax
// NaN in one operand gives the other.
template <class T> FW_INLINE T fw_fmax(T a, T b) { return a > b || b != b ? a : b; }
//@end

//@function fmin
template <class T> FW_INLINE T fw_fmin(T a, T b) { return a < b || b != b ? a : b; }
//@end

//@function add
template <class T> FW_INLINE T fw_add(T a, T b) { return a + b; }
//@end

//@function mul
template <class T> FW_INLINE T fw_mul(T a, T b) { return a * b; }
//@end

//@function isnan
template <class T> FW_INLINE bool fw_isnan(T x) { return x != x; }
//@end

//@function isinf
template <class T> FW_INLINE bool fw_isinf(T x) { return x == (T)FW_INF || x == -(T)FW_INF; }
//@end

//@function sign
// Zero for NaN, as torch.sign.
template <class T> FW_INLINE T fw_sign(T x) { return (T)((T(0) < x) - (x < T(0))); }
//@end

//@function abs_int
template <class T> FW_INLINE T fw_abs_int(T x) { return (T)(x < T(0) ? -x : x); }
//@end

//@function trunc_div
// Toward zero. Division by zero gives zero instead of a trap.
template <class T> FW_INLINE T fw_trunc_div(T a, T b) {
    return b == T(0) ? T(0) : b == (T)-1 && T(-1) < T(0) ? (T)(T(0) - a) : (T)(a / b);
}
//@end

//@function fmod needs trunc_div fmod_float
// The sign of the dividend, as C's.
template <class T> FW_INLINE T fw_fmod(T a, T b) { return (T)(a - fw_trunc_div<T>(a, b) * b); }
FW_INLINE float fw_fmod(float a, float b) { return fw_fmod_float(a, b); }
FW_INLINE double fw_fmod(double a, double b) { return fw_fmod_float(a, b); }
//@end

//@function remainder needs fmod
// The sign of the divisor, as Python's.
template <class T> FW_INLINE T fw_remainder(T a, T b) {
    const T r = fw_fmod(a, b);
    return r != T(0) && (r < T(0)) != (b < T(0)) ? (T)(r + b) : r;
}
//@end

//@function floor_div needs fmod
// Toward minus infinity, as Python's; floats follow c10::div_floor_floating step by step.
template <class T> FW_INLINE T fw_floor_div(T a, T b) {
    const T q = fw_trunc_div<T>(a, b);
    return (T)(q - ((T)(q * b) != a && (a < T(0)) != (b < T(0))));
}
template <class T> FW_INLINE T fw_floor_div_float(T a, T b) {
    const T r = fw_fmod(a, b);
    const T q = (a - r) / b - (r != T(0) && (b < T(0)) != (r < T(0)) ? T(1) : T(0));
    const T whole = std::floor(q);
    const T near = q - whole > T(0.5) ? whole + T(1) : whole;
    const T out = q != T(0) ? near : std::copysign(T(0), a / b);
    return b == T(0) ? a / b : out;
}
FW_INLINE float fw_floor_div(float a, float b) { return fw_floor_div_float(a, b); }
FW_INLINE double fw_floor_div(double a, double b) { return fw_floor_div_float(a, b); }
//@end

//@function shift_left
// Amounts outside of the type's width shift everything out.
template <class T> FW_INLINE T fw_shift_left(T a, T b) {
    const bool out = b < T(0) || (uint64_t)b >= 8 * sizeof(T);
    return out ? T(0) : (T)((uint64_t)a << (uint64_t)b);
}
//@end

//@function shift_right
template <class T> FW_INLINE T fw_shift_right(T a, T b) {
    const uint64_t most = 8 * sizeof(T) - 1;
    const bool out = b < T(0) || (uint64_t)b > most;
    return out ? (T)(T(-1) < T(0) ? a >> most : T(0)) : (T)(a >> b);
}
//@end

//@function pow_int
// Integer power by squaring; a negative exponent gives 1, -1 or 0, as torch.pow.
template <class T> FW_INLINE T fw_pow_int(T a, T b) {
    if (b < T(0)) return a == T(1) ? T(1) : a == (T)-1 ? (b % 2 ? (T)-1 : T(1)) : T(0);
    T out = 1;
    for (; b; b = (T)(b >> 1), a = (T)(a * a)) out = b & 1 ? (T)(out * a) : out;
    return out;
}
//@end

//@function arg
// Replaces (best, at) by (x, i) where that goes before it in an argmax (up = true) or argmin: NaN
// first, then the extreme value, then the lower position.
template <bool up, class T, class I> FW_INLINE void fw_arg(T x, I i, T& best, I& at) {
    const bool nan_x = x != x, nan_best = best != best;
    const bool beyond = nan_x | (up ? x > best : x < best);
    const bool level = (nan_x & nan_best) | (x == best);
    const bool better = (beyond & !nan_best) | (level & (i < at));  // no branches: vectors have none
    best = better ? x : best;
    at = better ? i : at;
}
//@end

//@function running_arg
// One step of a running argmax (up = true) or argmin: (x, i) replaces (best, at) unless that is
// better; the later of equals, and of NaNs, stays.
template <bool up, class T, class I> FW_INLINE void fw_running_arg(T x, I i, T& best, I& at) {
    const bool better = (x != x) | (up ? x >= best : x <= best);  // nothing is beyond a NaN
    best = better ? x : best;
    at = better ? i : at;
}
//@end

//@function logaddexp
// log(exp(a) + exp(b)), as ATen's logcumsumexp: equal infinities stay, NaN goes first.
FW_INLINE double fw_logaddexp(double a, double b) {
    const double low = a < b || a != a ? a : b, high = a < b || b != b ? b : a;
    const bool plain = low != high || std::isfinite(low);
    return plain ? high + std::log1p(std::exp(low - high)) : high;
}
//@end

//@function lanes_arg needs arg
// The first of the best of all lanes, pairwise, in lane 0.
template <bool up, class T, class I, int N> FW_INLINE void fw_lanes_arg(T (&best)[N], I (&at)[N]) {
    for (int half = N / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) fw_arg<up, T, I>(best[i + half], at[i + half], best[i], at[i]);
}
//@end

//@function lanes_sum
// The lanes of an accumulator combined pairwise; their number is a power of two.
template <class T, int N> FW_INLINE T fw_lanes_sum(T (&x)[N]) {
    for (int half = N / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}
//@end

//@function lanes_prod
template <class T, int N> FW_INLINE T fw_lanes_prod(T (&x)[N]) {
    for (int half = N / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] *= x[i + half];
    return x[0];
}
//@end

//@function lanes_max needs maximum
template <class T, int N> FW_INLINE T fw_lanes_max(T (&x)[N]) {
    for (int half = N / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] = fw_maximum(x[i], x[i + half]);
    return x[0];
}
//@end

//@function lanes_min needs minimum
template <class T, int N> FW_INLINE T fw_lanes_min(T (&x)[N]) {
    for (int half = N / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] = fw_minimum(x[i], x[i + half]);
    return x[0];
}
//@end

//@function lanes_any
template <class T, int N> FW_INLINE T fw_lanes_any(T (&x)[N]) {
    for (int i = 1; i < N; i++) x[0] |= x[i];
    return x[0];
}
//@end

//@function lanes_all
template <class T, int N> FW_INLINE T fw_lanes_all(T (&x)[N]) {
    for (int i = 1; i < N; i++) x[0] &= x[i];
    return x[0];
}
//@end
