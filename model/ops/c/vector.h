/* As many floats as the processor computes with at once. */
#ifndef VECTOR_H
#define VECTOR_H

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4)));

#endif
