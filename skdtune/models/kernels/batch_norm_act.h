/* Batch normalisation, the sum with a shortcut and ReLU for one type T of the maps.
 *
 * A training forward reads a map twice and writes it once, a backward reads twice what it needs and
 * writes once. A map is `rows` x `channels`. `channels` must be a multiple of 16: narrower maps are
 * given as wider ones with fewer rows, and `fold` says how many positions one such row holds.
 */

#ifndef TILE
#define TILE 128 /* rows summed in float32 before they go into a double */
#endif

/* Add up value - shift and its square over some rows, for `width` vectors of channels. */
#define SUM_BLOCK(WIDTH)                                                                          \
    {                                                                                             \
        vfloat sum[WIDTH] = {0}, square[WIDTH] = {0}, origin[WIDTH];                              \
        for (int w = 0; w < WIDTH; w++) origin[w] = load_f32(shift + c + w * LANES);              \
        for (long r = begin; r < end; r++)                                                        \
            for (int w = 0; w < WIDTH; w++) {                                                     \
                vfloat value = LOAD(x + r * channels + c + w * LANES) - origin[w];                \
                sum[w] += value;                                                                  \
                square[w] += value * value;                                                       \
            }                                                                                     \
        for (int w = 0; w < WIDTH; w++)                                                           \
            for (int i = 0; i < LANES; i++) {                                                     \
                sums[c + w * LANES + i] += sum[w][i];                                             \
                squares[c + w * LANES + i] += square[w][i];                                       \
            }                                                                                     \
        c += WIDTH * LANES;                                                                       \
    }

static void NAME(sum_rows)(const T *x, long first, long last, long channels, const float *shift,
                           double *sums, double *squares) {
    for (long begin = first; begin < last; begin += TILE) {
        long end = begin + TILE < last ? begin + TILE : last;
        long c = 0;
        while (c + 4 * LANES <= channels) SUM_BLOCK(4)
        while (c + 2 * LANES <= channels) SUM_BLOCK(2)
        while (c + LANES <= channels) SUM_BLOCK(1)
    }
}

/* y = relu(x * scale + offset + residual); residual may be absent. */
#define APPLY_BLOCK(WIDTH)                                                                        \
    {                                                                                             \
        vfloat a[WIDTH], b[WIDTH];                                                                \
        for (int w = 0; w < WIDTH; w++) {                                                         \
            a[w] = load_f32(scale + c + w * LANES);                                               \
            b[w] = load_f32(offset + c + w * LANES);                                              \
        }                                                                                         \
        for (long r = begin; r < end; r++)                                                        \
            for (int w = 0; w < WIDTH; w++) {                                                     \
                long at = r * channels + c + w * LANES;                                           \
                vfloat value = LOAD(x + at) * a[w] + b[w];                                        \
                if (residual) value += LOAD(residual + at);                                       \
                STORE(y + at, relu ? relu_of(value) : value);                                     \
            }                                                                                     \
        c += WIDTH * LANES;                                                                       \
    }

static inline __attribute__((always_inline)) void NAME(apply_rows)(
    const T *x, const T *residual, T *y, long first, long last, long channels, const float *scale,
    const float *offset, int relu) {
    for (long begin = first; begin < last; begin += TILE) {
        long end = begin + TILE < last ? begin + TILE : last;
        long c = 0;
        while (c + 4 * LANES <= channels) APPLY_BLOCK(4)
        while (c + 2 * LANES <= channels) APPLY_BLOCK(2)
        while (c + LANES <= channels) APPLY_BLOCK(1)
    }
}

static void NAME(apply)(const T *x, const T *residual, T *y, long rows, long channels,
                        const float *scale, const float *offset, int relu, int parts) {
#pragma omp parallel for num_threads(parts) if (parts > 1)
    for (int part = 0; part < parts; part++) {
        long first = first_of(rows, part, parts), last = first_of(rows, part + 1, parts);
        /* One loop for each case, so that none asks within. */
        if (residual)
            NAME(apply_rows)(x, residual, y, first, last, channels, scale, offset, relu);
        else if (relu)
            NAME(apply_rows)(x, NULL, y, first, last, channels, scale, offset, 1);
        else
            NAME(apply_rows)(x, NULL, y, first, last, channels, scale, offset, 0);
    }
}

/* y = relu((x - mean) / sqrt(variance + eps) * weight + bias + residual) with the batch's moments.
 *
 * The running moments move by `momentum`, the variance by its unbiased form. `saved` takes four
 * times `channels` floats for the backward: scale, offset, mean, one over the standard deviation.
 * `residual` may be absent. Returns 0, or 1 if memory is full.
 */
