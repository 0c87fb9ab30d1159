/* A scan, cut into chunks of at most 64 positions, and the decays within one (model/ops/ssd/torch.py has the meaning).

   Where a function has no length, LENGTH is meant: rows of a chunk's matrices are that far apart. */
#ifndef CHUNK_H
#define CHUNK_H
#include "bf16.h"
#include "product.h"

#define LENGTH 64
#define SMALLEST -1000.0 /* of step A: e^-1000 is zero, and sums of larger ones lose the small terms beside them */
#define BLOCK 64 /* rows of a state that one task carries along the sequence */

struct scan {
    size batch, seqlen, nheads, headdim, ngroups, dstate;
    union { const float *x; const bf16 *x_bf16; }; /* (batch, seqlen, nheads, headdim) */
    const float *step, *A;                 /* (batch, seqlen, nheads), (nheads) */
    union { const float *B; const bf16 *B_bf16; }; /* (batch, seqlen, ngroups, dstate) */
    union { const float *C; const bf16 *C_bf16; };
    const float *D;                        /* (nheads) or null */
    const int *seq_idx;                    /* (batch, seqlen) or null */
};

struct chunk {
    size b, c, first, count;               /* row, number in it, first position of the row, positions */
    size at;                               /* first position of all rows */
};

static inline size chunks_of(const struct scan *scan) { return (scan->seqlen + LENGTH - 1) / LENGTH; }

static inline struct chunk chunk_at(const struct scan *scan, size b, size c)
{
    size first = c * LENGTH, left = scan->seqlen - first;
    return (struct chunk){b, c, first, left < LENGTH ? left : LENGTH, b * scan->seqlen + first};
}

/* Rows of a head's state that one task carries along the sequence. */
struct block {
    size b, h, g;                          /* row, head, its group */
    size n, count;                         /* first row of the state, rows */
    size whole;                            /* where the head's state begins in (batch, nheads, headdim, dstate) */
};

static inline size blocks_of_state(const struct scan *scan) { return (scan->dstate + BLOCK - 1) / BLOCK; }

static inline size blocks_of(const struct scan *scan) { return scan->batch * scan->nheads * blocks_of_state(scan); }

static inline struct block block_at(const struct scan *scan, size task)
{
    size blocks = blocks_of_state(scan), head = task / blocks, h = head % scan->nheads, n = task % blocks * BLOCK;
    size left = scan->dstate - n, g = h / (scan->nheads / scan->ngroups);
    return (struct block){head / scan->nheads, h, g, n, left < BLOCK ? left : BLOCK, head * scan->headdim * scan->dstate};
}

/* The decays of one head. A factor is zero where another document lies between. */
struct decays {
    float sums[LENGTH], rest[LENGTH];      /* of step A, from the chunk's start through a position, each in two floats: the
                                              difference of two long sums keeps the short one between them */
    float step[LENGTH];
    float from_start[LENGTH], to_end[LENGTH], across; /* of the state before, at a position; of a position, at the end */
    size document[LENGTH];                 /* where a position's document begins in this chunk */
};

/* step A, of which the sums are made. */
static inline double exponent_of(double step, double A) { return step * A < SMALLEST ? SMALLEST : step * A; /* NaN stays */ }

static void decays(const struct scan *scan, const struct chunk *chunk, size h, struct decays *to)
{
    double sum = 0.0, A = scan->A[h];
    size end = chunk->count - 1;
    for (size l = 0; l <= end; l++) {
        to->step[l] = scan->step[(chunk->at + l) * scan->nheads + h];
        sum += exponent_of(to->step[l], A);
        to->sums[l] = (float)sum;
        to->rest[l] = (float)(sum - to->sums[l]);
        to->document[l] = 0;
    }
    for (size l = 0; l <= end; l++) {
        to->from_start[l] = exponential(to->sums[l]);
        to->to_end[l] = exponential(to->sums[end] - to->sums[l] + (to->rest[end] - to->rest[l]));
    }
    to->across = to->from_start[end];
    if (!scan->seq_idx)
        return;
    const int *document = scan->seq_idx + chunk->at;
    int before = document[chunk->first ? -1 : 0], last = document[end];
    for (size l = 0; l <= end; l++) {
        if (l)
            to->document[l] = document[l] == document[l - 1] ? to->document[l - 1] : l;
        if (document[l] != before)
            to->from_start[l] = 0.0f;
        if (document[l] != last)
            to->to_end[l] = 0.0f;
    }
    if (before != last)
        to->across = 0.0f;
}

