/* As forward.c, of bf16: products in bf16 with fp32 sums; states and decays are fp32, except as factors. */
#include "operands.h"

/* AVX512-BF16: 1, with AMX: 2; without either there is nothing here. */
int ssd_multiplies_bf16(void)
{
#ifdef BF16_PRODUCTS
    return ask_for_tiles() ? 2 : 1;
#else
    return 0;
#endif
}

#ifdef BF16_PRODUCTS

/* states (batch, chunks, nheads, size_of_state). */
static void run_states(const struct scan *scan, const float *initial, pair *states, float *final, float *room, int tiles)
{
    size P = scan->headdim, N = scan->dstate, H = scan->nheads, row = scan->ngroups * N, wide = whole_tiles(P);
    float *state = take(&room, BLOCK * wide), weight[LENGTH];
    struct decays now;
    size chunks = chunks_of(scan);
#pragma omp for schedule(static)
    for (size task = 0; task < blocks_of(scan); task++) {
        struct block block = block_at(scan, task);
        size b = block.b, h = block.h, g = block.g, n = block.n, count = block.count;
        memset(state, 0, sizeof(float) * BLOCK * wide);
        load_state(initial ? initial + block.whole + n : 0, count, N, P, wide, state);
        for (size c = 0; c < chunks; c++) {
            struct chunk chunk = chunk_at(scan, b, c);
            const bf16 *B = scan->B_bf16 + g * N + n, *x = scan->x_bf16 + h * P;
            pair *kept = states + ((b * chunks + c) * H + h) * size_of_state(scan) + n / 2 * wide;
            decays(scan, &chunk, h, &now);
            for (size l = 0; l < chunk.count; l++)
                weight[l] = now.step[l] * now.to_end[l];
            keep_pairs_and_decay(state, count, wide, now.across, kept);
            advance(&chunk, count, B, row, x, H * P, P, weight, state, room, tiles);
        }
        store_state(state, count, N, P, wide, final + block.whole + n);
    }
}

/* y of each chunk, the heads of a group in turn. */
static void run_outputs(const struct scan *scan, const pair *states, bf16 *y, float *room, int tiles)
{
    size P = scan->headdim, N = scan->dstate, H = scan->nheads, G = scan->ngroups;
    size wide = whole_tiles(P), deep = whole_tiles(N), chunks = chunks_of(scan);
    bf16 *B = take_bf16(&room, LENGTH * deep), *C = take_bf16(&room, LENGTH * deep), *x = take_bf16(&room, LENGTH * wide);
    bf16 *weights = take_bf16(&room, LENGTH * LENGTH);
    pair *B_t = take_pairs(&room, deep / 2 * LENGTH), *x_pairs = take_pairs(&room, LENGTH / 2 * wide);
    float *scores = take(&room, LENGTH * LENGTH), *out = take(&room, LENGTH * wide), line[LENGTH];
    struct decays now;
    memset(weights, 0, sizeof(bf16) * LENGTH * LENGTH); /* rows beyond a chunk's positions stay finite */
#pragma omp for schedule(static)
    for (size task = 0; task < scan->batch * chunks * G; task++) {
        size g = task % G;
        struct chunk chunk = chunk_at(scan, task / G / chunks, task / G % chunks);
        rows_of(&chunk, scan->B_bf16 + g * N, G * N, N, B);
        rows_of(&chunk, scan->C_bf16 + g * N, G * N, N, C);
        transpose_pairs(LENGTH, deep / 2, B, deep / 2, B_t, LENGTH);
        product_below(tiles, deep, C, B_t, scores);
        for (size h = g * (H / G); h < (g + 1) * (H / G); h++) {
            float skip = scan->D ? scan->D[h] : 0.0f;
            const pair *state = states + ((chunk.b * chunks + chunk.c) * H + h) * size_of_state(scan);
            decays(scan, &chunk, h, &now);
            rows_of(&chunk, scan->x_bf16 + h * P, H * P, P, x);
            pair_rows(LENGTH, wide, x, wide, x_pairs, wide);
            product_bf16(tiles, LENGTH, wide, deep, C, deep, state, wide, out, wide, 0);
            for (size l = 0; l < chunk.count; l++) {
                decays_at(&now, l, line);
                for (size j = 0; j <= l; j++)
                    line[j] *= scores[l * LENGTH + j] * now.step[j];
                round_row(line, LENGTH, weights + l * LENGTH);
                float weight = now.from_start[l], *row = out + l * wide;
                for (size p = 0; p < wide; p++)
                    row[p] = row[p] * weight + skip * widened(x[l * wide + p]);
            }
            add_product_from_before(tiles, wide, weights, x_pairs, out);
            for (size l = 0; l < chunk.count; l++)
                round_row(out + l * wide, P, y + ((chunk.at + l) * H + h) * P);
        }
    }
}

/* tiles: AMX, which ssd_multiplies_bf16 has asked for. Returns whether there was no memory. */
int ssd_forward_bf16(const struct scan *scan, const float *initial, pair *states, float *final, bf16 *y, int tiles,
                     int threads)
{
    size wide = whole_tiles(scan->headdim), deep = whole_tiles(scan->dstate);
    size along = BLOCK * wide + room_to_advance(scan->headdim);
    size each = LENGTH * (deep + wide / 2 + LENGTH / 2 + deep / 2 + wide / 2 + LENGTH + wide);
    each = each > along ? each : along;
    float *rooms = aligned_alloc(64, sizeof(float) * each * threads);
    if (!rooms)
        return 1;
#pragma omp parallel num_threads(threads)
    {
        float *room = rooms + each * thread();
        struct tiles before = set_tiles(tiles);
        run_states(scan, initial, states, final, room, tiles);
        run_outputs(scan, states, y, room, tiles);
        reset_tiles(tiles, before);
    }
    free(rooms);
    return 0;
}

#endif
