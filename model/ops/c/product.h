/* Products of small matrices that lie in the cache, rows of the second and of the result in vectors. */
#ifndef PRODUCT_H
#define PRODUCT_H
#include "scalar.h"
#include "vector.h"

#ifdef __AVX512F__
#define TILE 8 /* rows of a tile: with two vectors of sums each, as many as there are registers for */
#else
#define TILE 6
#endif

static inline size whole_vectors(size width) { return (width + LANES - 1) / LANES * LANES; }

/* c (rows, vectors * LANES) = or += a (rows, k) b (k, vectors * LANES); the sums stay in registers. */
static inline __attribute__((always_inline)) void tile(const int rows, const int vectors, size k, const float *a,
                                                       size a_row, size a_step, const float *b, size b_row, float *c,
                                                       size c_row, int add)
{
    vector sums[TILE * 2];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sums[r * vectors + v] = add ? ((const vector *)(c + r * c_row))[v] : (vector){0};
    for (size i = 0; i < k; i++)
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++)
                sums[r * vectors + v] += a[r * a_row + i * a_step] * ((const vector *)(b + i * b_row))[v];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            ((vector *)(c + r * c_row))[v] = sums[r * vectors + v];
}

#define ROWS(rows, vectors) \
    case rows: \
        tile(rows, vectors, k, a, a_row, a_step, b, b_row, c, c_row, add); \
        break;

static inline __attribute__((always_inline)) void tile_of(size rows, const int vectors, size k, const float *a,
                                                          size a_row, size a_step, const float *b, size b_row, float *c,
                                                          size c_row, int add)
{
    switch (rows) {
        ROWS(1, vectors) ROWS(2, vectors) ROWS(3, vectors) ROWS(4, vectors) ROWS(5, vectors) ROWS(6, vectors)
#if TILE == 8
        ROWS(7, vectors) ROWS(8, vectors)
#endif
    }
}

/* c (m, n) = a (m, k) b (k, n), or += with `add`. n counts whole vectors. a[i * a_row + j * a_step]: transposed if one
   likes; b and c have rows of consecutive numbers, `b_row` and `c_row` apart. */
static void product(size m, size n, size k, const float *a, size a_row, size a_step, const float *b, size b_row,
                    float *c, size c_row, int add)
{
    for (size j = 0; j < n; j += 2 * LANES)
        for (size i = 0; i < m; i += TILE) {
            size rows = m - i < TILE ? m - i : TILE;
            const float *a_now = a + i * a_row;
            float *c_now = c + i * c_row + j;
            if (n - j > LANES)
                tile_of(rows, 2, k, a_now, a_row, a_step, b + j, b_row, c_now, c_row, add);
            else
                tile_of(rows, 1, k, a_now, a_row, a_step, b + j, b_row, c_now, c_row, add);
        }
}

/* from (rows, columns) -> to (columns, rows). */
static inline void transpose(size rows, size columns, const float *from, size from_row, float *to, size to_row)
{
    for (size i = 0; i < rows; i += 8)
        for (size j = 0; j < columns; j++)
            for (size r = i; r < i + 8 && r < rows; r++)
                to[j * to_row + r] = from[r * from_row + j];
}

#endif
