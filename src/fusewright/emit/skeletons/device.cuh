// Device helpers of emitted CUDA C++: vector accesses, folds across threads, 16-bit storage types
// and the operations C spells otherwise than PyTorch means them. Needs no header, under nvcc, NVRTC
// and the tests' CPU shim alike. The format is that of vecmath.hpp: blocks between
// `//@function NAME needs A B` and `//@end`, of which a file embeds those it uses.

//@function base
#define FW_DEVICE __device__ __forceinline__
#define FW_INF __int_as_float(0x7f800000)
#define FW_NAN __int_as_float(0x7fc00000)
//@end

//@function vec
// N neighbouring elements, moved by one access of up to 16 bytes.
template <class T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) fw_vec {
    T at[N];
    FW_DEVICE T& operator[](int i) { return at[i]; }
    FW_DEVICE const T& operator[](int i) const { return at[i]; }
};
//@end

//@function load needs vec
template <int N, class T> FW_DEVICE fw_vec<T, N> fw_load(const T* p) {
    return *reinterpret_cast<const fw_vec<T, N>*>(p);
}
//@end

//@function fixed
// What nobody writes while the kernel runs: may be read ahead of stores before it in the text.
template <class T> FW_DEVICE T fw_fixed(const T* p) {
    union {
        T value;
        unsigned char byte;
        unsigned short half;
        unsigned word;
        unsigned long long wide;
    } x;
    if (sizeof(T) == 1) x.byte = __ldg(reinterpret_cast<const unsigned char*>(p));
    else if (sizeof(T) == 2) x.half = __ldg(reinterpret_cast<const unsigned short*>(p));
    else if (sizeof(T) == 4) x.word = __ldg(reinterpret_cast<const unsigned*>(p));
    else x.wide = __ldg(reinterpret_cast<const unsigned long long*>(p));
    return x.value;
}
//@end

//@function store needs vec
template <int N, class T> FW_DEVICE void fw_store(T* p, const fw_vec<T, N>& x) {
    *reinterpret_cast<fw_vec<T, N>*>(p) = x;
}
//@end

//@function checked
// `x`, which must be in [0, extent): anything else ends the kernel with an error.
FW_DEVICE long long fw_checked(long long x, long long extent) {
    if ((unsigned long long)x >= (unsigned long long)extent) __trap();
    return x;
}
//@end

//@function float16
// IEEE binary16 as stored; computed in float.
struct fw_float16 { unsigned short bits; };
//@end

//@function bfloat16
// The upper half of a float as stored; computed in float.
struct fw_bfloat16 { unsigned short bits; };
//@end

//@function to_float needs float16 bfloat16
FW_DEVICE float fw_to_float(fw_bfloat16 x) { return __uint_as_float((unsigned)x.bits << 16); }
FW_DEVICE float fw_to_float(fw_float16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
//@end

//@function to_bfloat16 needs bfloat16
// To nearest, ties to even; NaN stays NaN.
FW_DEVICE fw_bfloat16 fw_to_bfloat16(float x) {
    fw_bfloat16 y;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
    const unsigned u = __float_as_uint(x);
    const unsigned rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    y.bits = (unsigned short)(x != x ? 0x7fffu : rounded);
#endif
    return y;
}
//@end

//@function to_float16 needs float16
FW_DEVICE fw_float16 fw_to_float16(float x) {
    fw_float16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
//@end

//@function maximum
// NaN in either operand gives NaN.
template <class T> FW_DEVICE T fw_maximum(T a, T b) { return a > b || a != a ? a : b; }
#if __CUDA_ARCH__ >= 800
FW_DEVICE float fw_maximum(float a, float b) {
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}
#endif
//@end

//@function minimum
template <class T> FW_DEVICE T fw_minimum(T a, T b) { return a < b || a != a ? a : b; }
#if __CUDA_ARCH__ >= 800
FW_DEVICE float fw_minimum(float a, float b) {
    float y;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}
#endif
//@end

//@function fmax
// NaN in one operand gives the other.
template <class T> FW_DEVICE T fw_fmax(T a, T b) { return a > b || b != b ? a : b; }
//@end

//@function fmin
template <class T> FW_DEVICE T fw_fmin(T a, T b) { return a < b || b != b ? a : b; }
//@end

//@function isnan
template <class T> FW_DEVICE bool fw_isnan(T x) { return x != x; }
//@end

//@function isinf
template <class T> FW_DEVICE bool fw_isinf(T x) { return x == (T)FW_INF || x == -(T)FW_INF; }
//@end

//@function is_negative
// `x < 0`, said so that no compiler warns of unsigned types.
template <class T> FW_DEVICE bool fw_is_negative(T x) { return x < T(1) && x != T(0); }
FW_DEVICE bool fw_is_negative(float x) { return x < 0.0f; }
FW_DEVICE bool fw_is_negative(double x) { return x < 0.0; }
//@end

//@function sign needs is_negative
// Zero for NaN, as torch.sign.
template <class T> FW_DEVICE T fw_sign(T x) { return (T)((T(0) < x) - fw_is_negative(x)); }
//@end

//@function sigmoid
// With e = exp(-|x|) nothing overflows, both tails keep their accuracy, and 1 + e in (1, 2] needs
// none of the special cases of a division: the approximate reciprocal and one Newton step.
FW_DEVICE float fw_sigmoid(float x) {
    const float e = expf(-fabsf(x));
    const float y = 1.0f + e;
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(y));
    r = fmaf(fmaf(-y, r, 1.0f), r, r);
    return x < 0.0f ? e * r : r;
}
FW_DEVICE double fw_sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }
//@end

