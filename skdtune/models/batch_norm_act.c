/* Batch normalisation, the sum with a shortcut and ReLU in one pass over the memory.
 *
 * Small networks spend half of a training step on these element by element operations, each of
 * which reads and writes whole feature maps. Here a training forward reads a map twice and writes
 * it once, a backward reads twice what it needs and writes once.
 *
 * Maps are dense rows of channels (channels last): `rows` x `channels`, bfloat16 or float32.
 * Arithmetic is float32, sums over rows are double. Results depend on nothing but the values and
 * the number of threads. `channels` must be a multiple of 16: narrower maps are given as wider ones
 * with fewer rows, and `fold` says how many positions one such row holds.
 *
 * Plain C11 with the vector extensions of GCC and Clang, so that it builds in a second on any
 * processor.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define LANES 16
#define TILE 128 /* rows summed in float32 before they go into a double */

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

static int num_parts(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

static long first_row(long rows, int part, int parts) { return rows * part / parts; }

#define T uint16_t
#define LOAD load_bf16
#define STORE store_bf16
#define NAME(name) name##_bf16
#include "batch_norm_act_passes.h"
#undef T
#undef LOAD
#undef STORE
#undef NAME

#define T float
#define LOAD load_f32
#define STORE store_f32
#define NAME(name) name##_f32
#include "batch_norm_act_passes.h"
