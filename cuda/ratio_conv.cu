// The product with Delta on a GPU: out[b,c,i] = sum_{o,j} g[b,o,j] (F(a[b,o,j]) - F(a[b,o,j] - 2 w[o,c,i-j] x[b,c,i])).
//
// The CPU's form of it (src/kernels/delta), laid out as a matrix product: rows are input pixels of the whole batch,
// columns input channels, and the sum runs over kernel entries and output units. A block has 64 pixels times 32 channels,
// a thread 4 times 4; the numbers of 16 output units at those pixels' places and the weights of 16 units wait in shared
// memory. A linear layer is a convolution of one pixel.
//
//   delta_units     a, g        -> what each output unit enters with, four units side by side, channels innermost
//   delta_weights   w           -> what each weight enters with, input channels innermost
//   delta_ratio     logistic noise: h / (x coth(w) - tau), four fractions on one reciprocal
//   delta_plain     any noise, any weight: the difference of two cdf values
//
// Cost of delta_ratio a term: one multiply-add for the denominator, nine multiplications and a multiply-add for four
// fractions, a quarter of a reciprocal: 3.5 on the multiply-add pipe (128 a clock and multiprocessor) and 1/4 on the
// special-function unit (16), so at best 36.6 terms a clock. One fraction a reciprocal would be bound by the latter at 16.
//
// Stride: pixels are taken by their remainders modulo the stride (a phase, blockIdx.z), whose kernel entries are every
// stride-th, so no work is spent on zeros between outputs. Places outside the output enter with h = 0.
//
// No host code, no includes: src/kernels/delta/cuda.rs compiles it by NVRTC and launches it; cuda/twin.cpp compiles the same
// text as C++ for the tests.

#define PIXELS 64
#define CHANNELS 32
#define DEPTH 16
#define GROUP 4
#define THREADS 128
#define TX (CHANNELS / 4)
#define TY (PIXELS / 4)

enum Law { RATIO, LOGISTIC, UNIFORM, TRIANGULAR, NORMAL };

struct Geometry {
  int batch, input, padded, groups;  // padded: channels up to whole blocks; groups: output units in fours
  int height, width, to_height, to_width, kernel_height, kernel_width;
  int stride_height, stride_width, pad_height, pad_width;
};

#ifdef THRUWAY_TWIN
static inline float reciprocal(float d) { return 1.0f / d; }
static inline float normal_cdf(float z) { return 0.5f * std::erfc(-z * 0.70710678f); }
#else
__device__ __forceinline__ float reciprocal(float d) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(d));  // 1 ulp
  return r;
}
__device__ __forceinline__ float normal_cdf(float z) { return normcdff(z); }
#endif

// F at scale 1.
__device__ __forceinline__ float cdf(int law, float z) {
  switch (law) {
    case UNIFORM:
      return fminf(fmaxf(0.5f * z + 0.5f, 0.0f), 1.0f);
    case TRIANGULAR: {
      float y = fmaxf(1.0f - fabsf(z), 0.0f);
      float tail = 0.5f * y * y;
      return z < 0.0f ? tail : 1.0f - tail;
    }
    case NORMAL:
      return normal_cdf(z);
    default:
      return 1.0f / (1.0f + expf(-z));
  }
}

// a, g [B, O, positions] -> [B, positions, groups, kept, GROUP] with kept 2 (tau, h) for RATIO, else 3 (a, g, F(a)). Units
// beyond the last have g = 0. One thread a group.
extern "C" __global__ void delta_units(const float* a, const float* g, float* out, int batch, int output, int positions,
                                       float inverse, int law) {
  int groups = (output + GROUP - 1) / GROUP;
  int kept = law == RATIO ? 2 : 3;
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= batch * groups * positions) return;
  int position = i % positions, group = i / positions % groups, image = i / positions / groups;
  float* to = out + ((image * positions + position) * groups + group) * kept * GROUP;
  for (int k = 0; k < GROUP; ++k) {
    int o = group * GROUP + k, from = (image * output + o) * positions + position;
    float z = o < output ? a[from] * inverse : 0.0f;
    float v = o < output ? g[from] : 0.0f;
    if (law == RATIO) {
      float e = expf(-fabsf(z)), r = 1.0f / (1.0f + e);
      to[k] = copysignf((1.0f - e) * r, z);
      to[GROUP + k] = 2.0f * e * r * r * v;
    } else {
      to[k] = z;
      to[GROUP + k] = v;
      to[2 * GROUP + k] = cdf(law, z);
    }
  }
}