//@function short_exp
// The short functions are for results that are rounded to 16 bits: their relative error is below
// 2^-16. ex2.approx and lg2.approx are good to 2^-22 (PTX ISA). Here the product's rounding, which
// is that of up to 128, adds 2^-17.5.
FW_DEVICE float fw_short_exp(float x) {
    float y;
    asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504f));
    return y;
}
//@end

//@function short_expm1
// The series leaves x^3 / 24 < 2^-19; from 2^-5 on the difference magnifies 2^-22 to 2^-17 at most.
FW_DEVICE float fw_short_expm1(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504f));
    const float series = x * fmaf(x, fmaf(x, 0.16666667f, 0.5f), 1.0f);
    return fabsf(x) < 0.03125f ? series : y - 1.0f;
}
//@end

//@function short_log1p
// The series leaves x^3 / 4 < 2^-17; from 2^-5 on lg2's 2^-22 is 2^-17 of the result at most.
FW_DEVICE float fw_short_log1p(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1.0f + x));
    const float series = x * fmaf(x, fmaf(x, 0.33333334f, -0.5f), 1.0f);
    return fabsf(x) < 0.03125f ? series : y * 0.6931472f;
}
//@end

//@function short_one_plus_erf
// erfc(|x|) = 2^p(|x|) below 0, 2 less that above. p leaves 2^-18.2 of it down to x = -4.3, where it
// is 2^-30 (coefficients from tools/fit_vecmath.py), its evaluation 2^-18.8; beyond, p falls as
// log2(erfc) does. float32's own 1 + erf(x) is off by up to 2^-25, whatever is left.
FW_DEVICE float fw_short_one_plus_erf(float x) {
    const float t = fabsf(x);
    float p = fmaf(t, -2.07624998e-05f, 0.000492836523f), y;
    p = fmaf(t, p, -0.00526409037f);
    p = fmaf(t, p, 0.0340321623f);
    p = fmaf(t, p, -0.152622864f);
    p = fmaf(t, p, -0.916928351f);
    p = fmaf(t, p, -1.62811494f);
    p = fmaf(t, p, 4.70932491e-06f);
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(p));
    return x > 0.0f ? 2.0f - y : y;
}
//@end

//@function digamma
// Reflection for x < 0, recurrence up to 10, then the asymptotic series (Abramowitz and Stegun,
// 6.3.5, 6.3.7, 6.3.18), as PyTorch's calc_digamma; in double, for the cancellation near the root.
FW_DEVICE double fw_digamma(double x) {
    if (x == 0.0) return copysign((double)FW_INF, -x);
    double shift = 0.0;
    if (x < 0.0) {
        const double fraction = x - trunc(x);
        if (fraction == 0.0) return (double)FW_NAN;
        shift = -3.14159265358979323846 / tan(3.14159265358979323846 * fraction);
        x = 1.0 - x;
    }
    for (; x < 10.0; x += 1.0) shift -= 1.0 / x;
    const double z = 1.0 / (x * x);
    double series = 8.33333333333333333333e-2;
    series = series * z - 2.10927960927960927961e-2;
    series = series * z + 7.57575757575757575758e-3;
    series = series * z - 4.16666666666666666667e-3;
    series = series * z + 3.96825396825396825397e-3;
    series = series * z - 8.33333333333333333333e-3;
    series = series * z + 8.33333333333333333333e-2;
    return log(x) - 0.5 / x - series * z + shift;
}
FW_DEVICE float fw_digamma(float x) { return (float)fw_digamma((double)x); }
//@end

