/* Products of small bf16 matrices that lie in the cache, with sums in fp32, where the processor multiplies bf16.

   The first matrix has rows of bf16; the second comes in pairs: a row of 32-bit numbers holds two of its rows, the upper
   one in the lower halves. Rows, columns and the length of the sums are multiples of 32: whole_tiles. */
#ifndef PRODUCT_BF16_H
#define PRODUCT_BF16_H
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define BF16_PRODUCTS
#include "bf16.h"
#include <immintrin.h>

#if defined(__AMX_BF16__) && defined(__linux__)
#define AMX
#include <sys/syscall.h>
long syscall(long number, ...);
#endif

typedef unsigned pair;

static inline size whole_tiles(size width) { return (width + 31) / 32 * 32; }

/* Whether this process may use the tile registers (AMX): Linux grants them to those who ask. */
static inline int ask_for_tiles(void)
{
#ifdef AMX
    return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
#else
    return 0;
#endif
}

struct tiles {
    unsigned char bytes[64];
};

/* Eight tiles of 16 rows of 64 bytes each, for this thread. Returns what they were: others' libraries (torch's) may rely
   on it, so `reset_tiles` brings it back. */
static inline struct tiles set_tiles(int tiles)
{
    struct tiles before = {{0}};
#ifdef AMX
    if (tiles) {
        struct tiles now = {{1}};
        for (int i = 0; i < 8; i++) {
            now.bytes[16 + 2 * i] = 64;
            now.bytes[48 + i] = 16;
        }
        /* GCC 12's own functions tell it of the first 8 bytes only. */
        __asm__ volatile("sttilecfg %0" : "=m"(before));
        __asm__ volatile("ldtilecfg %0" : : "m"(now));
    }
#else
    (void)tiles;
#endif
    return before;
}

static inline void reset_tiles(int tiles, struct tiles before)
{
#ifdef AMX
    if (tiles)
        __asm__ volatile("ldtilecfg %0" : : "m"(before));
#else
    (void)tiles, (void)before;
#endif
}

#ifdef AMX
/* c (32, 32) = or += a (32, k) b (k, 32) */
static inline void block_in_tiles(size k, const bf16 *a, size a_row, const pair *b, size b_row, float *c, size c_row,
                                  int add)
{
    __asm__ volatile("" : : : "memory"); /* GCC 12 does not know that tiles are loaded from memory */
    if (add) {
        _tile_loadd(0, c, 4 * c_row);
        _tile_loadd(1, c + 16, 4 * c_row);
        _tile_loadd(2, c + 16 * c_row, 4 * c_row);
        _tile_loadd(3, c + 16 * c_row + 16, 4 * c_row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (size i = 0; i < k; i += 32) {
        _tile_loadd(4, a + i, 2 * a_row);
        _tile_loadd(6, b + i / 2 * b_row, 4 * b_row);
        _tile_loadd(7, b + i / 2 * b_row + 16, 4 * b_row);
        _tile_loadd(5, a + 16 * a_row + i, 2 * a_row);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, 4 * c_row);
    _tile_stored(1, c + 16, 4 * c_row);
    _tile_stored(2, c + 16 * c_row, 4 * c_row);
    _tile_stored(3, c + 16 * c_row + 16, 4 * c_row);
}
#endif

/* c (8, 32) likewise, in vectors. */
static inline void block_in_vectors(size k, const bf16 *a, size a_row, const pair *b, size b_row, float *c, size c_row,
                                    int add)
{
    __m512 sums[8][2];
    for (int r = 0; r < 8; r++)
        for (int v = 0; v < 2; v++)
            sums[r][v] = add ? _mm512_loadu_ps(c + r * c_row + 16 * v) : _mm512_setzero_ps();
    for (size i = 0; i < k; i += 2) {
        __m512bh left = (__m512bh)_mm512_loadu_si512(b + i / 2 * b_row);
        __m512bh right = (__m512bh)_mm512_loadu_si512(b + i / 2 * b_row + 16);
        for (int r = 0; r < 8; r++) {
            int two;
            memcpy(&two, a + r * a_row + i, sizeof two);
            sums[r][0] = _mm512_dpbf16_ps(sums[r][0], (__m512bh)_mm512_set1_epi32(two), left);
            sums[r][1] = _mm512_dpbf16_ps(sums[r][1], (__m512bh)_mm512_set1_epi32(two), right);
        }
    }
    for (int r = 0; r < 8; r++)
        for (int v = 0; v < 2; v++)
            _mm512_storeu_ps(c + r * c_row + 16 * v, sums[r][v]);
}

/* c (m, n) = a (m, k) b (k, n), or += with `add`; rows are a_row, b_row and c_row numbers apart. */
static void product_bf16(int tiles, size m, size n, size k, const bf16 *a, size a_row, const pair *b, size b_row, float *c,
                         size c_row, int add)
{
    for (size i = 0; i < m; i += 32)
        for (size j = 0; j < n; j += 32) {
#ifdef AMX
            if (tiles) {
                block_in_tiles(k, a + i * a_row, a_row, b + j, b_row, c + i * c_row + j, c_row, add);
                continue;
            }
#endif
            for (size r = i; r < i + 32; r += 8)
                block_in_vectors(k, a + r * a_row, a_row, b + j, b_row, c + r * c_row + j, c_row, add);
        }
}

/* 16 numbers, those beyond `left` zero. */
static inline __m256i load_bf16(const bf16 *from, size left)
{
    return left <= 0 ? _mm256_setzero_si256() : _mm256_maskz_loadu_epi16(left < 16 ? (1u << left) - 1 : 0xffff, from);
}

static inline __m512 widened_16(__m256i numbers)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(numbers), 16));
}

