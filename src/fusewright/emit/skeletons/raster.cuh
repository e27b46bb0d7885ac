// The order in which persistent kernels take tiles and stages.
#pragma once
#include <stdint.h>

namespace tiles {

#define TILES_INLINE __device__ __forceinline__

// Position in a ring of stages: `parity` flips each time round.
template <int kStages>
struct Ring {
    int stage = 0;
    uint32_t parity = 0;
    TILES_INLINE void next() {
        if (++stage == kStages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// Tile number `tile` of a batch of `blocks` x `columns` tiles, in groups of `width` columns: a wave of
// clusters then covers a compact rectangle of the result, whose operands the L2 cache holds.
struct TilePlace {
    int batch, block, column;
};

TILES_INLINE TilePlace raster(int tile, int blocks, int columns, int width) {
    const int batch = tile / (blocks * columns);
    const int rest = tile - batch * (blocks * columns);
    const int first = rest / (blocks * width) * width;
    const int across = min(width, columns - first);
    const int within = rest - first * blocks;
    const int block = within / across;
    return {batch, block, first + within - block * across};
}

}  // namespace tiles