//@function abs_int needs is_negative
template <class T> FW_DEVICE T fw_abs_int(T x) { return (T)(fw_is_negative(x) ? -x : x); }
//@end

//@function trunc_div
// Toward zero. Division by zero gives zero.
template <class T> FW_DEVICE T fw_trunc_div(T a, T b) { return b == T(0) ? T(0) : (T)(a / b); }
//@end

//@function fmod needs trunc_div
// The sign of the dividend, as C's.
template <class T> FW_DEVICE T fw_fmod(T a, T b) { return (T)(a - fw_trunc_div<T>(a, b) * b); }
FW_DEVICE float fw_fmod(float a, float b) { return fmodf(a, b); }
FW_DEVICE double fw_fmod(double a, double b) { return fmod(a, b); }
//@end

//@function remainder needs fmod is_negative
// The sign of the divisor, as Python's.
template <class T> FW_DEVICE T fw_remainder(T a, T b) {
    const T r = fw_fmod(a, b);
    return r != T(0) && fw_is_negative(r) != fw_is_negative(b) ? (T)(r + b) : r;
}
//@end

//@function floor_div needs fmod is_negative
// Toward minus infinity, as Python's; floats follow c10::div_floor_floating step by step.
template <class T> FW_DEVICE T fw_floor_div(T a, T b) {
    const T q = fw_trunc_div<T>(a, b);
    return (T)(q - ((T)(q * b) != a && fw_is_negative(a) != fw_is_negative(b)));
}
template <class T> FW_DEVICE T fw_floor_div_float(T a, T b) {
    const T r = fw_fmod(a, b);
    const T q = (a - r) / b - (r != T(0) && (b < T(0)) != (r < T(0)) ? T(1) : T(0));
    const T whole = floor(q);
    const T near = q - whole > T(0.5) ? whole + T(1) : whole;
    const T out = q != T(0) ? near : copysign(T(0), a / b);
    return b == T(0) ? a / b : out;
}
FW_DEVICE float fw_floor_div(float a, float b) { return fw_floor_div_float(a, b); }
FW_DEVICE double fw_floor_div(double a, double b) { return fw_floor_div_float(a, b); }
//@end

//@function shift_left needs is_negative
// Amounts outside of the type's width shift everything out.
template <class T> FW_DEVICE T fw_shift_left(T a, T b) {
    const bool out = fw_is_negative(b) || (unsigned long long)b >= 8 * sizeof(T);
    return out ? T(0) : (T)((unsigned long long)a << (unsigned long long)b);
}
//@end

//@function shift_right needs is_negative
template <class T> FW_DEVICE T fw_shift_right(T a, T b) {
    const unsigned long long most = 8 * sizeof(T) - 1;
    const bool out = fw_is_negative(b) || (unsigned long long)b > most;
    return out ? (T)(fw_is_negative(T(-1)) ? a >> most : T(0)) : (T)(a >> b);
}
//@end

//@function pow_int needs is_negative
// Integer power by squaring; a negative exponent gives 1, -1 or 0, as torch.pow.
template <class T> FW_DEVICE T fw_pow_int(T a, T b) {
    if (fw_is_negative(b)) return a == T(1) ? T(1) : a == (T)-1 ? (b % 2 ? (T)-1 : T(1)) : T(0);
    T out = 1;
    for (; b; b = (T)(b >> 1), a = (T)(a * a)) out = b & 1 ? (T)(out * a) : out;
    return out;
}
//@end

//@function best
// A value and its position: what argmax and argmin fold.
template <class T, class I> struct fw_best { T value; I at; };
//@end

