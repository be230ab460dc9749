/* Depth-wise 3x3 convolutions with padding 1 for one type T of the maps.
 *
 * `x` is images x height x width x channels, `y` the same with ceil(height / stride) and so on,
 * `taps` float32 of 9 x channels. `channels` must be a multiple of 16.
 */

/* The taps that meet the image: k from first to last with position * stride + k - 1 inside. */
static inline void NAME(taps_inside)(long position, long stride, long size, long *first,
                                     long *last) {
    long at = position * stride - 1;
    *first = at < 0 ? 1 : 0;
    *last = at + 2 >= size ? size - 1 - at : 2;
}

/* Always 0. */
int NAME(depthwise)(const T *x, const float *taps, T *y, long images, long height, long width,
                     long channels, long stride) {
    long out_height = (height + stride - 1) / stride, out_width = (width + stride - 1) / stride;
    int parts = num_parts();
#pragma omp parallel for num_threads(parts) if (parts > 1)
    for (int part = 0; part < parts; part++)
        for (long n = first_of(images, part, parts); n < first_of(images, part + 1, parts); n++)
            for (long i = 0; i < out_height; i++) {
                long top, bottom;
                NAME(taps_inside)(i, stride, height, &top, &bottom);
                for (long c = 0; c < channels; c += LANES) {
                    vfloat tap[9];
                    for (int k = 0; k < 9; k++) tap[k] = load_f32(taps + k * channels + c);
                    for (long j = 0; j < out_width; j++) {
                        long left, right;
                        NAME(taps_inside)(j, stride, width, &left, &right);
                        vfloat sum = {0};
                        for (long u = top; u <= bottom; u++) {
                            const T *row =
                                x + ((n * height + i * stride + u - 1) * width) * channels + c;
                            for (long v = left; v <= right; v++)
                                sum += LOAD(row + (j * stride + v - 1) * channels) *
                                       tap[u * 3 + v];
                        }
                        STORE(y + ((n * out_height + i) * out_width + j) * channels + c, sum);
                    }
                }
            }
    return 0;
}

/* Gradients of the input, and of the taps (double, 9 x channels). 0, or 1 if memory is full. */
int NAME(depthwise_backward)(const T *x, const float *taps, const T *g, T *g_x, double *g_taps,
                             long images, long height, long width, long channels, long stride) {
    long out_height = (height + stride - 1) / stride, out_width = (width + stride - 1) / stride;
    int parts = num_parts();
    double *sums = calloc((size_t)(9 * parts) * channels, sizeof(double));
    float *gradients = malloc(sizeof(float) * parts * height * width * LANES);
    if (!sums || !gradients) {
        free(sums);
        free(gradients);
        return 1;
    }
#pragma omp parallel for num_threads(parts) if (parts > 1)
    for (int part = 0; part < parts; part++) {
        double *own = sums + 9 * part * channels;
        /* The gradient of one image and sixteen channels stays in the fastest memory. */
        float *image = gradients + part * height * width * LANES;
        for (long n = first_of(images, part, parts); n < first_of(images, part + 1, parts); n++) {
            fetch_image(x + n * height * width * channels, height * width * channels * sizeof(T));
            fetch_image(g + n * out_height * out_width * channels,
                        out_height * out_width * channels * sizeof(T));
            for (long c = 0; c < channels; c += LANES) {
                vfloat tap[9], sum[9] = {0};
                for (int k = 0; k < 9; k++) tap[k] = load_f32(taps + k * channels + c);
                memset(image, 0, sizeof(float) * height * width * LANES);
                for (long i = 0; i < out_height; i++) {
                    long top, bottom;
                    NAME(taps_inside)(i, stride, height, &top, &bottom);
                    for (long j = 0; j < out_width; j++) {
                        long left, right;
                        NAME(taps_inside)(j, stride, width, &left, &right);
                        vfloat gradient =
                            LOAD(g + ((n * out_height + i) * out_width + j) * channels + c);
                        for (long u = top; u <= bottom; u++)
                            for (long v = left; v <= right; v++) {
                                long at = (i * stride + u - 1) * width + j * stride + v - 1;
                                float *cell = image + at * LANES;
                                store_f32(cell, load_f32(cell) + gradient * tap[u * 3 + v]);
                                sum[u * 3 + v] +=
                                    gradient * LOAD(x + (n * height * width + at) * channels + c);
                            }
                    }
                }
                for (long at = 0; at < height * width; at++)
                    STORE(g_x + (n * height * width + at) * channels + c,
                          load_f32(image + at * LANES));
                for (int k = 0; k < 9; k++)
                    for (int lane = 0; lane < LANES; lane++)
                        own[k * channels + c + lane] += sum[k][lane];
            }
        }
    }
    for (long k = 0; k < 9 * channels; k++) {
        g_taps[k] = 0;
        for (int part = 0; part < parts; part++) g_taps[k] += sums[9 * part * channels + k];
    }
    free(sums);
    free(gradients);
    return 0;
}
