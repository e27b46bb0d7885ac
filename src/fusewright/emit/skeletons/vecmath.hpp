// Elementary functions that vectorise: what a kernel loop calls instead of libm, which blocks it.
//
// Rules of this file. Each function stands between `//@function NAME needs A B` and `//@end`, with
// `and for double C` where only its overload for double calls more; the emitter copies the blocks a
// kernel uses (see emit/vecmath.py), so a block may call only what it needs. Vector functions are
// branch-free: both sides of a choice are computed and one is selected, bits are moved by memcpy.
// They hold for every argument (NaN, infinities, signed zeros, denormals), assume round-to-nearest,
// and must not be compiled with -ffast-math.
// Polynomials come from tools/fit_vecmath.py and from nowhere else, lowest power first.
// Accuracy is measured by tests/unit/test_vecmath.py, which holds the bounds: at most 2 ulp for
// most, 4 for erfc, tan, erfinv; without fused multiply-add a few lose up to 1 more.
//
// Techniques: argument reduction after W. J. Cody and W. Waite, "Software Manual for the Elementary
// Functions" (1980); J.-M. Muller, "Elementary Functions", 3rd ed. (2016).

//@function base
#include <cmath>
#include <cstdint>
#include <cstring>

#define FW_INLINE static inline __attribute__((always_inline))
#define FW_INF __builtin_inff()
#define FW_NAN __builtin_nanf("")
//@end

//@function bits needs base
FW_INLINE uint32_t fw_to_bits(float x) { uint32_t u; std::memcpy(&u, &x, 4); return u; }
FW_INLINE float fw_from_bits(uint32_t u) { float x; std::memcpy(&x, &u, 4); return x; }
//@double
FW_INLINE uint64_t fw_to_bits(double x) { uint64_t u; std::memcpy(&u, &x, 8); return u; }
FW_INLINE double fw_from_bits(uint64_t u) { double x; std::memcpy(&x, &u, 8); return x; }
//@end

//@function poly needs base
// c0 + x (c1 + x (c2 + ...)).
template <class T> FW_INLINE T fw_poly(T, T c) { return c; }
template <class T, class... C> FW_INLINE T fw_poly(T x, T c, C... rest) {
    return x * fw_poly(x, rest...) + c;
}
//@end

//@function abs needs base
FW_INLINE float fw_abs(float x) { return __builtin_fabsf(x); }
//@double
FW_INLINE double fw_abs(double x) { return __builtin_fabs(x); }
//@end

//@function copysign needs base
FW_INLINE float fw_copysign(float x, float sign) { return __builtin_copysignf(x, sign); }
//@double
FW_INLINE double fw_copysign(double x, double sign) { return __builtin_copysign(x, sign); }
//@end

//@function floor needs base
FW_INLINE float fw_floor(float x) { return __builtin_floorf(x); }
//@double
FW_INLINE double fw_floor(double x) { return __builtin_floor(x); }
//@end

//@function ceil needs base
FW_INLINE float fw_ceil(float x) { return __builtin_ceilf(x); }
//@double
FW_INLINE double fw_ceil(double x) { return __builtin_ceil(x); }
//@end

//@function trunc needs base
FW_INLINE float fw_trunc(float x) { return __builtin_truncf(x); }
//@double
FW_INLINE double fw_trunc(double x) { return __builtin_trunc(x); }
//@end

//@function round needs base
// Halves to even, as torch.round does.
FW_INLINE float fw_round(float x) { return __builtin_nearbyintf(x); }
//@double
FW_INLINE double fw_round(double x) { return __builtin_nearbyint(x); }
//@end

//@function sqrt needs base
FW_INLINE float fw_sqrt(float x) { return __builtin_sqrtf(x); }
//@double
FW_INLINE double fw_sqrt(double x) { return __builtin_sqrt(x); }
//@end

//@function rsqrt needs base
FW_INLINE float fw_rsqrt(float x) { return 1.0f / __builtin_sqrtf(x); }
//@double
FW_INLINE double fw_rsqrt(double x) { return 1.0 / __builtin_sqrt(x); }
//@end

//@function hypot needs abs
// The squares of floats neither overflow nor underflow as doubles; infinity wins over NaN.
FW_INLINE float fw_hypot(float x, float y) {
    float r = (float)__builtin_sqrt((double)x * x + (double)y * y);
    return fw_abs(x) == FW_INF || fw_abs(y) == FW_INF ? FW_INF : r;
}
//@double
FW_INLINE double fw_hypot(double x, double y) { return std::hypot(x, y); }
//@end