//@function argmax needs best
// The pair that goes first: NaN, then the extreme value, then the lower position.
template <class T, class I>
FW_DEVICE fw_best<T, I> fw_argmax(const fw_best<T, I>& a, const fw_best<T, I>& b) {
    const bool nan_a = a.value != a.value, nan_b = b.value != b.value;
    const bool level = nan_a ? nan_b : a.value == b.value;
    const bool first = level ? a.at < b.at : nan_a || (a.value > b.value && !nan_b);
    return first ? a : b;
}
//@end

//@function argmin needs best
template <class T, class I>
FW_DEVICE fw_best<T, I> fw_argmin(const fw_best<T, I>& a, const fw_best<T, I>& b) {
    const bool nan_a = a.value != a.value, nan_b = b.value != b.value;
    const bool level = nan_a ? nan_b : a.value == b.value;
    const bool first = level ? a.at < b.at : nan_a || (a.value < b.value && !nan_b);
    return first ? a : b;
}
//@end

//@function merge_argmax needs argmax
// Partial results of a fold as words: (value, bits of the position).
FW_DEVICE void fw_merge_argmax(float* p, const float* q) {
    const fw_best<float, int> a = {p[0], __float_as_int(p[1])}, b = {q[0], __float_as_int(q[1])};
    const fw_best<float, int> best = fw_argmax(a, b);
    p[0] = best.value, p[1] = __int_as_float(best.at);
}
//@end

//@function merge_argmin needs argmin
FW_DEVICE void fw_merge_argmin(float* p, const float* q) {
    const fw_best<float, int> a = {p[0], __float_as_int(p[1])}, b = {q[0], __float_as_int(q[1])};
    const fw_best<float, int> best = fw_argmin(a, b);
    p[0] = best.value, p[1] = __int_as_float(best.at);
}
//@end

//@function merge_exponentials needs maximum
// (top, sum of weight * exp(value - top)) of two parts of a row. Equal tops, infinite ones too, need
// no rescaling.
FW_DEVICE void fw_merge_exponentials(float* p, const float* q) {
    const float scale = expf(p[0] == q[0] ? 0.0f : -fabsf(p[0] - q[0]));
    p[1] = p[0] >= q[0] ? p[1] + q[1] * scale : q[1] + p[1] * scale;
    p[0] = fw_maximum(p[0], q[0]);
}
//@end

//@function merge_squares
// (count, mean, sum of squared deviations from the mean) of two parts of a row (Chan, Golub and
// LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
FW_DEVICE void fw_merge_squares(float* p, const float* q) {
    const float count = p[0] + q[0], distance = q[1] - p[1];
    const float share = count == 0.0f ? 0.0f : q[0] / count;
    p[2] += q[2] + distance * distance * p[0] * share;
    p[1] += distance * share;
    p[0] = count;
}
//@end

//@function op_sum
// How two partial results of a fold combine.
struct fw_op_sum { template <class T> static FW_DEVICE T of(T a, T b) { return a + b; } };
//@end

//@function op_prod
struct fw_op_prod { template <class T> static FW_DEVICE T of(T a, T b) { return a * b; } };
//@end

//@function op_max needs maximum
struct fw_op_max {
    template <class T> static FW_DEVICE T of(T a, T b) { return fw_maximum(a, b); }
};
//@end

//@function op_min needs minimum
struct fw_op_min {
    template <class T> static FW_DEVICE T of(T a, T b) { return fw_minimum(a, b); }
};
//@end

//@function op_any
struct fw_op_any { template <class T> static FW_DEVICE T of(T a, T b) { return a || b; } };
//@end

//@function op_all
struct fw_op_all { template <class T> static FW_DEVICE T of(T a, T b) { return a && b; } };
//@end

//@function op_argmax needs argmax
struct fw_op_argmax {
    template <class T> static FW_DEVICE T of(T a, T b) { return fw_argmax(a, b); }
};
//@end

//@function op_argmin needs argmin
struct fw_op_argmin {
    template <class T> static FW_DEVICE T of(T a, T b) { return fw_argmin(a, b); }
};
//@end

//@function fill
// Every element of a register array set to `value`.
template <class T, int N> FW_DEVICE void fw_fill(T (&x)[N], T value) {
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = value;
}
template <class T, int M, int N> FW_DEVICE void fw_fill(T (&x)[M][N], T value) {
#pragma unroll
    for (int i = 0; i < M; i++) fw_fill(x[i], value);
}
//@end