// w [O, C, taps] -> [taps, groups * GROUP, padded]: coth(w) for RATIO, at most 1e9 so that a product of four stays finite,
// else 2 w. Beyond the last unit or channel 2, which no tau comes near. One thread a number.
extern "C" __global__ void delta_weights(const float* w, float* out, int output, int input, int padded, int taps,
                                         float inverse, int law) {
  int units = (output + GROUP - 1) / GROUP * GROUP;
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= taps * units * padded) return;
  int c = i % padded, o = i / padded % units, tap = i / padded / units;
  float v = 2.0f;
  if (c < input && o < output) {
    v = w[(o * input + c) * taps + tap] * inverse;
    if (law == RATIO) {
      float t = tanhf(v);
      v = copysignf(fminf(1.0f / fabsf(t), 1e9f), t);
    } else {
      v *= 2.0f;
    }
  }
  out[i] = v;
}

struct Ratio {
  static const int KEPT = 2;
  // kept[0]: tau, kept[1]: h of four units; c: their weights
  static __device__ __forceinline__ void add(float& acc, const float4* kept, const float* c, float x, int) {
    float4 tau = kept[0], h = kept[1];
    float d0 = fmaf(x, c[0], -tau.x), d1 = fmaf(x, c[1], -tau.y);
    float d2 = fmaf(x, c[2], -tau.z), d3 = fmaf(x, c[3], -tau.w);
    float n01 = fmaf(h.x, d1, h.y * d0), n23 = fmaf(h.z, d3, h.w * d2);
    float d01 = d0 * d1, d23 = d2 * d3;
    acc = fmaf(fmaf(n01, d23, n23 * d01), reciprocal(d01 * d23), acc);
  }
};

struct Plain {
  static const int KEPT = 3;
  static __device__ __forceinline__ void add(float& acc, const float4* kept, const float* c, float x, int law) {
    float4 a = kept[0], g = kept[1], f = kept[2];
    acc = fmaf(g.x, f.x - cdf(law, fmaf(-x, c[0], a.x)), acc);
    acc = fmaf(g.y, f.y - cdf(law, fmaf(-x, c[1], a.y)), acc);
    acc = fmaf(g.z, f.z - cdf(law, fmaf(-x, c[2], a.z)), acc);
    acc = fmaf(g.w, f.w - cdf(law, fmaf(-x, c[3], a.w)), acc);
  }
};

// Pixel `i` of a phase: image, and row and column counted in strides.
struct Pixel {
  int image, row, column;
  __device__ __forceinline__ Pixel(int i, int rows, int columns)
      : image(i / columns / rows), row(i / columns % rows), column(i % columns) {}
};