//@function power_of_two needs bits
// 2^n for exponents n of normal numbers.
FW_INLINE float fw_power_of_two(int32_t n) { return fw_from_bits((uint32_t)(n + 127) << 23); }
//@double
FW_INLINE double fw_power_of_two(int64_t n) { return fw_from_bits((uint64_t)(n + 1023) << 52); }
//@end

//@function scale needs power_of_two
// p * 2^n for n in [-252, 254]. The factor comes in two halves, so that a result which overflows or
// is denormal does so in the last multiplication, with one rounding.
FW_INLINE float fw_scale(float p, int32_t n) {
    int32_t half = n >> 1;
    return p * fw_power_of_two(half) * fw_power_of_two(n - half);
}
//@double
// The same for n in [-2044, 2046]. AVX2 has no arithmetic shift of 64 bits: halve n + 4096.
FW_INLINE double fw_scale(double p, int64_t n) {
    int64_t half = (int64_t)((uint64_t)(n + 4096) >> 1) - 2048;
    return p * fw_power_of_two(half) * fw_power_of_two(n - half);
}
//@end

//@function exp_parts needs bits poly
// x = n ln2 + r, |r| <= ln2/2: returns r. Adding 1.5 * 2^23 leaves the integer nearest to x / ln2
// in the low bits of the sum, and subtracting it again leaves that integer as a float. ln2 comes
// in two parts, of which the first is so short that its product with n is exact.
FW_INLINE float fw_exp_parts(float x, int32_t& n) {
    float sum = x * 1.44269502f + 12582912.0f;
    float whole = sum - 12582912.0f;
    n = (int32_t)(fw_to_bits(sum) - 0x4b400000u);
    float r = x - whole * 0.693359375f;
    return r + whole * 2.12194442e-4f;
}
//@double
FW_INLINE double fw_exp_parts(double x, int64_t& n) {
    double sum = x * 1.4426950408889634 + 6755399441055744.0;
    double whole = sum - 6755399441055744.0;
    n = (int64_t)(fw_to_bits(sum) - 0x4338000000000000u);
    double r = x - whole * 0.6931471803691238;
    return r - whole * 1.9082149292705877e-10;
}
//@float
FW_INLINE float fw_exp_poly(float r) {
    return r * r * fw_poly(r, 0.49999994f, 0.166665211f, 0.0416682661f, 0.00836867653f,
        0.00138207222f) + r + 1.0f;
}
//@double
// (exp(r) - 1 - r) / r^2.
FW_INLINE double fw_exp_tail(double r) {
    return fw_poly(r, 0.50000000000000011, 0.16666666666666671, 0.041666666666648269,
        0.0083333333333255894, 0.0013888888897423774, 0.00019841269876868839,
        2.4801571143504082e-05, 2.7557252761130276e-06, 2.7570691499517324e-07,
        2.5106309977518293e-08, 1.6868112759978833e-09);
}
//@end

//@function scaled_exp needs exp_parts scale
// exp(x) * 2^shift, without overflow or underflow before the result's own.
FW_INLINE float fw_scaled_exp(float x, int32_t shift) {
    int32_t n;
    x = x > 90.0f ? 90.0f : x;
    float r = fw_exp_parts(x < -105.0f ? -105.0f : x, n);
    return fw_scale(fw_exp_poly(r), n + shift);
}
//@end

//@function exp needs scaled_exp
FW_INLINE float fw_exp(float x) { return fw_scaled_exp(x, 0); }
//@double
FW_INLINE double fw_exp(double x) {
    int64_t n;
    x = x > 720.0 ? 720.0 : x;
    double r = fw_exp_parts(x < -760.0 ? -760.0 : x, n);
    return fw_scale(r * r * fw_exp_tail(r) + r + 1.0, n);
}
//@end

//@function exp2 needs scale poly
FW_INLINE float fw_exp2(float x) {
    x = x > 129.0f ? 129.0f : x;
    x = x < -151.0f ? -151.0f : x;
    float sum = x + 12582912.0f;
    float r = x - (sum - 12582912.0f);
    int32_t n = (int32_t)(fw_to_bits(sum) - 0x4b400000u);
    return fw_scale(r * fw_poly(r, 0.693147242f, 0.240226552f, 0.0555026159f, 0.00961736217f,
        0.00134233362f, 0.000156833717f) + 1.0f, n);
}
//@double
FW_INLINE double fw_exp2(double x) { return std::exp2(x); }
//@end