//@function fold_items
// One thread's accumulators combined pairwise: all of an array, or column v of a matrix.
template <class Op, class T, int N> FW_DEVICE T fw_fold_items(T (&x)[N]) {
#pragma unroll
    for (int step = 1; step < N; step *= 2)
#pragma unroll
        for (int i = 0; i + step < N; i += 2 * step) x[i] = Op::of(x[i], x[i + step]);
    return x[0];
}
template <class Op, class T, int M, int N> FW_DEVICE T fw_fold_items(T (&x)[M][N], int v) {
#pragma unroll
    for (int step = 1; step < M; step *= 2)
#pragma unroll
        for (int i = 0; i + step < M; i += 2 * step) x[i][v] = Op::of(x[i][v], x[i + step][v]);
    return x[0][v];
}
template <class Op, class T, int M, int N> FW_DEVICE T fw_fold_items(T (&x)[M][N]) {
#pragma unroll
    for (int v = 0; v < N; v++) fw_fold_items<Op>(x, v);
    return fw_fold_items<Op>(x[0]);
}
//@end

//@function fold_lanes needs best
// The values of LANES neighbouring threads of a warp, combined; all of them get the result.
template <class T> FW_DEVICE T fw_exchange(T x, int step) {
    return (T)__shfl_xor_sync(0xffffffffu, x, step);
}
template <class T, class I> FW_DEVICE fw_best<T, I> fw_exchange(fw_best<T, I> x, int step) {
    return {fw_exchange(x.value, step), fw_exchange(x.at, step)};
}
template <class Op, int LANES, class T> FW_DEVICE T fw_fold_lanes(T x) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) x = Op::of(x, fw_exchange(x, step));
    return x;
}
//@end

//@function fold_warps needs fold_lanes
// One value per warp, in shared memory, combined; every thread gets the result.
template <class Op, class T, int WARPS> FW_DEVICE T fw_fold_warps(const T (&x)[WARPS]) {
    return fw_fold_lanes<Op, WARPS>(x[threadIdx.x % WARPS]);
}
//@end

//@function fold_groups
// Column `at` of a matrix in shared memory with one row per group of threads, combined in order.
template <class Op, class T, int GROUPS, int N>
FW_DEVICE T fw_fold_groups(const T (&x)[GROUPS][N], int at) {
    T y = x[0][at];
#pragma unroll
    for (int g = 1; g < GROUPS; g++) y = Op::of(y, x[g][at]);
    return y;
}
//@end

//@function op_logsumexp
// log(exp(a) + exp(b)), as ATen's logcumsumexp: equal infinities stay, NaN goes first.
struct fw_op_logsumexp {
    template <class T> static FW_DEVICE T of(T a, T b) {
        const T low = a < b || a != a ? a : b, high = a < b || b != b ? b : a;
        const bool plain = low != high || low - low == T(0);
        return plain ? high + log1p(exp(low - high)) : high;
    }
};
//@end

//@function op_running_argmax needs best
// `b` comes after `a`: it stays unless `a` is better; the later of equals, and of NaNs, stays.
struct fw_op_running_argmax {
    template <class T> static FW_DEVICE T of(T a, T b) {
        const bool nan_a = a.value != a.value, nan_b = b.value != b.value;
        return nan_b || (!nan_a && b.value >= a.value) ? b : a;
    }
};
//@end

//@function op_running_argmin needs best
struct fw_op_running_argmin {
    template <class T> static FW_DEVICE T of(T a, T b) {
        const bool nan_a = a.value != a.value, nan_b = b.value != b.value;
        return nan_b || (!nan_a && b.value <= a.value) ? b : a;
    }
};
//@end

