// What CUDA gives a kernel, for a C++ compiler: one fiber a thread, blocks one after another, a switch at each barrier.
// It finds mistakes of indexing, of ragged ends, of the order of sums and of barriers; not races, and no rounding of
// approximate instructions.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define THRUWAY_TWIN

struct float4 {
  float x, y, z, w;
};
struct Dim {
  int x, y, z;
};
static Dim blockIdx, threadIdx, blockDim;

static inline int min(int a, int b) { return a < b ? a : b; }

namespace twin {
struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(64 * 1024);
  bool done = true;
  int barriers = 0;
};
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static int current = 0;
static const std::function<void()>* body;

static void enter() {
  (*body)();
  fibers[current].done = true;
  swapcontext(&fibers[current].context, &scheduler);
}

// Runs `kernel` for every block of the grid; false if some thread of a block left while others waited at a barrier.
static bool launch(Dim grid, int threads, const std::function<void()>& kernel) {
  body = &kernel;
  blockDim = {threads, 1, 1};
  fibers.resize(threads);
  bool sound = true;
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
        for (Fiber& fiber : fibers) {
          getcontext(&fiber.context);
          fiber.context.uc_stack.ss_sp = fiber.stack.data();
          fiber.context.uc_stack.ss_size = fiber.stack.size();
          fiber.context.uc_link = nullptr;
          makecontext(&fiber.context, enter, 0);
          fiber.done = false;
          fiber.barriers = 0;
        }
        for (int left = threads; left > 0;) {
          left = 0;
          for (current = 0; current < threads; ++current) {
            if (fibers[current].done) continue;
            threadIdx = {current, 0, 0};
            swapcontext(&scheduler, &fibers[current].context);
            left += !fibers[current].done;
          }
          sound = sound && (left == 0 || left == threads);
        }
        for (const Fiber& fiber : fibers) sound = sound && fiber.barriers == fibers[0].barriers;
      }
  return sound;
}
}  // namespace twin

static inline void __syncthreads() {
  twin::fibers[twin::current].barriers++;
  swapcontext(&twin::fibers[twin::current].context, &twin::scheduler);
}
