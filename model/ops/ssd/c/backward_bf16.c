/* As backward.c, of bf16: products in bf16 with fp32 sums; what is summed over heads or positions otherwise is fp32. */
#include "gradients.h"
#include "operands.h"
#ifdef BF16_PRODUCTS

/* d_states (batch, chunks, nheads, size_of_state) of the states at the chunks' ends. */
static void run_states_back(const struct scan *scan, const struct gradients *to, pair *d_states, float *room, int tiles)
{
    size P = scan->headdim, N = scan->dstate, H = scan->nheads, row = scan->ngroups * N, wide = whole_tiles(P);
    float *grad = take(&room, BLOCK * wide);
    struct decays now;
    size chunks = chunks_of(scan);
#pragma omp for schedule(static)
    for (size task = 0; task < blocks_of(scan); task++) {
        struct block block = block_at(scan, task);
        size b = block.b, h = block.h, g = block.g, n = block.n, count = block.count;
        memset(grad, 0, sizeof(float) * BLOCK * wide);
        load_state(to->d_final ? to->d_final + block.whole + n : 0, count, N, P, wide, grad);
        for (size c = chunks - 1; c >= 0; c--) {
            struct chunk chunk = chunk_at(scan, b, c);
            const bf16 *C = scan->C_bf16 + g * N + n, *dy = to->dy_bf16 + h * P;
            pair *kept = d_states + ((b * chunks + c) * H + h) * size_of_state(scan) + n / 2 * wide;
            decays(scan, &chunk, h, &now);
            keep_pairs_and_decay(grad, count, wide, now.across, kept);
            advance(&chunk, count, C, row, dy, H * P, P, now.from_start, grad, room, tiles);
        }
        store_state(grad, count, N, P, wide, to->d_initial + block.whole + n);
    }
}

/* What one chunk's matrices are kept in: rows, pairs and sums. */
struct tables {
    bf16 *x, *dy;                             /* (LENGTH, wide) */
    bf16 *B, *C;                              /* (LENGTH, deep) */
    bf16 *square, *square_t;                  /* (LENGTH, LENGTH) */
    bf16 *state_t;                            /* (wide, deep) */
    pair *x_t, *dy_pairs;                     /* (wide / 2, LENGTH), (LENGTH / 2, wide) */
    pair *B_t, *B_pairs, *C_pairs;            /* (deep / 2, LENGTH), (LENGTH / 2, deep) twice */
    pair *square_pairs, *state_t_pairs;       /* (LENGTH / 2, LENGTH), (wide / 2, deep) */
    float *scores, *d_scores, *weights, *d_weights;   /* (LENGTH, LENGTH) */
    float *d_update, *from_state;             /* (LENGTH, wide) */
    float *dB, *dC, *read;                    /* (LENGTH, deep) */
};

static size room_for(struct tables *t, const struct scan *scan, float *room)
{
    size wide = whole_tiles(scan->headdim), deep = whole_tiles(scan->dstate);
    float *start = room;
    bf16 **of_width[] = {&t->x, &t->dy}, **of_depth[] = {&t->B, &t->C}, **squares[] = {&t->square, &t->square_t};
    pair **pairs_of_width[] = {&t->x_t, &t->dy_pairs}, **pairs_of_depth[] = {&t->B_t, &t->B_pairs, &t->C_pairs};
    float **sums[] = {&t->scores, &t->d_scores, &t->weights, &t->d_weights};
    float **sums_of_width[] = {&t->d_update, &t->from_state}, **sums_of_depth[] = {&t->dB, &t->dC, &t->read};
    for (int i = 0; i < 2; i++) {
        *of_width[i] = take_bf16(&room, LENGTH * wide);
        *of_depth[i] = take_bf16(&room, LENGTH * deep);
        *squares[i] = take_bf16(&room, LENGTH * LENGTH);
        *pairs_of_width[i] = take_pairs(&room, LENGTH / 2 * wide);
        *sums_of_width[i] = take(&room, LENGTH * wide);
    }
    for (int i = 0; i < 3; i++) {
        *pairs_of_depth[i] = take_pairs(&room, LENGTH / 2 * deep);
        *sums_of_depth[i] = take(&room, LENGTH * deep);
    }
    for (int i = 0; i < 4; i++)
        *sums[i] = take(&room, LENGTH * LENGTH);
    t->state_t = take_bf16(&room, wide * deep);
    t->square_pairs = take_pairs(&room, LENGTH / 2 * LENGTH);
    t->state_t_pairs = take_pairs(&room, wide / 2 * deep);
    return room - start;
}