//@function scan_lanes needs best
// `x` of the lane `step` before, and of lane `from`, among LANES neighbouring threads of a warp.
template <int LANES, class T> FW_DEVICE T fw_before(T x, int step) {
    return (T)__shfl_up_sync(0xffffffffu, x, step, LANES);
}
template <int LANES, class T, class I> FW_DEVICE fw_best<T, I> fw_before(fw_best<T, I> x, int step) {
    return {fw_before<LANES>(x.value, step), fw_before<LANES>(x.at, step)};
}
template <int LANES, class T> FW_DEVICE T fw_of_lane(T x, int from) {
    return (T)__shfl_sync(0xffffffffu, x, from, LANES);
}
template <int LANES, class T, class I> FW_DEVICE fw_best<T, I> fw_of_lane(fw_best<T, I> x, int from) {
    return {fw_of_lane<LANES>(x.value, from), fw_of_lane<LANES>(x.at, from)};
}
// The fold of the values of all lanes up to this one.
template <class Op, int LANES, class T> FW_DEVICE T fw_scan_lanes(T x) {
#pragma unroll
    for (int step = 1; step < LANES; step *= 2) {
        const T before = fw_before<LANES>(x, step);
        if ((int)(threadIdx.x % LANES) >= step) x = Op::of(before, x);
    }
    return x;
}
//@end

//@function scan_row needs scan_lanes
// Scans a chunk of a row: in each of ITEMS rounds, LANES threads hold N neighbouring values each.
// `none` is the fold of nothing, `carry` that of the chunks before, which takes this one in.
template <class Op, int LANES, class T, int ITEMS, int N>
FW_DEVICE T fw_scan_items(T (&x)[ITEMS][N], T (&before)[ITEMS], T none) {
    T whole = none;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
#pragma unroll
        for (int v = 1; v < N; v++) x[i][v] = Op::of(x[i][v - 1], x[i][v]);
        const T upto = fw_scan_lanes<Op, LANES>(x[i][N - 1]);
        const T lanes = fw_before<LANES>(upto, 1);
        before[i] = Op::of(whole, threadIdx.x % LANES ? lanes : none);
        whole = Op::of(whole, fw_of_lane<LANES>(upto, LANES - 1));
    }
    return whole;
}
template <class Op, bool EXCLUSIVE, class T, int ITEMS, int N>
FW_DEVICE void fw_scan_finish(T (&x)[ITEMS][N], const T (&before)[ITEMS], T start) {
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        const T first = Op::of(start, before[i]);
#pragma unroll
        for (int v = N - 1; v >= 0; v--)
            x[i][v] = !EXCLUSIVE ? Op::of(first, x[i][v]) : v ? Op::of(first, x[i][v - 1]) : first;
    }
}
template <class Op, bool EXCLUSIVE, int LANES, class T, class C, int ITEMS, int N>
FW_DEVICE void fw_scan_row(T (&x)[ITEMS][N], T none, C& carry) {
    T before[ITEMS];
    const T whole = fw_scan_items<Op, LANES>(x, before, none);
    fw_scan_finish<Op, EXCLUSIVE>(x, before, (T)carry);
    carry = Op::of(carry, (C)whole);
}
// The same by GROUPS warps, each with a part of the chunk: `shared` is theirs to exchange folds,
// and another one is used for the next chunk, so that one barrier suffices.
template <class Op, bool EXCLUSIVE, int LANES, class T, class C, int ITEMS, int N, int GROUPS>
FW_DEVICE void fw_scan_row(T (&x)[ITEMS][N], T none, C& carry, T (&shared)[GROUPS]) {
    const int lane = threadIdx.x % 32, group = threadIdx.x / 32;
    T before[ITEMS];
    const T whole = fw_scan_items<Op, LANES>(x, before, none);
    if (lane == 0) shared[group] = whole;
    __syncthreads();
    const T upto = fw_scan_lanes<Op, 32>(lane < GROUPS ? shared[lane] : none);
    const T earlier = fw_of_lane<32>(upto, group ? group - 1 : 0);
    fw_scan_finish<Op, EXCLUSIVE>(x, before, (T)Op::of(carry, (C)(group ? earlier : none)));
    carry = Op::of(carry, (C)fw_of_lane<32>(upto, GROUPS - 1));
}
//@end