/* Decays of what each position j up to l puts in, at position l; zero beyond l and before its document. */
static inline void decays_at(const struct decays *decays, size l, float *to)
{
    float sum = decays->sums[l], rest = decays->rest[l];
    int document = decays->document[l], last = l; /* as long as the decays, for the loop's vectors */
    for (int j = 0; j < LENGTH; j++) {
        float decay = exponential(sum - decays->sums[j] + (rest - decays->rest[j]));
        to[j] = j < document || j > last ? 0.0f : decay;
    }
}

/* Rows of a chunk, each times its weight (or 1, if null), the ends of rows filled with zeros to whole vectors. */
static inline void weighted_rows(const struct chunk *chunk, const float *from, size row, size width, const float *weights,
                          const float *more, float *to)
{
    size to_row = whole_vectors(width);
    from += chunk->at * row;
    for (size l = 0; l < chunk->count; l++) {
        float weight = (weights ? weights[l] : 1.0f) * (more ? more[l] : 1.0f);
        for (size i = 0; i < width; i++)
            to[l * to_row + i] = weight * from[l * row + i];
        for (size i = width; i < to_row; i++)
            to[l * to_row + i] = 0.0f;
    }
}

/* Rows with their ends filled to whole vectors: where they lie, if they need none, else in `padded`. */
static inline const float *rows_at(const float *from, size rows, size width, float *padded)
{
    size wide = whole_vectors(width);
    if (wide == width)
        return from;
    for (size i = 0; i < rows; i++)
        for (size j = 0; j < wide; j++)
            padded[i * wide + j] = j < width ? from[i * width + j] : 0.0f;
    return padded;
}

/* `count` rows of a state (dstate, headdim), `wide` apart, of which `from` (headdim, dstate) has the transpose; zeros if
   null. */
static inline void load_state(const float *from, size count, size dstate, size headdim, size wide, float *state)
{
    memset(state, 0, sizeof(float) * count * wide);
    for (size p = 0; from && p < headdim; p++)
        for (size i = 0; i < count; i++)
            state[i * wide + p] = from[p * dstate + i];
}

static inline void store_state(const float *state, size count, size dstate, size headdim, size wide, float *to)
{
    for (size p = 0; p < headdim; p++)
        for (size i = 0; i < count; i++)
            to[p * dstate + i] = state[i * wide + p];
}

/* A copy of a state's rows, which then decay. */
static inline void keep_and_decay(float *state, size count, size headdim, float across, float *kept)
{
    size wide = whole_vectors(headdim);
    for (size i = 0; i < count; i++)
        for (size p = 0; p < headdim; p++) {
            kept[i * headdim + p] = state[i * wide + p];
            state[i * wide + p] *= across;
        }
}

/* scores (count, LENGTH) = C B^T of one group, up to the end of each row's tile. B_t: room for (dstate, LENGTH). */
static inline void scores_of(const struct scan *scan, const struct chunk *chunk, size g, float *B_t, float *scores)
{
    size row = scan->ngroups * scan->dstate;
    const float *B = scan->B + chunk->at * row + g * scan->dstate, *C = scan->C + chunk->at * row + g * scan->dstate;
    memset(B_t, 0, sizeof(float) * scan->dstate * LENGTH);
    transpose(chunk->count, scan->dstate, B, row, B_t, LENGTH);
    for (size l = 0; l < chunk->count; l += TILE) {
        size rows = chunk->count - l < TILE ? chunk->count - l : TILE;
        product(rows, whole_vectors(l + rows), scan->dstate, C + l * row, row, 1, B_t, LENGTH, scores + l * LENGTH,
                LENGTH, 0);
    }
}

#endif
