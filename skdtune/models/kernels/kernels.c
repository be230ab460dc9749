/* What torch does slowly on a CPU, in one pass over the memory each.
 *
 * Small networks spend half of a training step on element by element operations that read and
 * write whole feature maps: batch normalisation with ReLU and the sum with a shortcut, the
 * depth-wise convolutions and the gate of the auxiliary classifiers.
 *
 * Maps are dense rows of channels (channels last), bfloat16 or float32; arithmetic is float32, sums
 * over a map go into doubles. One build gives equal results for equal values and numbers of threads.
 *
 * Plain C11 with the vector extensions of GCC and Clang, so that it builds in seconds on any
 * processor. `native.py` builds and loads it.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "vectors.h"

static int num_parts(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

/* The first of `count` rows or images that a part of the threads works on. */
static long first_of(long count, int part, int parts) { return count * part / parts; }

/* Add up, for one channel, the two sums that every part left: its own, and those of the positions
 * that a wider row holds beside it. */
static void total_of(const double *sums, int parts, long channels, long real, long c,
                     double *first, double *second) {
    *first = *second = 0;
    for (int part = 0; part < parts; part++)
        for (long k = c; k < channels; k += real) {
            *first += sums[2 * part * channels + k];
            *second += sums[(2 * part + 1) * channels + k];
        }
}

/* Bring an image into the cache in its order in memory: the loops go through it by channels. */
static inline void fetch_image(const void *image, size_t bytes) {
    for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)image + at);
}

#define T uint16_t
#define LOAD load_bf16
#define STORE store_bf16
#define NAME(name) name##_bf16
#include "batch_norm_act.h"
#include "depthwise.h"
#include "gate.h"
#undef T
#undef LOAD
#undef STORE
#undef NAME

#define T float
#define LOAD load_f32
#define STORE store_f32
#define NAME(name) name##_f32
#include "batch_norm_act.h"
#include "depthwise.h"
#include "gate.h"
