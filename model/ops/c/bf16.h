/* bf16 in memory: the upper half of an fp32 number. */
#ifndef BF16_H
#define BF16_H
#include "scalar.h"

typedef unsigned short bf16;

static inline float widened(bf16 number)
{
    unsigned bits = (unsigned)number << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

/* To the nearest, of two the even one, as torch does. */
static inline bf16 rounded(float number)
{
    unsigned bits;
    memcpy(&bits, &number, sizeof bits);
    unsigned up = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return number != number ? 0x7fc0 : up;
}

static inline void round_row(const float *from, size count, bf16 *to)
{
    for (size i = 0; i < count; i++)
        to[i] = rounded(from[i]);
}

/* The numbers from `at` on, of fp32 or (`half`) bf16, as fp32: where they lie or in `room`. */
static inline const float *read_row(const void *from, size at, size count, int half, float *room)
{
    if (!half)
        return (const float *)from + at;
    for (size i = 0; i < count; i++)
        room[i] = widened(((const bf16 *)from)[at + i]);
    return room;
}

/* Where to write fp32 that `write_row` brings to `to`: there, or in `room`. */
static inline float *row_to_write(void *to, size at, int half, float *room) { return half ? room : (float *)to + at; }

static inline void write_row(const float *row, size count, void *to, size at, int half)
{
    if (half)
        round_row(row, count, (bf16 *)to + at);
    else if (row != (float *)to + at)
        memcpy((float *)to + at, row, sizeof(float) * count);
}

#endif
