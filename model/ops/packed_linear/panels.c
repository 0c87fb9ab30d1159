/* A few rows times a matrix that is cut into panels of columns (model/ops/packed_linear/native.py has the layout).

   For one row this is a stream over the matrix; for several, a panel stays in the cache while groups of rows pass over
   it, their sums in registers. Each sum runs over k in order, whatever rows stand beside it. */

#include "_native.h"

#define WIDTH 16 /* columns of a panel, as in native.py */
#ifdef __AVX512F__
#define LANES 16
#define ROWS 12 /* as many sums as there are registers, less those of the weights */
#else
#define LANES 8
#define ROWS 6
#endif
#define VECTORS (WIDTH / LANES)

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4)));

/* Rows x (rows, k) times one panel (k, WIDTH), plus its biases (WIDTH) or null: the first `columns` go to y. */
static inline __attribute__((always_inline)) void multiply(const int rows, size k, const float *x, const float *panel,
                                                           const float *bias, float *y, size y_row, size columns)
{
    vector sums[ROWS][VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++)
            sums[r][v] = bias ? *(const vector *)(bias + v * LANES) : (vector){0};
    for (size i = 0; i < k; i++) {
        const vector *weights = (const vector *)(panel + i * WIDTH);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < VECTORS; v++)
                sums[r][v] += x[r * k + i] * weights[v];
    }
    for (int r = 0; r < rows; r++) {
        const float *sum = (const float *)sums[r];
        if (columns == WIDTH)
            for (int v = 0; v < VECTORS; v++)
                *(vector *)(y + r * y_row + v * LANES) = sums[r][v];
        else
            for (size c = 0; c < columns; c++)
                y[r * y_row + c] = sum[c];
    }
}

/* x (rows, k) contiguous; panels (ceil(n / WIDTH), k, WIDTH); bias as long as the panels together, or null; y (rows, n) */
void panels_times(size rows, size k, size n, const float *x, const float *panels, const float *bias, float *y,
                  int threads)
{
    size count = (n + WIDTH - 1) / WIDTH;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * k * n > 65536)
    for (size p = 0; p < count; p++) {
        const float *panel = panels + p * k * WIDTH, *biases = bias ? bias + p * WIDTH : 0;
        size columns = n - p * WIDTH < WIDTH ? n - p * WIDTH : WIDTH;
        float *out = y + p * WIDTH;
        for (size r = 0; r < rows; r += ROWS) {
            size left = rows - r;
#define CASE(count) \
    case count: multiply(count, k, x + r * k, panel, biases, out + r * n, n, columns); break;
            switch (left < ROWS ? left : ROWS) {
                CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if ROWS > 6
                CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
            }
        }
    }
}