//@function expm1 needs exp_parts power_of_two abs
// 2^n (r + r^2 P(r)) + (2^n - 1), all halved so that 2^n stays finite up to the overflow threshold;
// 2^n r + (2^n - 1) is summed first because it is the part that cancels.
FW_INLINE float fw_expm1(float x) {
    int32_t n;
    float y = x > 89.0f ? 89.0f : x;
    float r = fw_exp_parts(y < -18.0f ? -18.0f : y, n);
    float q = r * r * fw_poly(r, 0.5f, 0.166666657f, 0.0416664928f, 0.00833354611f, 0.00139323261f,
        0.000197616711f);
    float half = fw_power_of_two(n - 1);
    float result = 2.0f * (half * q + (half * r + (half - 0.5f)));
    return fw_abs(x) < 5.9604645e-8f ? x : result;
}
//@double
FW_INLINE double fw_expm1(double x) {
    int64_t n;
    double y = x > 710.0 ? 710.0 : x;
    double r = fw_exp_parts(y < -40.0 ? -40.0 : y, n);
    double half = fw_power_of_two(n - 1);
    double result = 2.0 * (half * (r * r * fw_exp_tail(r)) + (half * r + (half - 0.5)));
    return fw_abs(x) < 1.1102230246251565e-16 ? x : result;
}
//@end

//@function sigmoid needs exp power_of_two abs
// With e = exp(-|x|) <= 1 nothing overflows and both tails keep accuracy: sigmoid is s / (1 + e)
// for s = 1, or s = e where x < 0, written s - s e / (1 + e): the rounding of 1 + e counts less.
FW_INLINE float fw_sigmoid(float x) {
    int32_t n;
    float y = -fw_abs(x);
    float p = fw_exp_poly(fw_exp_parts(y < -105.0f ? -105.0f : y, n));
    float e = p * fw_power_of_two(n + 64) * 5.42101086e-20f;  // 2^-64: one rounding if denormal
    float s = x < 0.0f ? e : 1.0f;
    return s - s * (e / (1.0f + e));
}
//@double
FW_INLINE double fw_sigmoid(double x) {
    double e = fw_exp(-fw_abs(x));
    double s = x < 0.0 ? e : 1.0;
    return s - s * (e / (1.0 + e));
}
//@end

//@function tanh needs expm1 copysign
// Odd polynomial below 0.6, 1 - 2 / (exp(2|x|) + 1) above, where the subtraction is benign.
FW_INLINE float fw_tanh(float x) {
    int32_t n;
    float a = fw_abs(x);
    float z = x * x;
    float near = z * fw_poly(z, -0.333332986f, 0.133319363f, -0.0537847057f, 0.0207985397f,
        -0.00589780835f) * x + x;
    float p = fw_exp_poly(fw_exp_parts(2.0f * (a > 10.0f ? 10.0f : a), n));
    float far = 1.0f - 2.0f / (p * fw_power_of_two(n) + 1.0f);
    return a < 0.6f ? near : fw_copysign(far, x);
}
//@double
FW_INLINE double fw_tanh(double x) {
    double a = fw_abs(x);
    double e = fw_expm1(2.0 * (a > 20.0 ? 20.0 : a));
    return fw_copysign(e / (e + 2.0), x);
}
//@end

//@function sinh needs scaled_exp abs copysign
// Odd polynomial below 1, e - 1 / (4 e) above for e = exp(|x|) / 2, which overflows only with sinh.
FW_INLINE float fw_sinh(float x) {
    float z = x * x;
    float near = z * fw_poly(z, 0.166666672f, 0.00833331048f, 0.000198428941f, 2.78223001e-06f) * x
        + x;
    float e = fw_scaled_exp(fw_abs(x), -1);
    float far = e - 0.25f / e;
    return fw_abs(x) < 1.0f ? near : fw_copysign(far, x);
}
//@double
FW_INLINE double fw_sinh(double x) { return std::sinh(x); }
//@end

//@function cosh needs scaled_exp abs
FW_INLINE float fw_cosh(float x) {
    float e = fw_scaled_exp(fw_abs(x), -1);
    return e + 0.25f / e;
}
//@double
FW_INLINE double fw_cosh(double x) { return std::cosh(x); }
//@end

