/* What the scan multiplies in bf16. Rows of `wide` numbers have headdim of them, of `deep` ones dstate: whole tiles, the rest
   zero. States are kept in pairs of their rows: (dstate / 2, headdim, 2), whole tiles too. */
#ifndef OPERANDS_H
#define OPERANDS_H
#include "chunk.h"
#include "product_bf16.h"
#ifdef BF16_PRODUCTS

static inline bf16 *take_bf16(float **room, size count) { return (bf16 *)take(room, (count + 1) / 2); }
static inline pair *take_pairs(float **room, size count) { return (pair *)take(room, count); }

static inline size size_of_state(const struct scan *scan)
{
    return whole_tiles(scan->dstate) / 2 * whole_tiles(scan->headdim);
}

/* Rows of a chunk, those beyond its positions zero: (LENGTH, whole_tiles(width)). */
static inline void rows_of(const struct chunk *chunk, const bf16 *from, size row, size width, bf16 *to)
{
    size wide = whole_tiles(width);
    from += chunk->at * row;
    for (size l = 0; l < LENGTH; l++)
        for (size i = 0; i < wide; i += 16) {
            size left = l < chunk->count ? width - i : 0;
            _mm256_storeu_si256((__m256i *)(to + l * wide + i), load_bf16(from + l * row + i, left));
        }
}

/* The same rows times a weight each, in pairs: (LENGTH / 2, whole_tiles(width)). */
static inline void weighted_pairs(const struct chunk *chunk, const bf16 *from, size row, size width, const float *weights,
                                  pair *to)
{
    size wide = whole_tiles(width);
    from += chunk->at * row;
    for (size l = 0; l < LENGTH; l += 2)
        for (size i = 0; i < wide; i += 16) {
            __m256i rows[2];
            for (size r = 0; r < 2; r++) {
                int is = l + r < chunk->count;
                __m512 numbers = widened_16(load_bf16(from + (l + r) * row + i, is ? width - i : 0));
                rows[r] = rounded_16(_mm512_mul_ps(numbers, _mm512_set1_ps(is ? weights[l + r] : 0.0f)));
            }
            _mm512_storeu_si512(to + l / 2 * wide + i, paired(rows[0], rows[1]));
        }
}

/* Room for `advance`, in floats. */
static inline size room_to_advance(size headdim) { return LENGTH / 2 * (2 * BLOCK + whole_tiles(headdim)) + BLOCK * LENGTH / 2; }

/* `count` rows of a state, which has decayed, by a chunk: += maps^T (weights rows). maps: the first of these rows' numbers
   of the first position; a position's are `row` apart, as are the chunk's rows `rows_row`. */
static inline void advance(const struct chunk *chunk, size count, const bf16 *maps, size row, const bf16 *rows,
                           size rows_row, size headdim, const float *weights, float *state, float *room, int tiles)
{
    size wide = whole_tiles(headdim), high = whole_tiles(count);
    bf16 *here = take_bf16(&room, LENGTH * BLOCK), *maps_t = take_bf16(&room, BLOCK * LENGTH);
    pair *pairs = take_pairs(&room, LENGTH / 2 * BLOCK), *moved = take_pairs(&room, LENGTH / 2 * wide);
    rows_of(chunk, maps, row, count, here);
    pair_rows(LENGTH, high, here, high, pairs, high);
    transpose_pairs(LENGTH / 2, high, pairs, high, maps_t, LENGTH / 2);
    weighted_pairs(chunk, rows, rows_row, headdim, weights, moved);
    product_bf16(tiles, high, wide, LENGTH, maps_t, LENGTH, moved, wide, state, wide, 1);
}

/* A copy, in pairs, of `count` rows of a state, which then decay. */
static inline void keep_pairs_and_decay(float *state, size count, size wide, float across, pair *kept)
{
    __m512 decay = _mm512_set1_ps(across);
    for (size n = 0; n < whole_tiles(count); n += 2)
        for (size p = 0; p < wide; p += 16) {
            float *upper = state + n * wide + p, *lower = upper + wide;
            __m512 a = _mm512_loadu_ps(upper), b = _mm512_loadu_ps(lower);
            _mm512_storeu_si512(kept + n / 2 * wide + p, paired(rounded_16(a), rounded_16(b)));
            _mm512_storeu_ps(upper, _mm512_mul_ps(a, decay));
            _mm512_storeu_ps(lower, _mm512_mul_ps(b, decay));
        }
}

/* c (LENGTH, LENGTH) = a (LENGTH, k) b (k, LENGTH), of which what lies beyond the diagonal is not needed. */
static inline void product_below(int tiles, size k, const bf16 *a, const pair *b, float *c)
{
    for (size i = 0; i < LENGTH; i += 32)
        product_bf16(tiles, 32, i + 32, k, a + i * k, k, b, LENGTH, c + i * LENGTH, LENGTH, 0);
}

/* c (LENGTH, width) += a b, where a (LENGTH, LENGTH) is zero beyond the diagonal. */
static inline void add_product_from_before(int tiles, size width, const bf16 *a, const pair *b, float *c)
{
    for (size i = 0; i < LENGTH; i += 32)
        product_bf16(tiles, 32, width, i + 32, a + i * LENGTH, LENGTH, b, width, c + i * width, width, 1);
}

/* c (LENGTH, width) = or += a b, where a (LENGTH, LENGTH) is zero before the diagonal. */
static inline void product_from_after(int tiles, size width, const bf16 *a, const pair *b, float *c, int add)
{
    for (size i = 0; i < LENGTH; i += 32)
        product_bf16(tiles, 32, width, LENGTH - i, a + i * LENGTH + i, LENGTH, b + i / 2 * width, width, c + i * width, width,
                     add);
}

#endif
#endif