/* square, square_t = a (LENGTH, LENGTH), of which the first `count` rows count, and its transpose. */
static void round_square(const float *a, size count, const struct tables *t)
{
    for (size l = 0; l < count; l++)
        round_row(a + l * LENGTH, LENGTH, t->square + l * LENGTH);
    memset(t->square + count * LENGTH, 0, sizeof(bf16) * (LENGTH - count) * LENGTH);
    pair_rows(LENGTH, LENGTH, t->square, LENGTH, t->square_pairs, LENGTH);
    transpose_pairs(LENGTH / 2, LENGTH, t->square_pairs, LENGTH, t->square_t, LENGTH / 2);
}

/* What the positions of a chunk ask of one another: d_update (LENGTH, wide) = and d_scores +=, and shares of d_sums. */
static void within(const struct chunk *chunk, const struct decays *now, size wide, const struct tables *t, double *d_sums,
                   int tiles)
{
    transpose_pairs(LENGTH, wide / 2, t->x, wide / 2, t->x_t, LENGTH);
    product_below(tiles, wide, t->dy, t->x_t, t->d_weights);
    for (size l = 0; l < chunk->count; l++)
        shares(now, l, t->scores + l * LENGTH, t->d_weights + l * LENGTH, t->weights + l * LENGTH, t->d_scores + l * LENGTH,
               d_sums);
    round_square(t->weights, chunk->count, t);
    pair_rows(LENGTH, wide, t->dy, wide, t->dy_pairs, wide);
    product_from_after(tiles, wide, t->square_t, t->dy_pairs, t->d_update, 0);
}

/* read (LENGTH, deep) = rows (LENGTH, wide) state^T. */
static void read_state(const bf16 *rows, const pair *state, size wide, size deep, const struct tables *t, int tiles)
{
    transpose_pairs(deep / 2, wide, state, wide, t->state_t, deep / 2);
    pair_rows(wide, deep, t->state_t, deep, t->state_t_pairs, deep);
    product_bf16(tiles, LENGTH, deep, wide, rows, wide, t->state_t_pairs, deep, t->read, deep, 0);
}

/* The sum of the products of their numbers. */
static float dot(const pair *a, const pair *b, size count)
{
    float sum = 0.0f;
    const bf16 *left = (const bf16 *)a, *right = (const bf16 *)b;
#pragma omp simd reduction(+ : sum)
    for (size i = 0; i < 2 * count; i++)
        sum += widened(left[i]) * widened(right[i]);
    return sum;
}

/* One head of a chunk: dx and d_step of its positions, its shares of dA and dD; dB, dC and d_scores grow. */
static void head_back(const struct scan *scan, const struct gradients *to, const struct chunk *chunk, size h,
                      const pair *states, const pair *d_states, const struct tables *t, int tiles)
{
    size P = scan->headdim, H = scan->nheads, wide = whole_tiles(P), deep = whole_tiles(scan->dstate);
    size count = chunk->count, at = (chunk->b * chunks_of(scan) + chunk->c) * H + h;
    const pair *state = states + at * size_of_state(scan), *d_state = d_states + at * size_of_state(scan);
    struct decays now;
    double d_sums[LENGTH] = {0};
    float d_step[LENGTH], line[wide], skip = scan->D ? scan->D[h] : 0.0f, dD = 0.0f;
    decays(scan, chunk, h, &now);
    rows_of(chunk, scan->x_bf16 + h * P, H * P, P, t->x);
    rows_of(chunk, to->dy_bf16 + h * P, H * P, P, t->dy);
    within(chunk, &now, wide, t, d_sums, tiles);

    /* The state at the start, read with C. */
    read_state(t->dy, state, wide, deep, t, tiles);
    for (size l = 0; l < count; l++) {
        float share = 0.0f, weight = now.from_start[l], *dC = t->dC + l * deep;
        const float *read = t->read + l * deep;
        const bf16 *C = t->C + l * deep;
#pragma omp simd reduction(+ : share)
        for (size n = 0; n < deep; n++) {
            dC[n] += weight * read[n];
            share += weight * read[n] * widened(C[n]);
        }
        d_sums[l] += share;
    }

    /* What each position adds to the state at the end. */
    read_state(t->x, d_state, wide, deep, t, tiles);
    for (size l = 0; l < count; l++) {
        float weight = now.step[l] * now.to_end[l], *dB = t->dB + l * deep;
        const float *read = t->read + l * deep;
        for (size n = 0; n < deep; n++)
            dB[n] += weight * read[n];
    }
    product_bf16(tiles, LENGTH, wide, deep, t->B, deep, d_state, wide, t->from_state, wide, 0);
    d_sums[count - 1] += dot(state, d_state, size_of_state(scan)) * now.across;

    for (size l = 0; l < count; l++) {
        float share = 0.0f, of_step = 0.0f, of_skip = 0.0f, to_end = now.to_end[l], step = now.step[l];
        const float *from_state = t->from_state + l * wide, *d_update = t->d_update + l * wide;
        const bf16 *x = t->x + l * wide, *dy = t->dy + l * wide;
#pragma omp simd reduction(+ : share, of_step, of_skip)
        for (size p = 0; p < wide; p++) {
            float far = from_state[p] * to_end, update = d_update[p] + far;
            float input = widened(x[p]), grad = widened(dy[p]);
            share += far * input;
            of_step += update * input;
            of_skip += grad * input;
            line[p] = update * step + skip * grad;
        }
        round_row(line, P, to->dx_bf16 + ((chunk->at + l) * H + h) * P);
        share_of_end(l, count - 1, share * now.step[l], d_sums);
        d_step[l] = of_step;
        dD += of_skip;
    }
    to->dA[at] = through_sums(scan, chunk, h, &now, d_sums, d_step, to->d_step);
    to->dD[at] = dD;
}