template <class Terms>
__device__ __forceinline__ void product(const float* x, const float* weights, const float* units, float* out,
                                        const Geometry& s, int law) {
  const int KEPT = Terms::KEPT;
  // one more than the pixels, so that the four groups of a pixel, written side by side, lie in different banks
  __shared__ float4 kept[DEPTH / GROUP][PIXELS * KEPT + 1];
  __shared__ float4 packed[DEPTH][CHANNELS / 4];

  const int t = threadIdx.x, tx = t % TX, ty = t / TX;
  const int phase_row = blockIdx.z / s.stride_width, phase_column = blockIdx.z % s.stride_width;
  const int rows = (s.height - phase_row + s.stride_height - 1) / s.stride_height;
  const int columns = (s.width - phase_column + s.stride_width - 1) / s.stride_width;
  const int pixels = s.batch * rows * columns, first = blockIdx.x * PIXELS;
  if (rows <= 0 || columns <= 0 || first >= pixels) return;  // the whole block
  const int channel = blockIdx.y * CHANNELS + tx * 4;

  // the kernel entries of this phase are first_row + m stride; entry m reaches output row `row + shift_row - m`
  const int first_row = (phase_row + s.pad_height) % s.stride_height;
  const int first_column = (phase_column + s.pad_width) % s.stride_width;
  const int shift_row = (phase_row + s.pad_height) / s.stride_height;
  const int shift_column = (phase_column + s.pad_width) / s.stride_width;

  // signs of the thread's 4 pixels times 4 channels: pixel p is first + p TY + ty
  float sign[4][4], acc[4][4];
  for (int p = 0; p < 4; ++p) {
    int i = first + p * TY + ty;
    Pixel at(i, rows, columns);
    int row = phase_row + at.row * s.stride_height, column = phase_column + at.column * s.stride_width;
    for (int q = 0; q < 4; ++q) {
      bool there = i < pixels && channel + q < s.input;
      int from = ((at.image * s.input + channel + q) * s.height + row) * s.width + column;
      sign[p][q] = there ? copysignf(1.0f, x[from]) : 1.0f;
      acc[p][q] = 0.0f;
    }
  }

  // of the numbers of output units this thread fetches one group for each of two pixels
  const int group = t % (DEPTH / GROUP), fetched = t / (DEPTH / GROUP);
  const Pixel from[2] = {Pixel(first + fetched, rows, columns), Pixel(first + fetched + PIXELS / 2, rows, columns)};
  const float4* all_units = (const float4*)units;
  const float4* all_weights = (const float4*)weights;
  const int across = s.padded / 4;

  int m_row = 0;
  for (int ky = first_row; ky < s.kernel_height; ky += s.stride_height, ++m_row) {
    int m_column = 0;
    for (int kx = first_column; kx < s.kernel_width; kx += s.stride_width, ++m_column) {
      const float4* unit[2];
      for (int n = 0; n < 2; ++n) {
        int row = from[n].row + shift_row - m_row, column = from[n].column + shift_column - m_column;
        bool there = first + fetched + n * (PIXELS / 2) < pixels && row >= 0 && row < s.to_height && column >= 0 &&
                     column < s.to_width;
        int position = (from[n].image * s.to_height + row) * s.to_width + column;
        unit[n] = there ? all_units + position * s.groups * KEPT : 0;
      }
      const float4* weight = all_weights + ((ky * s.kernel_width + kx) * s.groups * GROUP) * across + blockIdx.y * TX;

      for (int start = 0; start < s.groups; start += DEPTH / GROUP) {
        const int depth = min(DEPTH / GROUP, s.groups - start);
        __syncthreads();
        for (int n = 0; n < 2; ++n) {
          int m = fetched + n * (PIXELS / 2);
          for (int k = 0; k < KEPT; ++k) {
            float4 none = {0.0f, 0.0f, 0.0f, 0.0f};
            bool there = unit[n] && group < depth;
            kept[group][m * KEPT + k] = there ? unit[n][(start + group) * KEPT + k] : none;
          }
        }
        if (t / TX < depth * GROUP) packed[t / TX][tx] = weight[(start * GROUP + t / TX) * across + tx];
        __syncthreads();

        for (int i = 0; i < depth; ++i) {
          float c[4][GROUP];  // of the thread's four channels
#pragma unroll
          for (int k = 0; k < GROUP; ++k) {
            float4 w = packed[i * GROUP + k][tx];
            c[0][k] = w.x;
            c[1][k] = w.y;
            c[2][k] = w.z;
            c[3][k] = w.w;
          }
#pragma unroll
          for (int p = 0; p < 4; ++p) {
            const float4* numbers = &kept[i][(p * TY + ty) * KEPT];
#pragma unroll
            for (int q = 0; q < 4; ++q) Terms::add(acc[p][q], numbers, c[q], sign[p][q], law);
          }
        }
      }
    }
  }

  for (int p = 0; p < 4; ++p) {
    int i = first + p * TY + ty;
    Pixel at(i, rows, columns);
    int row = phase_row + at.row * s.stride_height, column = phase_column + at.column * s.stride_width;
    for (int q = 0; q < 4; ++q) {
      if (i < pixels && channel + q < s.input)
        out[((at.image * s.input + channel + q) * s.height + row) * s.width + column] = acc[p][q];
    }
  }
}

// grid: pixels of the largest phase / PIXELS, channels / CHANNELS, phases; block: THREADS.
extern "C" __global__ void __launch_bounds__(THREADS, 4)
    delta_ratio(const float* x, const float* weights, const float* units, float* out, Geometry s) {
  product<Ratio>(x, weights, units, out, s, RATIO);
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
    delta_plain(const float* x, const float* weights, const float* units, float* out, Geometry s, int law) {
  product<Plain>(x, weights, units, out, s, law);
}