//@function log_parts needs bits poly
// x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), for positive finite x (denormals scaled up).
FW_INLINE float fw_log_parts(float x, float& f) {
    float y = x < 1.17549435e-38f ? x * 8388608.0f : x;
    float base = x < 1.17549435e-38f ? -23.0f : 0.0f;
    uint32_t u = fw_to_bits(y) - 0x3f3504f3u;
    f = fw_from_bits((u & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
    return base + (float)((int32_t)u >> 23);
}
// log(1 + f) - f.
FW_INLINE float fw_log_tail(float f) {
    return f * f * (f * fw_poly(f, 0.333333135f, -0.250000089f, 0.20002073f, -0.166679919f,
        0.142203182f, -0.124061517f, 0.118838191f, -0.116706632f, 0.0674920678f) - 0.5f);
}
// `r`, or the value of a logarithm at x where that is not a number: log(0), log(-1), log(inf).
FW_INLINE float fw_log_edge(float x, float r) {
    r = x < FW_INF ? r : x;
    r = x < 0.0f ? FW_NAN : r;
    return x == 0.0f ? -FW_INF : r;
}
//@end

//@function log needs log_parts
FW_INLINE float fw_log(float x) {
    float f;
    float e = fw_log_parts(x, f);
    float r = f + (fw_log_tail(f) - e * 2.12194442e-4f);
    return fw_log_edge(x, e * 0.693359375f + r);
}
//@double
// log(1 + f) = f - (f^2/2 - s (f^2/2 + R)), s = f / (2 + f), R = s^2 P(s^2) (the odd series of
// 2 atanh(s)). Integers become doubles by way of 2^52, since AVX2 converts no 64-bit ones.
FW_INLINE double fw_log(double x) {
    bool denormal = x < 2.2250738585072014e-308;
    uint64_t u = fw_to_bits(denormal ? x * 18014398509481984.0 : x) - 0x3fe6a09e667f3bcdu;
    double f = fw_from_bits((u & 0xfffffffffffffu) + 0x3fe6a09e667f3bcdu) - 1.0;
    double biased = fw_from_bits(((u + ((uint64_t)1024 << 52)) >> 52) | 0x4330000000000000u);
    double e = biased - (denormal ? 4503599627371574.0 : 4503599627371520.0);
    double s = f / (2.0 + f);
    double z = s * s;
    double half = 0.5 * f * f;
    double tail = s * (half + z * fw_poly(z, 0.66666666666667351, 0.39999999999409008,
        0.28571428743829369, 0.22222198408141988, 0.18183573735110617, 0.1531378971944059,
        0.14798750955121551)) + e * 1.9082149292705877e-10;
    double r = e * 0.6931471803691238 - ((half - tail) - f);
    r = x < (double)FW_INF ? r : x;
    r = x < 0.0 ? (double)FW_NAN : r;
    return x == 0.0 ? -(double)FW_INF : r;
}
//@end

//@function log2 needs log_parts
// e + log2(e) (f + tail), log2(e) in two parts.
FW_INLINE float fw_log2(float x) {
    float f;
    float e = fw_log_parts(x, f);
    float r = f * 1.44269502f + (f * 1.925963e-8f + fw_log_tail(f) * 1.44269502f);
    return fw_log_edge(x, e + r);
}
//@double
FW_INLINE double fw_log2(double x) { return std::log2(x); }
//@end

//@function log10 needs log_parts
FW_INLINE float fw_log10(float x) {
    float f;
    float e = fw_log_parts(x, f);
    float tail = fw_log_tail(f) * 0.434294492f + (e * 4.605039e-6f - f * 1.010305e-8f);
    return fw_log_edge(x, e * 0.301025391f + (f * 0.434294492f + tail));
}
//@double
FW_INLINE double fw_log10(double x) { return std::log10(x); }
//@end

//@function log1p needs log_parts and for double log abs
// 1 + x = 2^e (1 + f) with f = 2^-e x + (2^-e - 1), both terms exact; e is that of the rounded
// 1 + x. 2^-e is formed as 4 * 2^-e / 4, a normal number up to e = 128.
FW_INLINE float fw_log1p(float x) {
    uint32_t shift = (fw_to_bits(1.0f + x) - 0x3f3504f3u) & 0xff800000u;
    float e = (float)((int32_t)shift >> 23);
    float f = fw_from_bits(fw_to_bits(x) - shift);
    f = f + (0.25f * fw_from_bits(0x40800000u - shift) - 1.0f);
    float r = f + (fw_log_tail(f) - e * 2.12194442e-4f);
    r = fw_log_edge(1.0f + x, e * 0.693359375f + r);
    return x == 0.0f ? x : r;
}
//@double
// log(u) for u = 1 + x, and what rounding u lost, over u (not a number where u is 0 or infinite).
FW_INLINE double fw_log1p(double x) {
    double u = 1.0 + x;
    double more = (x > 1.0 ? 1.0 - (u - x) : x - (u - 1.0)) / u;
    double r = fw_log(u) + (fw_abs(more) < 1.0 ? more : 0.0);
    return x == 0.0 ? x : r;
}
//@end

//@function pow needs log_parts scale poly bits.double
// exp2(y log2|x|) in double: |y log2 x| <= 151 needs log2 to 2^-33. 1 + f comes exactly from float
// arithmetic; log2(1 + f) = s P(s^2), s = f / (2 + f). Signs and special cases follow IEC 60559.
FW_INLINE float fw_pow(float x, float y) {
    float a = __builtin_fabsf(x);
    float f;
    float e = fw_log_edge(a, fw_log_parts(a, f));
    double s = (double)f / ((double)f + 2.0);
    double l = e + s * fw_poly(s * s, 2.8853900817778491, 0.96179669411531632, 0.57707794173600624,
        0.41220932082930389, 0.31990270631199658, 0.28294530466143403);
    double t = l == 0.0 ? 0.0 : y * l;
    t = t > 129.0 ? 129.0 : t;
    t = t < -152.0 ? -152.0 : t;
    double sum = t + 6755399441055744.0;
    float r = (float)(t - (sum - 6755399441055744.0));
    float p = fw_scale(r * fw_poly(r, 0.693147242f, 0.240226552f, 0.0555026159f, 0.00961736217f,
        0.00134233362f, 0.000156833717f) + 1.0f, (int32_t)(uint32_t)fw_to_bits(sum));
    float whole = __builtin_truncf(y);
    float half = __builtin_fabsf(__builtin_truncf(0.5f * y) - 0.5f * y);
    p = whole == y && half == 0.5f ? __builtin_copysignf(p, x) : p;
    p = x < 0.0f && a < FW_INF && whole != y ? FW_NAN : p;
    return y == 0.0f ? 1.0f : p;
}
//@double
FW_INLINE double fw_pow(double x, double y) { return std::pow(x, y); }
//@end

//@function erf_near needs poly
// erf(x) for |x| <= 1.2.
FW_INLINE float fw_erf_near(float x) {
    return fw_poly(x * x, 0.128379166f, -0.376126319f, 0.112837017f, -0.0268615186f, 0.00521177566f,
        -0.000836957654f, 0.000105532527f, -7.90210379e-06f) * x + x;
}
//@end

//@function erf needs erf_near abs copysign and for double exp_parts power_of_two
// Above 1.2, 1 - Q(|x|)^8 where Q fits erfc^(1/8): three squarings cost less than an exponential,
// and what they lose is scaled by a tail that is at most 0.09.
FW_INLINE float fw_erf(float x) {
    float a = fw_abs(x);
    float t = (a > 4.0f ? 4.0f : a) - 2.5f;
    float q = fw_poly(t, 0.376871318f, -0.252158135f, 0.0398895852f, 0.0104108546f, -0.00375614525f,
        -8.9510344e-05f, 0.00020531546f, 8.52711764e-06f);
    q = q * q;
    q = q * q;
    float far = fw_copysign(1.0f - q * q, x);
    return a < 1.2f ? fw_erf_near(x) : far;
}
//@double
// The polynomial in x^2 up to 1; above, 1 - erfc(a) as fw_erfc has it.
FW_INLINE double fw_erf(double x) {
    double near = fw_poly(x * x, 0.12837916709551256, -0.37612638903183365, 0.11283791670938488,
        -0.026866170642257433, 0.0052239775994053798, -0.00085483256175765811,
        0.00012055284483738185, -1.4924541162263562e-05, 1.6445056326186326e-06,
        -1.6190658691707844e-07, 1.3644163199010001e-08, -7.6562321397869658e-10) * x + x;
    double a = fw_abs(x);
    a = a > 6.0 ? 6.0 : a;
    double t = (a - 2.0) / (a + 2.0);
    double p = fw_poly(t, 1.2769783815525286, -0.092763826585747597, -0.16603039761518634,
        0.16405128003537212, -0.054220000998736813, -0.0080340153734174864, 0.0087226528559792363,
        0.0012713502853442336, -0.0014567295469309566, -0.00045434996901479722,
        0.00020469093335476421, 0.00014637304053979731, 2.9322148723079327e-06,
        5.860690670386396e-06, 5.9447611034702675e-05, 4.3022931670321115e-05);
    int64_t n;
    double r = fw_exp_parts(-(a * a), n);
    double e = (r * r * fw_exp_tail(r) + r + 1.0) * fw_power_of_two(n);
    double far = fw_copysign(1.0 - e * p / (1.0 + 2.0 * a), x);
    return fw_abs(x) < 1.0 ? near : far;
}
//@end

//@function erfc needs erf_near exp_parts scale abs
// Beyond 1/2, exp(-a^2) P(t) / (1 + 2a), t = (a - 2) / (a + 2), a = |x|: M. M. Shepherd and
// J. G. Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc x in 0 <= x < inf", Math.
// Comp. 36 (1981). a^2 = h^2 + (a - h)(a + h), h the leading 12 bits of a, so that h^2 is exact.
FW_INLINE float fw_erfc(float x) {
    float a = fw_abs(x);
    a = a > 10.2f ? 10.2f : a;
    float h = fw_from_bits((fw_to_bits(a) + 0x800u) & 0xfffff000u);
    float t = (a - 2.0f) / (a + 2.0f);
    int32_t n;
    float r = fw_exp_parts(-(h * h), n) + (h - a) * (h + a);
    float p = fw_poly(t, 1.27697837f, -0.0927636251f, -0.166030213f, 0.164043114f, -0.0542198829f,
        -0.00795082096f, 0.00870009046f, 0.000953410403f, -0.00132589811f) / (1.0f + 2.0f * a);
    p = fw_scale(p * fw_exp_poly(r), n);
    p = x < 0.0f ? 2.0f - p : p;
    return a < 0.5f ? 1.0f - fw_erf_near(x) : p;
}
//@double
FW_INLINE double fw_erfc(double x) { return std::erfc(x); }
//@end

//@function trig_parts needs bits.double poly
// x = (q + 4k) pi/2 + r, |r| <= pi/4 (a little more by rounding): returns r, and q modulo 2^32.
// Holds for every float, after M. Payne and R. Hanek, "Radian reduction for trigonometric
// functions", SIGNUM Newsletter 18 (1983): 1/(2 pi) is a sum of parts so short that their products
// with x are exact in double; of each, only the distance to an integer counts.
FW_INLINE double fw_turn(double x, double part) {
    return x * part - __builtin_nearbyint(x * part);
}
FW_INLINE float fw_trig_parts(float x, uint32_t& q) {
    double a = fw_turn(x, 0.15915494272485375);
    double b = fw_turn(x, 3.6704158115630214e-10);
    double c = fw_turn(x, 5.690025167992954e-19);
    double d = fw_turn(x, 1.4703036846932608e-27);
    double e = fw_turn(x, 2.5867171752090537e-36);
    double f = x * 9.458140970740169e-46;
    double sum = (a + b + c + d + e) * 4.0 + 6755399441055744.0;
    // The parts are added by falling size once the quadrant is gone, so that what cancels is exact.
    double r = a - (sum - 6755399441055744.0) * 0.25;
    r = r + b + c + d + e + f;
    q = (uint32_t)fw_to_bits(sum);
    return (float)(r * 6.283185307179586);
}
FW_INLINE float fw_sin_poly(float r) {
    float z = r * r;
    return z * fw_poly(z, -0.166666672f, 0.0083333794f, -0.000198530717f, 2.83271811e-06f) * r + r;
}
FW_INLINE float fw_cos_poly(float r) {
    float z = r * r;
    return z * (z * fw_poly(z, 0.0416666456f, -0.00138873106f, 2.44325656e-05f) - 0.5f) + 1.0f;
}
//@end

//@function sin needs trig_parts
FW_INLINE float fw_sin(float x) {
    uint32_t q;
    float r = fw_trig_parts(x, q);
    float v = (q & 1u) != 0u ? fw_cos_poly(r) : fw_sin_poly(r);
    return fw_from_bits(fw_to_bits(v) ^ (q & 2u) << 30);
}
//@double
FW_INLINE double fw_sin(double x) { return std::sin(x); }
//@end

//@function cos needs trig_parts
FW_INLINE float fw_cos(float x) {
    uint32_t q;
    float r = fw_trig_parts(x, q);
    float v = (q & 1u) != 0u ? fw_sin_poly(r) : fw_cos_poly(r);
    return fw_from_bits(fw_to_bits(v) ^ ((q + 1u) & 2u) << 30);
}
//@double
FW_INLINE double fw_cos(double x) { return std::cos(x); }
//@end

//@function tan needs trig_parts
FW_INLINE float fw_tan(float x) {
    uint32_t q;
    float r = fw_trig_parts(x, q);
    bool odd = (q & 1u) != 0u;
    float s = fw_sin_poly(r);
    float c = fw_cos_poly(r);
    return (odd ? -c : s) / (odd ? s : c);
}
//@double
FW_INLINE double fw_tan(double x) { return std::tan(x); }
//@end

//@function asin needs poly abs copysign
// Above 1/2, asin(a) = pi/2 - 2 asin(sqrt((1 - a) / 2)).
FW_INLINE float fw_asin(float x) {
    float a = fw_abs(x);
    float z = a > 0.5f ? 0.5f - 0.5f * a : a * a;
    float s = a > 0.5f ? __builtin_sqrtf(z) : a;
    float p = s + s * (z * fw_poly(z, 0.166667521f, 0.0749530643f, 0.0454697721f, 0.0241807718f,
        0.0421664231f));
    float far = 1.57079637f - (2.0f * p + 4.371139e-8f);
    return fw_copysign(a > 0.5f ? far : p, x);
}
//@double
FW_INLINE double fw_asin(double x) { return std::asin(x); }
//@end

//@function acos needs poly abs
FW_INLINE float fw_acos(float x) {
    float a = fw_abs(x);
    float z = a > 0.5f ? 0.5f - 0.5f * a : a * a;
    float s = a > 0.5f ? __builtin_sqrtf(z) : x;
    float p = s + s * (z * fw_poly(z, 0.166667521f, 0.0749530643f, 0.0454697721f, 0.0241807718f,
        0.0421664231f));
    float middle = 1.57079637f - (p + 4.371139e-8f);
    float far = x < 0.0f ? 3.14159274f - (2.0f * p + 8.742278e-8f) : 2.0f * p;
    return a > 0.5f ? far : middle;
}
//@double
FW_INLINE double fw_acos(double x) { return std::acos(x); }
//@end

//@function atan_unit needs poly
// atan on [0, 1].
FW_INLINE float fw_atan_unit(float t) {
    float z = t * t;
    return t + t * (z * fw_poly(z, -0.333332986f, 0.19998531f, -0.142640516f, 0.109511748f,
        -0.0840047449f, 0.057906501f, -0.0311269071f, 0.0108872745f, -0.00178751862f));
}
//@end

//@function atan needs atan_unit abs copysign
FW_INLINE float fw_atan(float x) {
    float a = fw_abs(x);
    float p = fw_atan_unit(a > 1.0f ? 1.0f / a : a);
    float far = 1.57079637f - (p + 4.371139e-8f);
    return fw_copysign(a > 1.0f ? far : p, x);
}
//@double
FW_INLINE double fw_atan(double x) { return std::atan(x); }
//@end

//@function atan2 needs atan_unit bits abs copysign
FW_INLINE float fw_atan2(float y, float x) {
    float a = fw_abs(x);
    float b = fw_abs(y);
    float t = (a < b ? a : b) / (a < b ? b : a);
    t = a == b ? (a == 0.0f ? 0.0f : 1.0f) : t;
    float p = fw_atan_unit(t);
    p = b > a ? 1.57079637f - (p + 4.371139e-8f) : p;
    p = (fw_to_bits(x) >> 31) != 0u ? 3.14159274f - (p + 8.742278e-8f) : p;
    return fw_copysign(p, y);
}
//@double
FW_INLINE double fw_atan2(double y, double x) { return std::atan2(y, x); }
//@end

//@function asinh needs log1p abs copysign
// log1p(a + a^2 / (1 + sqrt(1 + a^2))); where a^2 could overflow, log(2a).
FW_INLINE float fw_asinh(float x) {
    float a = fw_abs(x);
    bool large = a > 2147483648.0f;
    float z = a * a;
    float r = fw_log1p(large ? a : a + z / (1.0f + __builtin_sqrtf(1.0f + z)));
    return fw_copysign(large ? r + 0.693147182f : r, x);
}
//@double
FW_INLINE double fw_asinh(double x) { return std::asinh(x); }
//@end

//@function acosh needs log1p
FW_INLINE float fw_acosh(float x) {
    bool large = x > 2147483648.0f;
    float t = x - 1.0f;
    float r = fw_log1p(large ? x : t + __builtin_sqrtf(t * (x + 1.0f)));
    r = large ? r + 0.693147182f : r;
    return x < 1.0f ? FW_NAN : r;
}
//@double
FW_INLINE double fw_acosh(double x) { return std::acosh(x); }
//@end

//@function atanh needs log1p abs copysign
FW_INLINE float fw_atanh(float x) {
    float a = fw_abs(x);
    return fw_copysign(0.5f * fw_log1p(2.0f * a / (1.0f - a)), x);
}
//@double
FW_INLINE double fw_atanh(double x) { return std::atanh(x); }
//@end

//@function fmod_float needs abs.double copysign
// fmod, exact; the name `fmod` is that of the operation on all types, in scalar.hpp.
// One step takes some 51 leading bits of the quotient off it; the fused multiply-add is then exact.
FW_INLINE double fw_fmod_step(double r, double b, double inverse) {
    return __builtin_fma(-__builtin_trunc(r * inverse), b, r);
}
// Six steps cover the largest quotient of two floats, 2^277, and leave r in (-b, 2b).
FW_INLINE float fw_fmod_float(float x, float y) {
    double b = fw_abs(y);
    double inverse = 1.0 / b;
    double r = fw_fmod_step(fw_abs(x), b, inverse);
    r = fw_fmod_step(r, b, inverse);
    r = fw_fmod_step(r, b, inverse);
    r = fw_fmod_step(r, b, inverse);
    r = fw_fmod_step(r, b, inverse);
    r = fw_fmod_step(r, b, inverse);
    r = r < 0.0 ? r + b : r;
    r = r >= b ? r - b : r;
    float m = fw_abs(y) == FW_INF && fw_abs(x) < FW_INF ? fw_abs(x) : (float)r;
    return fw_copysign(m, x);
}
FW_INLINE double fw_fmod_float(double x, double y) { return std::fmod(x, y); }
//@end

//@function erfinv needs log poly abs copysign
// x P(w) with w = -log(1 - x^2), in two ranges, after M. B. Giles, "Approximating the erfinv
// function", GPU Computing Gems 2 (2011).
FW_INLINE float fw_erfinv(float x) {
    float a = fw_abs(x);
    float w = -fw_log((1.0f - a) * (1.0f + a));
    float near = fw_poly(w - 2.5f, 1.50140941f, 0.24664028f, -0.00417766673f, -0.00125275541f,
        0.000218574423f, -4.94379674e-06f, -3.52264146e-06f, 4.6005411e-07f, 2.80897385e-08f,
        -8.24644264e-09f);
    float far = fw_poly(__builtin_sqrtf(w) - 3.0f, 2.83297682f, 1.00167525f, 0.00944534596f,
        -0.00764114363f, 0.00568471849f, -0.00358157442f, 0.00149281963f, -8.25977113e-05f,
        -0.000316483871f, 0.000130678047f);
    float r = (w < 5.0f ? near : far) * x;
    return a == 1.0f ? fw_copysign(FW_INF, x) : r;
}
//@double
// The same start (a coarser one far out), then Halley's iteration on erf, or on erfc near 1.
FW_INLINE double fw_erfinv(double x) {
    double a = fw_abs(x);
    if (!(a < 1.0)) return a == 1.0 ? fw_copysign((double)FW_INF, x) : (double)FW_NAN;
    double w = -std::log((1.0 - a) * (1.0 + a));
    float near = fw_poly((float)w - 2.5f, 1.50140941f, 0.24664028f, -0.00417766673f,
        -0.00125275541f, 0.000218574423f, -4.94379674e-06f, -3.52264146e-06f, 4.6005411e-07f,
        2.80897385e-08f, -8.24644264e-09f);
    float far = fw_poly((float)std::sqrt(w) - 4.0f, 3.83973455f, 1.00912309f, 0.00151164446f,
        -6.80959201e-05f, 3.54712538e-05f, -0.000516555039f, 0.000192597581f);
    double y = (w < 5.0 ? near : far) * a;
    for (int step = 0; step < 3; ++step) {
        double miss = a < 0.5 ? a - std::erf(y) : std::erfc(y) - (1.0 - a);
        double newton = miss * 0.886226925452758 * std::exp(y * y);
        y = y + newton / (1.0 - newton * y);
    }
    return fw_copysign(y, x);
}
//@end

//@function digamma needs base
// Recurrence up to 10, then the asymptotic series (Abramowitz and Stegun 6.3.5, 6.3.18);
// reflection (6.3.7) for negative x. -inf at +0, inf at -0, NaN at the other poles, as torch.
static double fw_digamma(double x) {
    if (x == 0.0) return std::copysign((double)FW_INF, -x);
    if (x < 0.0) {
        double part = x - std::trunc(x);
        if (part == 0.0 || x == -(double)FW_INF) return (double)FW_NAN;
        return fw_digamma(1.0 - x) - 3.141592653589793 / std::tan(3.141592653589793 * part);
    }
    double sum = 0.0;
    for (; x < 10.0; x += 1.0) sum -= 1.0 / x;
    double z = 1.0 / (x * x);
    double series = 1.0 / 132.0 - z * (691.0 / 32760.0 - z / 12.0);
    series = 1.0 / 120.0 - z * (1.0 / 252.0 - z * (1.0 / 240.0 - z * series));
    return sum + std::log(x) - 0.5 / x - z * (1.0 / 12.0 - z * series);
}
static inline float fw_digamma(float x) { return (float)fw_digamma((double)x); }
//@end

//@function lgamma needs base
FW_INLINE float fw_lgamma(float x) { return (float)std::lgamma((double)x); }
//@double
FW_INLINE double fw_lgamma(double x) { return std::lgamma(x); }
//@end