/* The gradients of each chunk, the heads of a group in turn. */
static void run_chunks_back(const struct scan *scan, const struct gradients *to, const pair *states, const pair *d_states,
                            float *room, int tiles)
{
    size N = scan->dstate, H = scan->nheads, G = scan->ngroups, deep = whole_tiles(N), chunks = chunks_of(scan);
    struct tables t;
    room_for(&t, scan, room);
#pragma omp for schedule(static)
    for (size task = 0; task < scan->batch * chunks * G; task++) {
        size g = task % G;
        struct chunk chunk = chunk_at(scan, task / G / chunks, task / G % chunks);
        rows_of(&chunk, scan->B_bf16 + g * N, G * N, N, t.B);
        rows_of(&chunk, scan->C_bf16 + g * N, G * N, N, t.C);
        transpose_pairs(LENGTH, deep / 2, t.B, deep / 2, t.B_t, LENGTH);
        pair_rows(LENGTH, deep, t.B, deep, t.B_pairs, deep);
        pair_rows(LENGTH, deep, t.C, deep, t.C_pairs, deep);
        product_below(tiles, deep, t.C, t.B_t, t.scores);
        memset(t.dB, 0, sizeof(float) * LENGTH * deep);
        memset(t.dC, 0, sizeof(float) * LENGTH * deep);
        memset(t.d_scores, 0, sizeof(float) * LENGTH * LENGTH);
        for (size h = g * (H / G); h < (g + 1) * (H / G); h++)
            head_back(scan, to, &chunk, h, states, d_states, &t, tiles);
        round_square(t.d_scores, chunk.count, &t);
        add_product_from_before(tiles, deep, t.square, t.B_pairs, t.dC);
        product_from_after(tiles, deep, t.square_t, t.C_pairs, t.dB, 1);
        for (size l = 0; l < chunk.count; l++) {
            size at = ((chunk.at + l) * G + g) * N;
            round_row(t.dB + l * deep, N, to->dB_bf16 + at);
            round_row(t.dC + l * deep, N, to->dC_bf16 + at);
        }
    }
}

/* d_states: room for (batch, chunks, nheads, size_of_state). tiles: AMX, which ssd_multiplies_bf16 has asked for. Returns
   whether there was no memory. */
int ssd_backward_bf16(const struct scan *scan, const struct gradients *to, const pair *states, pair *d_states, int tiles,
                      int threads)
{
    struct tables nowhere;
    size along = BLOCK * whole_tiles(scan->headdim) + room_to_advance(scan->headdim);
    size each = room_for(&nowhere, scan, 0);
    each = each > along ? each : along;
    float *rooms = aligned_alloc(64, sizeof(float) * each * threads);
    if (!rooms)
        return 1;
#pragma omp parallel num_threads(threads)
    {
        float *room = rooms + each * thread();
        struct tiles before = set_tiles(tiles);
        run_states_back(scan, to, d_states, room, tiles);
        run_chunks_back(scan, to, states, d_states, room, tiles);
        reset_tiles(tiles, before);
    }
    free(rooms);
    return 0;
}

#endif