int NAME(batch_norm_act)(const T *x, const T *residual, T *y, long rows, long channels, long fold,
                  const float *weight, const float *bias, float *running_mean,
                  float *running_variance, double momentum, double eps, int relu, float *saved) {
    int parts = num_parts();
    long real = channels / fold;
    double *sums = calloc((size_t)(2 * parts) * channels, sizeof(double));
    if (!sums) return 1;
    float *scale = saved, *offset = saved + channels;
    float *mean = saved + 2 * channels, *inverse = saved + 3 * channels;
    /* Relative to the first position: a large common value would eat the digits of the square. */
    float *shift = scale;
    for (long c = 0; c < channels; c += LANES) store_f32(shift + c, LOAD(x + c));
    for (long c = real; c < channels; c++) shift[c] = shift[c % real];
#pragma omp parallel for num_threads(parts) if (parts > 1)
    for (int part = 0; part < parts; part++)
        NAME(sum_rows)(x, first_of(rows, part, parts), first_of(rows, part + 1, parts),
                       channels, shift, sums + 2 * part * channels,
                       sums + (2 * part + 1) * channels);
    double count = (double)rows * fold;
    for (long c = 0; c < real; c++) {
        double sum, square;
        total_of(sums, parts, channels, real, c, &sum, &square);
        double distance = sum / count, spread = square / count - distance * distance;
        double average = shift[c] + distance, variance = spread < 0 ? 0 : spread;
        double over = 1 / sqrt(variance + eps);
        double unbiased = count > 1 ? variance * count / (count - 1) : variance;
        running_mean[c] = (float)((1 - momentum) * running_mean[c] + momentum * average);
        running_variance[c] =
            (float)((1 - momentum) * running_variance[c] + momentum * unbiased);
        for (long k = c; k < channels; k += real) {
            scale[k] = (float)(weight[c] * over);
            offset[k] = (float)(bias[c] - average * weight[c] * over);
            mean[k] = (float)average;
            inverse[k] = (float)over;
        }
    }
    free(sums);
    NAME(apply)(x, residual, y, rows, channels, scale, offset, relu, parts);
    return 0;
}

/* The same with given moments, as in evaluation. */
int NAME(batch_norm_act_inference)(const T *x, const T *residual, T *y, long rows, long channels,
                                   long fold, const float *weight, const float *bias,
                                   const float *running_mean, const float *running_variance,
                                   double eps, int relu) {
    long real = channels / fold;
    float *scale = malloc(sizeof(float) * 2 * channels);
    if (!scale) return 1;
    float *offset = scale + channels;
    for (long c = 0; c < channels; c++) {
        double factor = weight[c % real] / sqrt((double)running_variance[c % real] + eps);
        scale[c] = (float)factor;
        offset[c] = (float)(bias[c % real] - running_mean[c % real] * factor);
    }
    NAME(apply)(x, residual, y, rows, channels, scale, offset, relu, num_parts());
    free(scale);
    return 0;
}

/* Sums of the gradient behind ReLU, and of it times x - mean; masked is written where asked for. */
#define GRADIENT_BLOCK(WIDTH)                                                                     \
    {                                                                                             \
        vfloat sum[WIDTH] = {0}, product[WIDTH] = {0}, a[WIDTH], b[WIDTH], m[WIDTH];              \
        for (int w = 0; w < WIDTH; w++) {                                                         \
            a[w] = load_f32(scale + c + w * LANES);                                               \
            b[w] = load_f32(offset + c + w * LANES);                                              \
            m[w] = load_f32(mean + c + w * LANES);                                                \
        }                                                                                         \
        for (long r = begin; r < end; r++)                                                        \
            for (int w = 0; w < WIDTH; w++) {                                                     \
                long at = r * channels + c + w * LANES;                                           \
                vfloat value = LOAD(x + at), gradient = LOAD(g + at);                             \
                if (mode == 1) gradient = passed(value * a[w] + b[w], gradient);            \
                if (mode == 2) {                                                                  \
                    gradient = passed(LOAD(y + at), gradient);                              \
                    STORE(masked + at, gradient);                                                 \
                }                                                                                 \
                sum[w] += gradient;                                                               \
                product[w] += gradient * (value - m[w]);                                          \
            }                                                                                     \
        for (int w = 0; w < WIDTH; w++)                                                           \
            for (int i = 0; i < LANES; i++) {                                                     \
                sums[c + w * LANES + i] += sum[w][i];                                             \
                products[c + w * LANES + i] += product[w][i];                                     \
            }                                                                                     \
        c += WIDTH * LANES;                                                                       \
    }

static inline __attribute__((always_inline)) void NAME(sum_gradients)(
    const T *x, const T *y, const T *g, T *masked, long first, long last, long channels,
    const float *scale, const float *offset, const float *mean, double *sums, double *products,
    const int mode) {
    for (long begin = first; begin < last; begin += TILE) {
        long end = begin + TILE < last ? begin + TILE : last;
        long c = 0;
        while (c + 4 * LANES <= channels) GRADIENT_BLOCK(4)
        while (c + 2 * LANES <= channels) GRADIENT_BLOCK(2)
        while (c + LANES <= channels) GRADIENT_BLOCK(1)
    }
}

