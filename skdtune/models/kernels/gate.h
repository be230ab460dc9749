/* y = x * sigmoid(small, bilinearly enlarged) for one type T of the maps.
 *
 * `x` is images x height x width x channels, `small` images x rows x columns x channels. Row i of
 * `x` lies between rows low_i[i] and high_i[i] of `small`, at share part_i[i] of the way; columns
 * likewise. `channels` must be a multiple of 16.
 */

static inline vfloat NAME(enlarged)(const T *small, long columns, long channels, long i0, long i1,
                                    float di, long j0, long j1, float dj) {
    vfloat above = LOAD(small + (i0 * columns + j0) * channels) * (1 - dj) +
                   LOAD(small + (i0 * columns + j1) * channels) * dj;
    vfloat below = LOAD(small + (i1 * columns + j0) * channels) * (1 - dj) +
                   LOAD(small + (i1 * columns + j1) * channels) * dj;
    return above * (1 - di) + below * di;
}

/* Always 0. */
int NAME(gate)(const T *x, const T *small, T *y, long images, long height, long width, long rows,
               long columns, long channels, const int64_t *low_i, const int64_t *high_i,
               const float *part_i, const int64_t *low_j, const int64_t *high_j,
               const float *part_j) {
    int parts = num_parts();
#pragma omp parallel for num_threads(parts) if (parts > 1)
    for (int part = 0; part < parts; part++)
        for (long n = first_of(images, part, parts); n < first_of(images, part + 1, parts); n++)
            for (long i = 0; i < height; i++)
                for (long j = 0; j < width; j++)
                    for (long c = 0; c < channels; c += LANES) {
                        long at = ((n * height + i) * width + j) * channels + c;
                        vfloat gate = sigmoid_of(NAME(enlarged)(
                            small + n * rows * columns * channels + c, columns, channels,
                            low_i[i], high_i[i], part_i[i], low_j[j], high_j[j], part_j[j]));
                        STORE(y + at, LOAD(x + at) * gate);
                    }
    return 0;
}

/* Gradients of x and of small. 0, or 1 if memory is full. */
int NAME(gate_backward)(const T *x, const T *small, const T *g, T *g_x, T *g_small, long images,
                        long height, long width, long rows, long columns, long channels,
                        const int64_t *low_i, const int64_t *high_i, const float *part_i,
                        const int64_t *low_j, const int64_t *high_j, const float *part_j) {
    int parts = num_parts();
    float *gradients = malloc(sizeof(float) * parts * rows * columns * LANES);
    if (!gradients) return 1;
#pragma omp parallel for num_threads(parts) if (parts > 1)
    for (int part = 0; part < parts; part++) {
        float *image = gradients + part * rows * columns * LANES;
        for (long n = first_of(images, part, parts); n < first_of(images, part + 1, parts); n++) {
            fetch_image(x + n * height * width * channels, height * width * channels * sizeof(T));
            fetch_image(g + n * height * width * channels, height * width * channels * sizeof(T));
            for (long c = 0; c < channels; c += LANES) {
                const T *from = small + n * rows * columns * channels + c;
                memset(image, 0, sizeof(float) * rows * columns * LANES);
                for (long i = 0; i < height; i++)
                    for (long j = 0; j < width; j++) {
                        long at = ((n * height + i) * width + j) * channels + c;
                        long i0 = low_i[i], i1 = high_i[i], j0 = low_j[j], j1 = high_j[j];
                        float di = part_i[i], dj = part_j[j];
                        vfloat gate = sigmoid_of(NAME(enlarged)(from, columns, channels, i0, i1,
                                                                di, j0, j1, dj));
                        vfloat gradient = LOAD(g + at);
                        STORE(g_x + at, gradient * gate);
                        vfloat inner = gradient * LOAD(x + at) * gate * (1.0f - gate);
                        float *cell[4] = {
                            image + (i0 * columns + j0) * LANES, image + (i0 * columns + j1) * LANES,
                            image + (i1 * columns + j0) * LANES, image + (i1 * columns + j1) * LANES};
                        float share[4] = {(1 - di) * (1 - dj), (1 - di) * dj, di * (1 - dj), di * dj};
                        for (int k = 0; k < 4; k++)
                            store_f32(cell[k], load_f32(cell[k]) + inner * share[k]);
                    }
                for (long at = 0; at < rows * columns; at++)
                    STORE(g_small + (n * rows * columns + at) * channels + c,
                          load_f32(image + at * LANES));
            }
        }
    }
    free(gradients);
    return 0;
}
