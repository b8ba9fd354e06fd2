// ratio_conv.cu compiled for the CPU, with the launches that src/kernels/delta/cuda.rs makes. For the tests.
#include "twin.h"

#include "ratio_conv.cu"

static int blocks(int n, int per_block) { return (n + per_block - 1) / per_block; }

// The product of one layer; `units` and `weights` are scratch. Returns 0, or 1 for a divergent barrier.
extern "C" int thruway_twin_product(const float* x, const float* w, const float* a, const float* g, float* out,
                                    float* weights, float* units, const Geometry* s, int output, float inverse, int law) {
  int taps = s->kernel_height * s->kernel_width, positions = s->to_height * s->to_width;
  bool sound = twin::launch({blocks(s->batch * s->groups * positions, 256), 1, 1}, 256,
                            [&] { delta_units(a, g, units, s->batch, output, positions, inverse, law); });
  sound &= twin::launch({blocks(taps * s->groups * GROUP * s->padded, 256), 1, 1}, 256,
                        [&] { delta_weights(w, weights, output, s->input, s->padded, taps, inverse, law); });
  int rows = blocks(s->height, s->stride_height), columns = blocks(s->width, s->stride_width);
  Dim grid = {blocks(s->batch * rows * columns, PIXELS), s->padded / CHANNELS, s->stride_height * s->stride_width};
  sound &= twin::launch(grid, THREADS, [&] {
    if (law == RATIO)
      delta_ratio(x, weights, units, out, *s);
    else
      delta_plain(x, weights, units, out, *s, law);
  });
  return sound ? 0 : 1;
}
