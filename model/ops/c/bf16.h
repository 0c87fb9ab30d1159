/* bf16 in memory: the upper half of an fp32 number. */
#ifndef BF16_H
#define BF16_H
#include <string.h>

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

#endif