/* gradient = g_scale * g + x_scale * x + constant, g behind ReLU. */
#define INPUT_BLOCK(WIDTH)                                                                        \
    {                                                                                             \
        vfloat a[WIDTH], b[WIDTH], p[WIDTH], q[WIDTH], k[WIDTH];                                  \
        for (int w = 0; w < WIDTH; w++) {                                                         \
            a[w] = load_f32(scale + c + w * LANES);                                               \
            b[w] = load_f32(offset + c + w * LANES);                                              \
            p[w] = load_f32(g_scale + c + w * LANES);                                             \
            q[w] = load_f32(x_scale + c + w * LANES);                                             \
            k[w] = load_f32(constant + c + w * LANES);                                            \
        }                                                                                         \
        for (long r = begin; r < end; r++)                                                        \
            for (int w = 0; w < WIDTH; w++) {                                                     \
                long at = r * channels + c + w * LANES;                                           \
                vfloat value = LOAD(x + at), gradient = LOAD(g + at);                             \
                if (mode == 1) gradient = passed(value * a[w] + b[w], gradient);            \
                STORE(out + at, p[w] * gradient + (q[w] * value + k[w]));                         \
            }                                                                                     \
        c += WIDTH * LANES;                                                                       \
    }

static inline __attribute__((always_inline)) void NAME(input_gradients)(
    const T *x, const T *g, T *out, long first, long last, long channels, const float *scale,
    const float *offset, const float *g_scale, const float *x_scale, const float *constant,
    const int mode) {
    for (long begin = first; begin < last; begin += TILE) {
        long end = begin + TILE < last ? begin + TILE : last;
        long c = 0;
        while (c + 2 * LANES <= channels) INPUT_BLOCK(2)
        while (c + LANES <= channels) INPUT_BLOCK(1)
    }
}

/* The backward of a training forward.
 *
 * `saved` is what the forward left. With a residual, `y` is the output and `masked` takes the
 * gradient of the residual; both are absent without. `g_weight` and `g_bias` take channels / fold
 * values. Returns 0, or 1 if memory is full.
 */
int NAME(batch_norm_act_backward)(const T *x, const T *y, const T *g, T *out, T *masked, long rows, long channels,
                   long fold, const float *saved, int relu, float *g_weight, float *g_bias) {
    const float *scale = saved, *offset = saved + channels;
    const float *mean = saved + 2 * channels, *inverse = saved + 3 * channels;
    int parts = num_parts();
    long real = channels / fold;
    int mode = masked ? 2 : relu ? 1 : 0;
    double *sums = calloc((size_t)(2 * parts) * channels, sizeof(double));
    float *factors = malloc(sizeof(float) * 3 * channels);
    if (!sums || !factors) {
        free(sums);
        free(factors);
        return 1;
    }
    float *g_scale = factors, *x_scale = factors + channels, *constant = factors + 2 * channels;
#pragma omp parallel for num_threads(parts) if (parts > 1)
    for (int part = 0; part < parts; part++) {
        long first = first_of(rows, part, parts), last = first_of(rows, part + 1, parts);
        double *s = sums + 2 * part * channels, *p = s + channels;
        if (mode == 2)
            NAME(sum_gradients)(x, y, g, masked, first, last, channels, scale, offset, mean, s, p, 2);
        else if (mode == 1)
            NAME(sum_gradients)(x, y, g, NULL, first, last, channels, scale, offset, mean, s, p, 1);
        else
            NAME(sum_gradients)(x, y, g, NULL, first, last, channels, scale, offset, mean, s, p, 0);
    }
    double count = (double)rows * fold;
    for (long c = 0; c < real; c++) {
        double sum, product;
        total_of(sums, parts, channels, real, c, &sum, &product);
        g_weight[c] = (float)(product * inverse[c]);
        g_bias[c] = (float)sum;
        double on_x = -(double)scale[c] * inverse[c] * inverse[c] * product / count;
        for (long k = c; k < channels; k += real) {
            g_scale[k] = scale[c];
            x_scale[k] = (float)on_x;
            constant[k] = (float)(-scale[c] * sum / count - on_x * mean[c]);
        }
    }
    const T *gradient = masked ? masked : g;
#pragma omp parallel for num_threads(parts) if (parts > 1)
    for (int part = 0; part < parts; part++) {
        long first = first_of(rows, part, parts), last = first_of(rows, part + 1, parts);
        if (mode == 1)
            NAME(input_gradients)(x, gradient, out, first, last, channels, scale, offset, g_scale,
                                  x_scale, constant, 1);
        else
            NAME(input_gradients)(x, gradient, out, first, last, channels, scale, offset, g_scale,
                                  x_scale, constant, 0);
    }
    free(sums);
    free(factors);
    return 0;
}
