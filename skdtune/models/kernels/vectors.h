/* Sixteen float32 at once, loaded from and stored as bfloat16 or float32. */

#define LANES 16

typedef float vfloat __attribute__((vector_size(LANES * 4)));
typedef int32_t vint __attribute__((vector_size(LANES * 4)));
typedef uint32_t vuint __attribute__((vector_size(LANES * 4)));
typedef uint16_t vhalf __attribute__((vector_size(LANES * 2)));

static inline vfloat load_f32(const float *from) {
    vfloat value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline void store_f32(float *to, vfloat value) { memcpy(to, &value, sizeof value); }

static inline vfloat load_bf16(const uint16_t *from) {
    vhalf half;
    memcpy(&half, from, sizeof half);
    return (vfloat)(__builtin_convertvector(half, vuint) << 16);
}

static inline void store_bf16(uint16_t *to, vfloat value) {
    vuint bits = (vuint)value;
    /* To the nearest, ties to even; a NaN keeps its sign and stays one. */
    vuint rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    vuint is_nan = (vuint)(value != value);
    rounded = (is_nan & ((bits >> 16) | 0x40u)) | (~is_nan & rounded);
    vhalf half = __builtin_convertvector(rounded, vhalf);
    memcpy(to, &half, sizeof half);
}

/* Values where `keep` is true, zero elsewhere. */
static inline vfloat where(vint keep, vfloat value) { return (vfloat)((vint)value & keep); }

/* ReLU that lets a NaN through, as torch's does. */
static inline vfloat relu_of(vfloat value) { return where(~(value < 0.0f), value); }

/* The gradient before ReLU of what came out of it; behind a NaN it stays, as torch's does. */
static inline vfloat passed(vfloat output, vfloat gradient) {
    return where(~(output <= 0.0f), gradient);
}

static inline vfloat chosen(vint first, vfloat one, vfloat other) {
    return (vfloat)((first & (vint)one) | (~first & (vint)other));
}

/* 1 / (1 + exp(-x)), right to a few units of the last place of float32. */
static inline vfloat sigmoid_of(vfloat x) {
    vfloat y = -x;
    /* Beyond, the result is 0 or 1 in float32; a comparison with a NaN is false and keeps it. */
    y = chosen(y > 87.0f, (vfloat){0} + 87.0f, y);
    y = chosen(y < -87.0f, (vfloat){0} - 87.0f, y);
    /* exp(y) = 2^n exp(r), n the whole number nearest to y / ln 2, |r| at most ln 2 / 2. */
    vfloat scaled = y * 1.44269504088896f;
    vfloat half = chosen(scaled < 0.0f, (vfloat){0} - 0.5f, (vfloat){0} + 0.5f);
    vint n = __builtin_convertvector(scaled + half, vint);
    vfloat whole = __builtin_convertvector(n, vfloat);
    vfloat r = (y - whole * 0.693359375f) + whole * 2.12194440e-4f;
    vfloat p = ((((r * 1.9875691500e-4f + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r +
                 4.1665795894e-2f) * r + 1.6666665459e-1f) * r + 5.0000001201e-1f;
    vfloat exponential = (p * r * r + r + 1.0f) * (vfloat)((n + 127) << 23);
    return 1.0f / (1.0f + exponential);
}