static inline __m512i paired(__m256i upper, __m256i lower)
{
    return _mm512_or_si512(_mm512_cvtepu16_epi32(upper), _mm512_slli_epi32(_mm512_cvtepu16_epi32(lower), 16));
}

static inline __m256i rounded_16(__m512 numbers) { return (__m256i)_mm512_cvtneps_pbh(numbers); }

/* `rows` rows of bf16, in pairs; `columns` a multiple of 16. */
static inline void pair_rows(size rows, size columns, const bf16 *from, size from_row, pair *to, size to_row)
{
    for (size i = 0; i < rows; i += 2)
        for (size j = 0; j < columns; j += 16) {
            const bf16 *upper = from + i * from_row + j;
            __m512i both = paired(load_bf16(upper, 16), load_bf16(upper + from_row, 16));
            _mm512_storeu_si512(to + i / 2 * to_row + j, both);
        }
}

/* (rows, columns) -> (columns, rows), multiples of 16, of pairs: what has rows of bf16 becomes the pairs of its transpose,
   and pairs become the rows of theirs. */
static void transpose_pairs(size rows, size columns, const void *from, size from_row, void *to, size to_row)
{
    for (size i = 0; i < rows; i += 16)
        for (size j = 0; j < columns; j += 16) {
            __m512i a[16], b[16];
            for (int r = 0; r < 16; r++)
                a[r] = _mm512_loadu_si512((const pair *)from + (i + r) * from_row + j);
            for (int r = 0; r < 16; r += 2) {
                b[r] = _mm512_unpacklo_epi32(a[r], a[r + 1]);
                b[r + 1] = _mm512_unpackhi_epi32(a[r], a[r + 1]);
            }
            for (int r = 0; r < 16; r += 4)
                for (int s = 0; s < 2; s++) { /* columns 2 s and 2 s + 1 of each four, four rows */
                    a[r + 2 * s] = _mm512_unpacklo_epi64(b[r + s], b[r + s + 2]);
                    a[r + 2 * s + 1] = _mm512_unpackhi_epi64(b[r + s], b[r + s + 2]);
                }
            for (int s = 0; s < 4; s++) { /* column s of each four */
                __m512i upper = _mm512_shuffle_i32x4(a[s], a[s + 4], 0x88), below = _mm512_shuffle_i32x4(a[s], a[s + 4], 0xdd);
                __m512i lower = _mm512_shuffle_i32x4(a[s + 8], a[s + 12], 0x88);
                __m512i last = _mm512_shuffle_i32x4(a[s + 8], a[s + 12], 0xdd);
                pair *at = (pair *)to + (j + s) * to_row + i;
                _mm512_storeu_si512(at, _mm512_shuffle_i32x4(upper, lower, 0x88));
                _mm512_storeu_si512(at + 4 * to_row, _mm512_shuffle_i32x4(below, last, 0x88));
                _mm512_storeu_si512(at + 8 * to_row, _mm512_shuffle_i32x4(upper, lower, 0xdd));
                _mm512_storeu_si512(at + 12 * to_row, _mm512_shuffle_i32x4(below, last, 0xdd));
            }
        }
}

#endif
#endif