//@function scan_columns
// Scans a chunk of ITEMS columns for N neighbouring rows of a thread; see fw_scan_row.
template <class Op, bool EXCLUSIVE, class T, class C, int ITEMS, int N>
FW_DEVICE void fw_scan_columns(T (&x)[ITEMS][N], T none, C (&carry)[N]) {
#pragma unroll
    for (int v = 0; v < N; v++)
#pragma unroll
        for (int i = 0; i < ITEMS; i++) {
            const C next = Op::of(carry[v], (C)x[i][v]);
            x[i][v] = (T)(EXCLUSIVE ? carry[v] : next);
            carry[v] = next;
        }
}
// The same by GROUPS groups of threads, each with a part of the chunk's columns.
template <class Op, bool EXCLUSIVE, class T, class C, int ITEMS, int N, int GROUPS, int ROWS>
FW_DEVICE void fw_scan_columns(T (&x)[ITEMS][N], T none, C (&carry)[N], T (&shared)[GROUPS][ROWS],
                               int group, int thread) {
#pragma unroll
    for (int v = 0; v < N; v++) {
        T whole = x[0][v];
#pragma unroll
        for (int i = 1; i < ITEMS; i++) whole = Op::of(whole, x[i][v]);
        shared[group][v * (ROWS / N) + thread] = whole;
    }
    __syncthreads();
#pragma unroll
    for (int v = 0; v < N; v++) {
        C start = carry[v];
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            if (g == group) start = carry[v];
            carry[v] = Op::of(carry[v], (C)shared[g][v * (ROWS / N) + thread]);
        }
#pragma unroll
        for (int i = 0; i < ITEMS; i++) {
            const C next = Op::of(start, (C)x[i][v]);
            x[i][v] = (T)(EXCLUSIVE ? start : next);
            start = next;
        }
    }
}
//@end

//@function cluster_arrive
// The barrier of a thread-block cluster (PTX, sm_90) in halves: what is written before one block
// arrives can be read by every block that has waited.
FW_DEVICE void fw_cluster_arrive() { asm volatile("barrier.cluster.arrive.aligned;" ::: "memory"); }
//@end

//@function cluster_wait
FW_DEVICE void fw_cluster_wait() { asm volatile("barrier.cluster.wait.aligned;" ::: "memory"); }
//@end

//@function cluster_store
// Stores to the variable that stands at `p` in the shared memory of the cluster's block `rank`.
template <class T> FW_DEVICE void fw_cluster_store(T* p, int rank, T x) {
    T* there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(p), "r"(rank));
    *there = x;
}
//@end

//@function stream
// A contiguous source of `count` chunks of BYTES (a multiple of 16, as is its address), brought to
// shared memory by the bulk copy engine (PTX cp.async.bulk, sm_90): STAGES chunks are in flight,
// each with an mbarrier that counts its bytes. All threads of the block wait for a chunk, read it,
// and release it; then the first thread asks for the chunk STAGES ahead into the same place.
template <int STAGES, int BYTES> struct fw_stream {
    static constexpr int STRIDE = (BYTES + 127) / 128 * 128;
    const char* source;
    int count;
    unsigned memory, full;

    FW_DEVICE fw_stream(const void* from, int chunks) : source((const char*)from), count(chunks) {
        extern __shared__ __align__(128) char stage_memory[];
        __shared__ __align__(8) unsigned long long stage_full[STAGES];
        memory = (unsigned)__cvta_generic_to_shared(stage_memory);
        full = (unsigned)__cvta_generic_to_shared(stage_full);
        if (threadIdx.x == 0) {
            for (int s = 0; s < STAGES; s++)
                asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(full + 8 * s));
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
            for (int s = 0; s < STAGES && s < count; s++) copy(s);
        }
        __syncthreads();
    }
    FW_DEVICE void copy(int chunk) {
        unsigned barrier = full + 8 * (chunk % STAGES);
        unsigned target = memory + STRIDE * (chunk % STAGES);
        asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(BYTES)
                     : "memory");
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
            "[%3];" ::"r"(target),
            "l"(source + (long long)chunk * BYTES), "r"(BYTES), "r"(barrier)
            : "memory");
    }
    template <class T> FW_DEVICE const T* wait(int chunk) {
        extern __shared__ __align__(128) char stage_memory[];
        unsigned parity = chunk / STAGES & 1, done = 0;
        while (!done)
            asm volatile(
                "{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; "
                "selp.u32 %0, 1, 0, p; }"
                : "=r"(done)
                : "r"(full + 8 * (chunk % STAGES)), "r"(parity)
                : "memory");
        return (const T*)(stage_memory + STRIDE * (chunk % STAGES));
    }
    FW_DEVICE void release(int chunk) {
        __syncthreads();
        if (threadIdx.x == 0 && chunk + STAGES < count) copy(chunk + STAGES);
    }
};
//@end
